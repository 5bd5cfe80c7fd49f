from libc.stdint cimport int64_t, uint64_t

from penstock._core.events.poller cimport Poller
from penstock._core.events.ready cimport Ready
from penstock._core.limits.budget cimport Budget
from penstock._core.net.buffers cimport ReadPool
from penstock._core.net.deferred_accepts cimport DeferredAccepts
from penstock._core.net.gathered cimport GatheredWrites
from penstock._core.limits.peer_timeouts cimport TimeoutBounds
from penstock._core.limits.wheel cimport Wheel
from penstock._core.overload.deferred_reads cimport DeferredReads
from penstock._core.overload.lingering cimport LingeringConnections

cdef enum:
    # One receive, as large as asyncio's.
    RECEIVE_BYTES = 256 * 1024


cdef class IOContext:
    cdef readonly Ready ready
    cdef readonly Poller poller
    # The transports that keep writes back until their callback ends.
    cdef GatheredWrites gathered
    cdef char *receive_buffer
    # What datagram transports share, made by the first: the memory to receive into, the names of peers.
    cdef object datagrams, names
    # Whether the last `sock_recv` brought much: then the next one receives straight into its result.
    cdef bint receives_much
    cdef ReadPool reads
    cdef uint64_t turn
    cdef Py_ssize_t read_budget_bytes
    # Connections accepted from a listener in one turn: as configured, and in this one.
    cdef int accept_batch, accept_now
    # Whether reads of accepted connections are counted, and how many this turn may still bring: the others are deferred.
    cdef bint counts_reads
    cdef int64_t reads_left
    cdef readonly DeferredReads deferred_reads
    # Connections accepted while the loop defers reads, and how many a listener may defer in this turn; -1: it defers none.
    cdef readonly DeferredAccepts deferred_accepts
    cdef int defer_now
    # The bound of the backlog, beyond which connections are shed.
    cdef size_t backlog_limit
    # Connections that are answered, and read on until their clients end them.
    cdef readonly LingeringConnections lingering
    # The listeners that accept.
    cdef list listeners
    cdef uint64_t shed_count
    # Whether deferred connections are closed unread when their client has left.
    cdef bint closes_abandoned
    # The context variable for the arrival time of a deferred read's data; None.
    cdef object arrival
    # Deadlines of connections.
    cdef readonly Wheel wheel
    # The limits of new streams; None: no limit.
    cdef Budget budget
    cdef TimeoutBounds bounds
    # on_disconnect(transport, reason, queued bytes, seconds) -> the exception for `connection_lost`
    cdef object on_disconnect
    # When the last wait began, and in which turn: until then the loop was at work.
    cdef int64_t wait_began_ns
    cdef uint64_t wait_turn
    # Listeners that wait for a descriptor, and are notified of each released one; None: there are none.
    cdef list starved

    cdef int descriptor_freed(self) except -1
    cdef bint is_backlog_full(self) noexcept
