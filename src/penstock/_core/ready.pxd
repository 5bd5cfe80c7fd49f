from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t

from penstock._core.handle cimport Runnable


cdef class Ready:
    # Not used: it makes Cython make a type that the garbage collector looks into.
    cdef object collected
    cdef PyObject **slots
    cdef size_t head, count, mask
    # The clock as it was last read: what enters the queue is stamped with it. 0 while the loop stands still.
    cdef int64_t stamp_ns

    cdef int grow(self) except -1
    cdef int clear(self) except -1
    cdef int64_t oldest_ns(self) noexcept


cdef inline int push(Ready ready, Runnable entry) except -1:
    """Appends at the end; the queue takes a reference of its own."""
    if ready.count > ready.mask:
        ready.grow()
    Py_INCREF(entry)
    entry.ready_ns = ready.stamp_ns
    ready.slots[(ready.head + ready.count) & ready.mask] = <PyObject *>entry
    ready.count += 1
    return 0


cdef inline PyObject *pop(Ready ready) noexcept:
    """Takes the oldest; the caller owns the reference. The queue must not be empty."""
    cdef PyObject *entry = ready.slots[ready.head]
    ready.head = (ready.head + 1) & ready.mask
    ready.count -= 1
    return entry
