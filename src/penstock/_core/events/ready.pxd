from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t

from penstock._core.events.handle cimport Runnable


cdef class Ready:
    # Not used: it makes Cython make a type that the garbage collector looks into.
    cdef object collected
    cdef PyObject **slots
    cdef size_t head, count, mask
    # The clock as it was last read: what enters the queue is stamped with it. 0 while the loop stands still.
    cdef int64_t stamp_ns

    cdef int grow(self) except -1
    cdef int resize(self, size_t size) noexcept
    cdef int clear(self) except -1
    cdef int64_t oldest_ns(self) noexcept


cdef enum:
    # Kept while empty: 64 KiB. More was filled to the half at least, so giving it back costs less than the filling did.
    KEPT_SIZE = 8192


cdef inline int relax(Ready ready) noexcept:
    """Before the loop waits: the memory of a burst is given back."""
    if ready.mask >= KEPT_SIZE and ready.count == 0:
        ready.resize(KEPT_SIZE)
    return 0


cdef inline int make_room(Ready ready) except -1:
    """Has the next `push` succeed."""
    if ready.count > ready.mask:
        ready.grow()
    return 0


cdef inline int push(Ready ready, Runnable entry) except -1:
    """Append at the end; the queue takes a reference of its own."""
    make_room(ready)
    Py_INCREF(entry)
    entry.ready_ns = ready.stamp_ns
    ready.slots[(ready.head + ready.count) & ready.mask] = <PyObject *>entry
    ready.count += 1
    return 0


cdef inline PyObject *pop(Ready ready) noexcept:
    """Take the oldest; the caller owns the reference. The queue must not be empty."""
    cdef PyObject *entry = ready.slots[ready.head]
    ready.head = (ready.head + 1) & ready.mask
    ready.count -= 1
    return entry
