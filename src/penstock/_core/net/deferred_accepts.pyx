"""Deferred accepts: connections that were accepted while the loop is behind, descriptors alone, until they are admitted.

A connection whose client leaves meanwhile is closed here: no protocol and no transport is ever made for it. All are
polled together from time to time, and each once more before it is admitted. A connection that came to a full backlog
without data is shed when data has come. An urgent request is admitted as soon as it is known. Knows a listener as
`AcceptingSource`.

Ownership: the list owns a descriptor from `add` until it is closed or given to its source's `admit`, and one
reference to the source of each. Only code that holds the GIL touches it.
"""

import resource

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t
from posix.unistd cimport close

from penstock._core._sys.poll cimport POLLERR, POLLHUP, POLLIN, POLLRDHUP, poll, pollfd
from penstock._core._sys.python cimport set_traverse, visitproc
from penstock._core.events.clock cimport now_ns
from penstock._core.events.poller cimport Source
from penstock._core.net.address cimport Peer
from penstock._core.overload.lingering cimport LingeringConnections
from penstock._core.overload.shed_unread cimport ANSWERED, GONE, SILENT, next_of, shed as shed_descriptor
from penstock._core.overload.urgent cimport ORDINARY, URGENT, UNDECIDED

# Half of the descriptors that the process may have: what is let in needs some too.
MOST_AT_ONCE = 4096
# The interval of polls, or so much longer that they take no more than this part of the time.
cdef int64_t CHECK_EVERY_NS = 10_000_000
cdef enum:
    RARELY = 64
# A client that shuts its side down right behind its request waits for the answer; so long after, it has given up.
cdef int64_t ABANDONED_AFTER_NS = 10_000_000


cdef class AcceptingSource(Source):
    """A listener, as the deferred accepts know it."""

    cdef int admit(self, int fd, Peer *peer, int64_t since_ns, bint has_data) except -1:
        """Take over a descriptor that was accepted at `since_ns`. `has_data`: there is something to read."""
        raise NotImplementedError

    cdef int deferred_changed(self) except -1:
        """Hear that the number of its deferred accepts has changed."""
        raise NotImplementedError


cdef int shed_accept(LingeringConnections lingering, int fd, AcceptingSource owner) noexcept:
    """Shed a descriptor with its server's answer, and choose the next answer."""
    cdef int found = shed_descriptor(fd, owner.reply, lingering)
    if found == ANSWERED:
        owner.reply = next_of(owner.replies)
    return found


cdef class DeferredAccepts:
    """The deferred accepts of one loop."""

    def __cinit__(self):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.capacity = MOST_AT_ONCE if most == resource.RLIM_INFINITY else min(MOST_AT_ONCE, most // 2)

    def __dealloc__(self):
        self.close_of(None)
        PyMem_Free(self.polled)
        PyMem_Free(self.entries)

    cdef int add(self, AcceptingSource owner, int fd, Peer *peer, int64_t since_ns, bint is_silent, bint is_undecided) except -1:
        """Defer a descriptor that has just been accepted. Without memory it is closed, and MemoryError raised.

        `is_silent`: it is to be shed when data has come. `is_undecided`: its request may be urgent.
        """
        cdef size_t at
        try:
            self.reserve()
        except MemoryError:
            close(fd)
            raise
        Py_INCREF(owner)
        owner.deferred += 1
        at = self.first + self.count
        self.polled[at].fd = fd
        self.polled[at].events = POLLRDHUP | POLLIN if is_silent or is_undecided else POLLRDHUP
        self.entries[at].owner, self.entries[at].peer, self.entries[at].since_ns = <PyObject *>owner, peer[0], since_ns
        self.entries[at].is_shut, self.entries[at].is_silent = False, is_silent
        self.entries[at].is_undecided, self.entries[at].is_urgent = is_undecided, False
        if not self.count:
            self.check_at_ns = since_ns + CHECK_EVERY_NS
        self.count += 1
        self.total += 1
        self.most = max(self.most, self.count)
        return 0

    cdef bint has_room(self) noexcept:
        return self.count < self.capacity

    cdef int64_t newest_since(self) noexcept:
        """Return the time at which the newest was accepted; 0: there is none."""
        return self.entries[self.first + self.count - 1].since_ns if self.count else 0

    cdef int64_t oldest_since(self) noexcept:
        """Return the time at which the oldest was accepted; 0: there is none."""
        return self.entries[self.first].since_ns if self.count else 0

    cdef int admit(self, bint is_newest, bint closes_abandoned) except -1:
        """Admit the newest or oldest; there must be one. Return 1, or 0 when its client had left."""
        return self.admit_at(self.first + self.count - 1 if is_newest else self.first, closes_abandoned)

    cdef int admit_urgent(self, bint closes_abandoned) except -1:
        """Admit the urgent ones; `UrgentRequests` bounds their number."""
        cdef size_t at
        while self.has_urgent:
            self.has_urgent = False
            for at in range(self.first, self.first + self.count):
                if self.entries[at].is_urgent:
                    self.has_urgent = True
                    self.admit_at(at, closes_abandoned)
                    break
        return 0

    cdef int admit_at(self, size_t at, bint closes_abandoned) except -1:
        """Admit the one at an index. Return 1, or 0 when its client had left."""
        cdef pollfd one
        cdef DeferredAccept entry = self.entries[at]
        cdef AcceptingSource owner = <AcceptingSource>entry.owner
        one.fd, one.events, one.revents = self.polled[at].fd, POLLIN | POLLRDHUP, 0
        poll(&one, 1, 0)
        self.remove_at(at)
        Py_DECREF(owner)
        owner.deferred -= 1
        if self.is_abandoned(&entry, one.revents, 0, closes_abandoned):
            close(one.fd)
            self.abandoned += 1
            owner.deferred_changed()
            return 0
        owner.admit(one.fd, &entry.peer, entry.since_ns, one.revents & POLLIN)
        return 1

    cdef int remove_at(self, size_t at) noexcept:
        """Remove the one at an index, and close the gap."""
        cdef size_t behind
        self.count -= 1
        if at == self.first:
            self.first += 1
            return 0
        for behind in range(at, self.first + self.count):
            self.move(behind + 1, behind)
        return 0

    cdef int shed_oldest(self) except -1:
        """Shed the oldest; there must be one. Return 1, or 0 if it has sent nothing or no answer is known.

        An urgent one is admitted instead, and 1 is returned.
        """
        if self.entries[self.first].is_undecided and self.check_urgent(self.first):
            self.admit_at(self.first, False)
            return 1
        cdef AcceptingSource owner = <AcceptingSource>self.entries[self.first].owner
        cdef int state = shed_accept(self.lingering, self.polled[self.first].fd, owner)
        if state == SILENT:
            return 0
        self.first += 1
        self.count -= 1
        self.shed += state == ANSWERED
        self.abandoned += state == GONE
        Py_DECREF(owner)
        owner.deferred -= 1
        owner.deferred_changed()
        return 1

    cdef int check(self, int64_t turn_ns, bint closes_abandoned, bint is_full) except -1:
        """Close abandoned ones and, if the backlog is full, shed silent ones, when a poll is due. Admit urgent ones."""
        cdef int64_t began_ns
        if self.count and turn_ns >= self.check_at_ns:
            began_ns = now_ns()
            self.close_abandoned(0, closes_abandoned, is_full)
            self.check_at_ns = began_ns + max(CHECK_EVERY_NS, RARELY * (now_ns() - began_ns))
        # in each turn: an urgent one that a poll has found must not be shed in this turn
        return self.admit_urgent(closes_abandoned)

    cdef size_t close_abandoned(self, int64_t shut_until_ns, bint closes_abandoned, bint is_full=False) except? 0:
        """Close abandoned ones, early shutdowns too if older than `shut_until_ns`. Return the number of closed ones."""
        cdef size_t at, kept = 0, answered = 0, count = self.count
        cdef int64_t began_ns = now_ns()
        cdef int state = poll(self.polled + self.first, count, 0)
        cdef AcceptingSource gone
        owners = set()
        if state <= 0:
            self.checked_ns = self.checked_ns if state else began_ns
            return 0
        for at in range(self.first, self.first + count):
            state = self.check_entry(at, shut_until_ns, closes_abandoned, is_full) if self.polled[at].revents else SILENT
            if state == SILENT:
                self.move(at, kept)
                kept += 1
                continue
            answered += state == ANSWERED
            gone = <AcceptingSource>self.entries[at].owner
            Py_DECREF(gone)
            gone.deferred -= 1
            owners.add(gone)
        self.first, self.count, self.checked_ns = 0, kept, began_ns
        self.shed += answered
        self.abandoned += count - kept - answered
        # last: they may call Python
        for gone in owners:
            gone.deferred_changed()
        return count - kept

    cdef int check_entry(self, size_t at, int64_t shut_until_ns, bint closes_abandoned, bint is_full) noexcept:
        """Handle the events of one. Return SILENT if it stays; otherwise it is closed."""
        cdef DeferredAccept *entry = &self.entries[at]
        if self.is_abandoned(entry, self.polled[at].revents, shut_until_ns, closes_abandoned):
            close(self.polled[at].fd)
            return GONE
        if not self.polled[at].revents & POLLIN or not (entry.is_silent or entry.is_undecided):
            return SILENT
        if entry.is_undecided and self.check_urgent(at):
            self.has_urgent = entry.is_urgent = True
        if entry.is_undecided or entry.is_urgent or not entry.is_silent:
            return SILENT
        if is_full and (<AcceptingSource>entry.owner).reply is not None:
            return shed_accept(self.lingering, self.polled[at].fd, <AcceptingSource>entry.owner)
        # its request has come and the backlog has room, or no answer is known any more: it waits as any other
        entry.is_silent, self.polled[at].events = False, POLLRDHUP
        return SILENT

    cdef bint check_urgent(self, size_t at) noexcept:
        """Return whether the request is urgent. Once that is decided it is not checked again."""
        cdef int kind = self.urgent.peek(self.polled[at].fd) if self.urgent is not None else ORDINARY
        self.entries[at].is_undecided = kind == UNDECIDED
        if kind != UNDECIDED and not self.entries[at].is_silent:
            self.polled[at].events = POLLRDHUP
        return kind == URGENT

    cdef bint is_abandoned(self, DeferredAccept *entry, short events, int64_t shut_until_ns, bint closes_abandoned) noexcept:
        """Return whether the client has left: it has reset the connection, or shut down after a poll saw it waiting."""
        if events & POLLERR or not closes_abandoned or not events & (POLLRDHUP | POLLHUP):
            return events & POLLERR != 0
        if not entry.is_shut and entry.since_ns + ABANDONED_AFTER_NS <= self.checked_ns:
            return True
        entry.is_shut = True
        return entry.since_ns < shut_until_ns

    cdef int move(self, size_t at, size_t to) noexcept:
        if at != to:
            self.polled[to], self.entries[to] = self.polled[at], self.entries[at]
        return 0

    cdef int close_of(self, AcceptingSource owner) except -1:
        """Close the deferred accepts of one source, None: of all, as the kernel does with its backlog."""
        cdef size_t at, kept = 0, count = self.count
        cdef AcceptingSource found
        # released last: the list is whole again by then
        owners = []
        for at in range(self.first, self.first + count):
            if owner is None or self.entries[at].owner == <PyObject *>owner:
                close(self.polled[at].fd)
                self.closed += 1
                found = <AcceptingSource>self.entries[at].owner
                Py_DECREF(found)
                found.deferred -= 1
                owners.append(found)
            else:
                self.move(at, kept)
                kept += 1
        self.first, self.count = 0, kept
        return 0

    cdef int reserve(self) except -1:
        """Reserve room at the end for one more."""
        cdef size_t at
        if self.first + self.count < self.size:
            return 0
        if not self.first:
            return self.grow()
        for at in range(self.count):
            self.move(self.first + at, at)
        self.first = 0
        return 0

    cdef int grow(self) except -1:
        cdef size_t size = max(2 * self.size, 64)
        cdef pollfd *polled = <pollfd *>PyMem_Realloc(self.polled, size * sizeof(pollfd))
        if polled is NULL:
            raise MemoryError
        self.polled = polled
        cdef DeferredAccept *entries = <DeferredAccept *>PyMem_Realloc(self.entries, size * sizeof(DeferredAccept))
        if entries is NULL:
            raise MemoryError
        self.entries, self.size = entries, size
        return 0

    def __len__(self):
        return self.count

    def snapshot(self):
        """Return (descriptor, time in nanoseconds since which it is deferred) of each, newest first."""
        cdef size_t at
        return [
            (self.polled[self.first + at].fd, self.entries[self.first + at].since_ns) for at in reversed(range(self.count))
        ]


cdef int traverse(DeferredAccepts self, visitproc visit, void *arg) noexcept:
    """For the garbage collector: a loop that is dropped unclosed is reachable from itself through here."""
    cdef size_t at
    if self.lingering is not None and visit(<PyObject *>self.lingering, arg):
        return 1
    for at in range(self.first, self.first + self.count):
        if visit(self.entries[at].owner, arg):
            return 1
    return 0


set_traverse(DeferredAccepts, <void *>traverse)
