"""Parked connections: accepted while the loop is behind, descriptors alone, until they are let in, from either end.

One whose client gives up meanwhile is closed here: no protocol and no transport is ever made for it. All are looked at
together, every so often; each once more before it is let in. One that came to a full line and had sent nothing is
turned away when it has; one whose request is urgent is let in as soon as that is seen. Knows no listener but as a `Parker`.

Ownership: a descriptor is the list's from `add` on, until it is closed or given to its parker's `let_in`; the list owns
one reference to the parker of each. Only code that holds the GIL touches it.
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
from penstock._core.overload.lingering cimport Lingering
from penstock._core.overload.shed_unread cimport ANSWERED, GONE, SILENT, next_of, turn_away
from penstock._core.overload.urgent cimport ORDINARY, PASSES, UNTOLD

# Half of the descriptors that the process may have: what is let in needs some too.
MOST_AT_ONCE = 4096
# Looked at so often, or rarely enough that it takes no more than this part of the time.
cdef int64_t LOOK_EVERY_NS = 10_000_000
cdef enum:
    RARELY = 64
# A client that shuts its side down right behind its request waits for the answer; so long after, it has given up.
cdef int64_t LEFT_AFTER_NS = 10_000_000


cdef class Parker(Source):
    """Whose connections are parked."""

    cdef int let_in(self, int fd, Peer *peer, int64_t since_ns, bint has_data) except -1:
        """Takes the descriptor over, which was accepted at `since_ns`; whether there is something to read."""
        raise NotImplementedError

    cdef int some_left(self) except -1:
        """Fewer of its connections are parked than were, and nothing was made of them."""
        raise NotImplementedError


cdef int answer(Lingering lingering, int fd, Parker owner) noexcept:
    """As `turn_away`, with its server's answer; the next one is told another."""
    cdef int found = turn_away(fd, owner.reply, lingering)
    if found == ANSWERED:
        owner.reply = next_of(owner.replies)
    return found


cdef class Parked:
    """The parked connections of one loop."""

    def __cinit__(self):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.bound = MOST_AT_ONCE if most == resource.RLIM_INFINITY else min(MOST_AT_ONCE, most // 2)

    def __dealloc__(self):
        self.give_up(None)
        PyMem_Free(self.polled)
        PyMem_Free(self.spots)

    cdef int add(self, Parker owner, int fd, Peer *peer, int64_t since_ns, bint is_silent, bint is_untold) except -1:
        """Parks a descriptor that has just been accepted. If there is no memory for it, it is closed.

        `is_silent`: it would be turned away, had it sent anything. `is_untold`: what it asks may be urgent.
        """
        cdef size_t at
        try:
            self.make_room()
        except MemoryError:
            close(fd)
            raise
        Py_INCREF(owner)
        owner.parked += 1
        at = self.first + self.count
        self.polled[at].fd = fd
        self.polled[at].events = POLLRDHUP | POLLIN if is_silent or is_untold else POLLRDHUP
        self.spots[at].owner, self.spots[at].peer, self.spots[at].since_ns = <PyObject *>owner, peer[0], since_ns
        self.spots[at].is_shut, self.spots[at].is_silent = False, is_silent
        self.spots[at].is_untold, self.spots[at].is_urgent = is_untold, False
        if not self.count:
            self.look_at_ns = since_ns + LOOK_EVERY_NS
        self.count += 1
        self.total += 1
        self.most = max(self.most, self.count)
        return 0

    cdef bint has_room(self) noexcept:
        return self.count < self.bound

    cdef int64_t newest_since(self) noexcept:
        """When the newest was accepted; 0: there is none."""
        return self.spots[self.first + self.count - 1].since_ns if self.count else 0

    cdef int64_t oldest_since(self) noexcept:
        """When the oldest was accepted; 0: there is none."""
        return self.spots[self.first].since_ns if self.count else 0

    cdef int let_in(self, bint is_newest, bint drops_left) except -1:
        """1 when the newest or oldest, which there must be, has become a connection; 0 when its client had left."""
        return self.let_in_at(self.first + self.count - 1 if is_newest else self.first, drops_left)

    cdef int let_urgent_in(self, bint drops_left) except -1:
        """Lets in what is urgent. How many there are is bounded, by what tells that they are."""
        cdef size_t at
        while self.has_urgent:
            self.has_urgent = False
            for at in range(self.first, self.first + self.count):
                if self.spots[at].is_urgent:
                    self.has_urgent = True
                    self.let_in_at(at, drops_left)
                    break
        return 0

    cdef int let_in_at(self, size_t at, bint drops_left) except -1:
        """As `let_in`, of the one at that place."""
        cdef pollfd one
        cdef Spot spot = self.spots[at]
        cdef Parker owner = <Parker>spot.owner
        one.fd, one.events, one.revents = self.polled[at].fd, POLLIN | POLLRDHUP, 0
        poll(&one, 1, 0)
        self.take_out(at)
        Py_DECREF(owner)
        owner.parked -= 1
        if self.is_left(&spot, one.revents, 0, drops_left):
            close(one.fd)
            self.left += 1
            owner.some_left()
            return 0
        owner.let_in(one.fd, &spot.peer, spot.since_ns, one.revents & POLLIN)
        return 1

    cdef int take_out(self, size_t at) noexcept:
        """Closes the gap of one that leaves."""
        cdef size_t behind
        self.count -= 1
        if at == self.first:
            self.first += 1
            return 0
        for behind in range(at, self.first + self.count):
            self.move(behind + 1, behind)
        return 0

    cdef int turn_oldest_away(self) except -1:
        """1 when the oldest, which there must be, was told and closed; 0: it has sent nothing, or cannot be told.

        1 as well when it is let in, since what it asks is urgent.
        """
        if self.spots[self.first].is_untold and self.is_passing(self.first):
            self.let_in_at(self.first, False)
            return 1
        cdef Parker owner = <Parker>self.spots[self.first].owner
        cdef int state = answer(self.lingering, self.polled[self.first].fd, owner)
        if state == SILENT:
            return 0
        self.first += 1
        self.count -= 1
        self.turned_away += state == ANSWERED
        self.left += state == GONE
        Py_DECREF(owner)
        owner.parked -= 1
        owner.some_left()
        return 1

    cdef int look(self, int64_t turn_ns, bint drops_left, bint is_full) except -1:
        """Closes those whose clients have left and, if the line is full, turns away, when it is time to. Lets in what is
        urgent."""
        cdef int64_t began_ns
        if self.count and turn_ns >= self.look_at_ns:
            began_ns = now_ns()
            self.close_left(0, drops_left, is_full)
            self.look_at_ns = began_ns + max(LOOK_EVERY_NS, RARELY * (now_ns() - began_ns))
        # in each turn: what another look has found must not be turned away in this one
        return self.let_urgent_in(drops_left)

    cdef size_t close_left(self, int64_t shut_until_ns, bint drops_left, bint is_full=False) except? 0:
        """How many it closed. Those too that shut down early, if they are older than `shut_until_ns`."""
        cdef size_t at, kept = 0, answered = 0, count = self.count
        cdef int64_t began_ns = now_ns()
        cdef int state = poll(self.polled + self.first, count, 0)
        cdef Parker gone
        owners = set()
        if state <= 0:
            self.looked_ns = self.looked_ns if state else began_ns
            return 0
        for at in range(self.first, self.first + count):
            state = self.found(at, shut_until_ns, drops_left, is_full) if self.polled[at].revents else SILENT
            if state == SILENT:
                self.move(at, kept)
                kept += 1
                continue
            answered += state == ANSWERED
            gone = <Parker>self.spots[at].owner
            Py_DECREF(gone)
            gone.parked -= 1
            owners.add(gone)
        self.first, self.count, self.looked_ns = 0, kept, began_ns
        self.turned_away += answered
        self.left += count - kept - answered
        # last: they may call Python
        for gone in owners:
            gone.some_left()
        return count - kept

    cdef int found(self, size_t at, int64_t shut_until_ns, bint drops_left, bint is_full) noexcept:
        """What became of one that has something to tell: SILENT, it stays; otherwise it is closed."""
        cdef Spot *spot = &self.spots[at]
        if self.is_left(spot, self.polled[at].revents, shut_until_ns, drops_left):
            close(self.polled[at].fd)
            return GONE
        if not self.polled[at].revents & POLLIN or not (spot.is_silent or spot.is_untold):
            return SILENT
        if spot.is_untold and self.is_passing(at):
            self.has_urgent = spot.is_urgent = True
        if spot.is_untold or spot.is_urgent or not spot.is_silent:
            return SILENT
        if is_full and (<Parker>spot.owner).reply is not None:
            return answer(self.lingering, self.polled[at].fd, <Parker>spot.owner)
        # it has sent its request, and has a place in the line: also if there is no answer any more that turns it away
        spot.is_silent, self.polled[at].events = False, POLLRDHUP
        return SILENT

    cdef bint is_passing(self, size_t at) noexcept:
        """Whether what it asks is urgent; once that is told, it is not asked again."""
        cdef int kind = self.urgent.look(self.polled[at].fd) if self.urgent is not None else ORDINARY
        self.spots[at].is_untold = kind == UNTOLD
        if kind != UNTOLD and not self.spots[at].is_silent:
            self.polled[at].events = POLLRDHUP
        return kind == PASSES

    cdef bint is_left(self, Spot *spot, short events, int64_t shut_until_ns, bint drops_left) noexcept:
        """Whether nobody waits for the answer: reset, or shut down after it was seen to wait."""
        if events & POLLERR or not drops_left or not events & (POLLRDHUP | POLLHUP):
            return events & POLLERR != 0
        if not spot.is_shut and spot.since_ns + LEFT_AFTER_NS <= self.looked_ns:
            return True
        spot.is_shut = True
        return spot.since_ns < shut_until_ns

    cdef int move(self, size_t at, size_t to) noexcept:
        if at != to:
            self.polled[to], self.spots[to] = self.polled[at], self.spots[at]
        return 0

    cdef int give_up(self, Parker owner) except -1:
        """Closes all that are parked for one, None: for anyone; as the kernel does with its backlog."""
        cdef size_t at, kept = 0, count = self.count
        cdef Parker found
        # let go last: the list is whole again by then
        owners = []
        for at in range(self.first, self.first + count):
            if owner is None or self.spots[at].owner == <PyObject *>owner:
                close(self.polled[at].fd)
                self.given_up += 1
                found = <Parker>self.spots[at].owner
                Py_DECREF(found)
                found.parked -= 1
                owners.append(found)
            else:
                self.move(at, kept)
                kept += 1
        self.first, self.count = 0, kept
        return 0

    cdef int make_room(self) except -1:
        """At the end, for one more."""
        cdef size_t at
        if self.first + self.count < self.size:
            return 0
        if not self.first:
            return self.widen()
        for at in range(self.count):
            self.move(self.first + at, at)
        self.first = 0
        return 0

    cdef int widen(self) except -1:
        cdef size_t size = max(2 * self.size, 64)
        cdef pollfd *polled = <pollfd *>PyMem_Realloc(self.polled, size * sizeof(pollfd))
        if polled is NULL:
            raise MemoryError
        self.polled = polled
        cdef Spot *spots = <Spot *>PyMem_Realloc(self.spots, size * sizeof(Spot))
        if spots is NULL:
            raise MemoryError
        self.spots, self.size = spots, size
        return 0

    def __len__(self):
        return self.count

    def snapshot(self):
        """(descriptor, since when in nanoseconds) of each, newest first."""
        cdef size_t at
        return [
            (self.polled[self.first + at].fd, self.spots[self.first + at].since_ns) for at in reversed(range(self.count))
        ]


cdef int traverse(Parked self, visitproc visit, void *arg) noexcept:
    """For the garbage collector: a loop that is dropped unclosed is reachable from itself through here."""
    cdef size_t at
    if self.lingering is not None and visit(<PyObject *>self.lingering, arg):
        return 1
    for at in range(self.first, self.first + self.count):
        if visit(self.spots[at].owner, arg):
            return 1
    return 0


set_traverse(Parked, <void *>traverse)
