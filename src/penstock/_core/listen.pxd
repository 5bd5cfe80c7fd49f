from penstock._core.poller cimport Source
from penstock._core.wiring cimport Wiring


cdef class Listener(Source):
    cdef Wiring wiring
    cdef object loop, sock, server, protocol_factory, context
    # is_accepting: in the poller; is_wanted: not paused by the server, whatever keeps it out of the poller.
    cdef bint is_queued, is_accepting, is_wanted, gives_context

    cdef int enter(self) except -1
    cdef int leave(self) except -1
    cdef int accept_one(self) except -1
    cdef int welcome(self, int fd) except -1
    cdef int accept_failed(self) except -1
