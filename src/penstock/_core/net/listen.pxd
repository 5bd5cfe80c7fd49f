from libc.stdint cimport int64_t, uint64_t

from penstock._core.net.address cimport Peer
from penstock._core.net.clients cimport Clients
from penstock._core.net.deferred_accepts cimport AcceptingSource
from penstock._core.net.io_context cimport IOContext


cdef class Listener(AcceptingSource):
    cdef IOContext io
    cdef object loop, sock, server, protocol_factory, context
    # is_accepting: in the poller; is_wanted: not paused by the server, whatever keeps it out of the poller.
    cdef bint is_queued, is_accepting, is_wanted, gives_context
    # Its server's clients; None: the server keeps them in its own way.
    cdef Clients clients
    # The number of the poll after which it last accepted.
    cdef uint64_t accepted_poll
    # Accepted sockets are read to the end.
    cdef bint is_plain
    # Out of descriptors, and notified of each that is released; the timer by which it tries again in any case.
    cdef bint is_starved
    cdef object retry
    # Called when the number of deferred accepts has changed; None: no listener.
    cdef public object on_deferred

    cdef int enter(self) except -1
    cdef int leave(self) except -1
    cdef int accept_some(self) except -1
    cdef int next_batch(self) noexcept
    cdef int accept_one(self) except -1
    cdef int read_reply(self, object protocol) except -1
    cdef int defer(self, int fd, Peer *peer) except -1
    cdef int make_transport(self, int fd, Peer *peer, int64_t deferred_since_ns) except -1
    cdef int report(self, object exc) except -1
    cdef int accept_failed(self) except -1
    cdef int accept_freed(self, int most) except -1
    cdef bint waits_for_descriptors(self) except -1
    cdef int starve(self) except -1
    cdef int recover(self) except -1
