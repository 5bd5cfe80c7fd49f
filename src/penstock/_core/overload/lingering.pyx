"""Lingering: connections that have had their last answer and are read on until their clients end them; what comes is discarded.

A socket that is closed while its client still sends is reset, and the reset may overtake the answer: a client that
sends a long request would see an error in place of it. So our side is shut down and the rest of the request taken,
for a bounded time and up to a bounded size. There are at most so many at once: for one more the oldest is closed.

They have an epoll set of their own, which is one descriptor in the poller: one of them costs no object.

Ownership: a descriptor is the ring's from `add` on. In a forked child the set is the parent's too: it is closed
first, so that nothing is taken out of it.
"""

import resource

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.errno cimport EAGAIN
from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.unistd cimport close

from penstock._core._sys.epoll cimport (
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLLIN,
    EPOLLRDHUP,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_now,
)
from penstock._core._sys.socket cimport MSG_TRUNC, SHUT_WR, receive_with, shutdown
from penstock._core.events.clock cimport now_ns
from penstock._core.events.poller cimport Poller, Source

cdef enum:
    # Of the descriptors that the process may have, so small a part.
    DESCRIPTORS_PART = 16
    MOST_AT_ONCE = 512
    MOST_BYTES = 4 * 1024 * 1024
    PIECE_BYTES = 64 * 1024
    # Of one connection in one turn.
    PIECES = 4
    BATCH = 64

cdef int64_t NEVER_NS = <int64_t>1 << 62
cdef int64_t LINGER_NS = 5_000_000_000
# Written by the kernel and never read; TCP does not even copy into it.
cdef char[PIECE_BYTES] sink


cdef class LingeringConnections(Source):
    """The lingering connections of one loop."""

    def __cinit__(self, Poller poller not None):
        self.poller, self.next_ns, self.linger_ns = poller, NEVER_NS, LINGER_NS
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.size = MOST_AT_ONCE
        if most != resource.RLIM_INFINITY:
            self.size = max(min(MOST_AT_ONCE, most // DESCRIPTORS_PART), 1)

    def __dealloc__(self):
        self.close_all()
        PyMem_Free(self.ring)

    cdef int add(self, int fd) noexcept:
        """Take over a descriptor whose answer is sent: shut our side down, and close it when the client has ended."""
        cdef Py_ssize_t left_bytes = MOST_BYTES
        if shutdown(fd, SHUT_WR) < 0 or has_ended(fd, &left_bytes) or not self.open():
            close(fd)
            return 0
        return self.enlist(fd, left_bytes)

    cdef bint open(self) noexcept:
        """Make the set and the ring at first use. Return False without memory or descriptors."""
        if self.ring is NULL:
            self.ring = <LingeringSlot *>PyMem_Calloc(self.size, sizeof(LingeringSlot))
            if self.ring is NULL:
                return False
        if self.fd >= 0:
            return True
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        if self.fd < 0:
            return False
        try:
            self.poller.add(self, EPOLLIN)
        except BaseException:
            close(self.fd)
            self.fd = -1
        return self.fd >= 0

    cdef int enlist(self, int fd, Py_ssize_t left_bytes) noexcept:
        cdef epoll_event event
        if self.next - self.first == self.size:
            self.cut_oldest()
        event.events, event.data.u64 = EPOLLIN | EPOLLRDHUP, self.next
        if epoll_ctl(self.fd, EPOLL_CTL_ADD, fd, &event) < 0:
            close(fd)
            return 0
        self.ring[self.next % self.size] = LingeringSlot(fd, left_bytes, now_ns() + self.linger_ns)
        self.next += 1
        self.count += 1
        self.total += 1
        return self.retire()

    cdef int on_events(self, uint32_t events) except -1:
        cdef epoll_event found[BATCH]
        cdef int at
        cdef LingeringSlot *slot
        for at in range(max(epoll_now(self.fd, found, BATCH), 0)):
            slot = &self.ring[found[at].data.u64 % self.size]
            # Level-triggered, and the set has only descriptors of the ring.
            if has_ended(slot.fd, &slot.left_bytes):
                self.cut += slot.left_bytes <= 0
                self.end(found[at].data.u64)
        return self.retire()

    cdef int expire(self, int64_t turn_ns) noexcept:
        """Close the connections whose time is up."""
        while self.next_ns <= turn_ns:
            self.cut_oldest()
        return 0

    cdef int cut_oldest(self) noexcept:
        self.end(self.first)
        self.cut += 1
        return self.retire()

    cdef int end(self, uint64_t number) noexcept:
        cdef epoll_event event
        cdef LingeringSlot *slot = &self.ring[number % self.size]
        if slot.fd >= 0:
            # A fork of this process may keep the connection in the set beyond its end here.
            epoll_ctl(self.fd, EPOLL_CTL_DEL, slot.fd, &event)
            close(slot.fd)
            slot.fd = -1
            self.count -= 1
        return 0

    cdef int retire(self) noexcept:
        """Advance past the oldest slots that have ended."""
        while self.first < self.next and self.ring[self.first % self.size].fd < 0:
            self.first += 1
        self.next_ns = self.ring[self.first % self.size].until_ns if self.first < self.next else NEVER_NS
        return 0

    cdef int close_all(self) noexcept:
        """Close all connections and the set."""
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1
        while self.first < self.next:
            if self.ring[self.first % self.size].fd >= 0:
                close(self.ring[self.first % self.size].fd)
                self.cut += 1
            self.first += 1
        self.count, self.next_ns = 0, NEVER_NS
        return 0

    cdef int forget(self) except -1:
        """Leave the poller and close all: for lack of descriptors, or in a forked child."""
        if self.fd >= 0:
            self.poller.remove(self)
        return self.close_all()

    @property
    def most(self):
        """The bound on lingering connections. It can be set before the first; ValueError after, and for 0."""
        return self.size

    @most.setter
    def most(self, size_t most):
        """Set the bound. ValueError for 0, and after the first lingering connection."""
        if self.ring is not NULL or not most:
            raise ValueError(f"most = {most}: allowed is 1 or more, before the first connection lingers")
        self.size = most


cdef bint has_ended(int fd, Py_ssize_t *left_bytes) noexcept:
    """Discard the received bytes. Return whether the client has ended its side, or has sent more than it may."""
    cdef Py_ssize_t got
    cdef int piece
    for piece in range(PIECES):
        got = receive_with(fd, sink, PIECE_BYTES, MSG_TRUNC)
        if got <= 0:
            return got != -EAGAIN
        left_bytes[0] -= got
        if left_bytes[0] <= 0:
            return True
        if got < PIECE_BYTES:
            break
    return False
