from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from penstock._core.handle cimport Runnable


cdef class Ready:
    # Not used: it makes Cython make a type that the garbage collector looks into.
    cdef object collected
    cdef PyObject **slots
    cdef size_t head, count, mask

    cdef int grow(self) except -1
    cdef int clear(self) except -1


cdef inline int push(Ready ready, Runnable entry) except -1:
    """Appends at the end; the queue takes a reference of its own."""
    if ready.count > ready.mask:
        ready.grow()
    Py_INCREF(entry)
    ready.slots[(ready.head + ready.count) & ready.mask] = <PyObject *>entry
    ready.count += 1
    return 0


cdef inline PyObject *pop(Ready ready) noexcept:
    """Takes the oldest; the caller owns the reference. The queue must not be empty."""
    cdef PyObject *entry = ready.slots[ready.head]
    ready.head = (ready.head + 1) & ready.mask
    ready.count -= 1
    return entry
