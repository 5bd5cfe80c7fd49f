from cpython.object cimport PyObject

from penstock._core.events.handle cimport Runnable
from penstock._core.events.ready cimport Ready


cdef class Inbox:
    # Not used: it makes Cython make a type that the garbage collector looks into.
    cdef object collected
    # The newest entry; each links to the one posted before it.
    cdef PyObject *newest

    cdef int post(self, Runnable entry) except -1
    cdef int drain(self, Ready ready) except -1


cdef inline bint has_post(Inbox inbox) noexcept:
    return inbox.newest is not NULL
