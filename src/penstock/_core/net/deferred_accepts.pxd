from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from penstock._core._sys.poll cimport pollfd
from penstock._core.events.poller cimport Source
from penstock._core.net.address cimport Peer
from penstock._core.overload.lingering cimport LingeringConnections
from penstock._core.overload.urgent cimport UrgentRequests


cdef class AcceptingSource(Source):
    # The number of its own deferred accepts.
    cdef readonly size_t deferred
    # The answer to the next connection that is shed, and all answers in rotation; None: no answer is known.
    cdef bytes reply
    cdef tuple replies

    cdef int admit(self, int fd, Peer *peer, int64_t since_ns, bint has_data) except -1
    cdef int deferred_changed(self) except -1


cdef int shed_accept(LingeringConnections lingering, int fd, AcceptingSource owner) noexcept


cdef struct DeferredAccept:
    # Owned.
    PyObject *owner
    Peer peer
    int64_t since_ns
    # Its client had shut its side down before a poll saw it waiting.
    bint is_shut
    # It came to a full backlog, and had sent nothing yet.
    bint is_silent
    # Its request is not known yet; it is urgent.
    bint is_undecided, is_urgent


cdef class DeferredAccepts:
    # Not used: it makes Cython make a type that the garbage collector looks into.
    cdef object collected
    # By age, the oldest at `first`: the descriptors as poll(2) wants them, and what else is known of each.
    cdef pollfd *polled
    cdef DeferredAccept *entries
    cdef size_t size, first
    cdef readonly size_t count, most
    # At most so many at once.
    cdef public size_t capacity
    # Counts: ever deferred, and of these abandoned by their client, answered unread, or closed with their server.
    cdef readonly uint64_t total, abandoned, shed, closed
    # The lingering connections, which take over answered descriptors.
    cdef LingeringConnections lingering
    # The times of the last poll of all and of the next one.
    cdef int64_t checked_ns, check_at_ns
    # The urgent requests; None: none. Whether there may be one to admit.
    cdef public UrgentRequests urgent
    cdef bint has_urgent

    cdef int add(self, AcceptingSource owner, int fd, Peer *peer, int64_t since_ns, bint is_silent, bint is_undecided) except -1
    cdef int reserve(self) except -1
    cdef bint has_room(self) noexcept
    cdef int64_t newest_since(self) noexcept
    cdef int64_t oldest_since(self) noexcept
    cdef int admit(self, bint is_newest, bint closes_abandoned) except -1
    cdef int admit_at(self, size_t at, bint closes_abandoned) except -1
    cdef int admit_urgent(self, bint closes_abandoned) except -1
    cdef int remove_at(self, size_t at) noexcept
    cdef int shed_oldest(self) except -1
    cdef int check(self, int64_t turn_ns, bint closes_abandoned, bint is_full) except -1
    cdef size_t close_abandoned(self, int64_t shut_until_ns, bint closes_abandoned, bint is_full=*) except? 0
    cdef int check_entry(self, size_t at, int64_t shut_until_ns, bint closes_abandoned, bint is_full) noexcept
    cdef bint check_urgent(self, size_t at) noexcept
    cdef bint is_abandoned(self, DeferredAccept *entry, short events, int64_t shut_until_ns, bint closes_abandoned) noexcept
    cdef int close_of(self, AcceptingSource owner) except -1
    cdef int move(self, size_t at, size_t to) noexcept
    cdef int grow(self) except -1
