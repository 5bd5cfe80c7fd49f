from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from penstock._core._sys.poll cimport pollfd
from penstock._core.events.poller cimport Source
from penstock._core.net.address cimport Peer
from penstock._core.overload.lingering cimport Lingering
from penstock._core.overload.urgent cimport Urgent


cdef class Parker(Source):
    # How many of those that are parked are its own.
    cdef readonly size_t parked
    # What is answered to the next that is turned away, and all that may be; None: nothing can be.
    cdef bytes reply
    cdef tuple replies

    cdef int let_in(self, int fd, Peer *peer, int64_t since_ns, bint has_data) except -1
    cdef int some_left(self) except -1


cdef int answer(Lingering lingering, int fd, Parker owner) noexcept


cdef struct Spot:
    # Owned.
    PyObject *owner
    Peer peer
    int64_t since_ns
    # Its client had shut its side down before it was seen to wait.
    bint is_shut
    # It came to a full line, and had sent nothing yet.
    bint is_silent
    # What it asks for is not known yet; it is urgent.
    bint is_untold, is_urgent


cdef class Parked:
    # Not used: it makes Cython make a type that the garbage collector looks into.
    cdef object collected
    # By age, the oldest at `first`: the descriptors as poll(2) wants them, and what else is known of each.
    cdef pollfd *polled
    cdef Spot *spots
    cdef size_t size, first
    cdef readonly size_t count, most
    # At most so many at once.
    cdef public size_t bound
    # How many were ever parked; how many of them were closed there, their client gone, answered there, or closed with
    # their server.
    cdef readonly uint64_t total, left, turned_away, given_up
    # Where those go on that are answered.
    cdef Lingering lingering
    # When all were last looked at, and when they are to be again.
    cdef int64_t looked_ns, look_at_ns
    # What passes the others; None: nothing does. Whether there may be one to let in.
    cdef public Urgent urgent
    cdef bint has_urgent

    cdef int add(self, Parker owner, int fd, Peer *peer, int64_t since_ns, bint is_silent, bint is_untold) except -1
    cdef int make_room(self) except -1
    cdef bint has_room(self) noexcept
    cdef int64_t newest_since(self) noexcept
    cdef int64_t oldest_since(self) noexcept
    cdef int let_in(self, bint is_newest, bint drops_left) except -1
    cdef int let_in_at(self, size_t at, bint drops_left) except -1
    cdef int let_urgent_in(self, bint drops_left) except -1
    cdef int take_out(self, size_t at) noexcept
    cdef int turn_oldest_away(self) except -1
    cdef int look(self, int64_t turn_ns, bint drops_left, bint is_full) except -1
    cdef size_t close_left(self, int64_t shut_until_ns, bint drops_left, bint is_full=*) except? 0
    cdef int found(self, size_t at, int64_t shut_until_ns, bint drops_left, bint is_full) noexcept
    cdef bint is_passing(self, size_t at) noexcept
    cdef bint is_left(self, Spot *spot, short events, int64_t shut_until_ns, bint drops_left) noexcept
    cdef int give_up(self, Parker owner) except -1
    cdef int move(self, size_t at, size_t to) noexcept
    cdef int widen(self) except -1
