"""The line of a loop that is behind: held reads and parked connections, by age. Who is let in, and who is told to go.

Knows no turn and no clock: the reactor says when, the lag how many and in which order.
"""

from libc.stdint cimport int64_t

from penstock._core._sys.epoll cimport EPOLLRDHUP
from penstock._core.net.io_context cimport Wiring
from penstock._core.net.listen cimport Listener
from penstock._core.net.stream cimport Stream
from penstock._core.overload.deferred_reads cimport Held, Place
from penstock._core.overload.lag cimport Lag


cdef size_t count(Wiring wiring) noexcept:
    return wiring.held.count + wiring.parked.count


cdef int64_t oldest_since(Wiring wiring) noexcept:
    """Since when the oldest has waited; 0: nobody does."""
    if not count(wiring):
        return 0
    return wiring.parked.oldest_since() if is_parked_oldest(wiring) else wiring.held.oldest.since_ns


cdef bint is_parked_oldest(Wiring wiring) noexcept:
    """Whether the oldest, which there must be, is parked; not held."""
    cdef Place *held = wiring.held.oldest
    return held is NULL or (wiring.parked.count and wiring.parked.oldest_since() < held.since_ns)


cdef bint is_parked_newest(Wiring wiring) noexcept:
    cdef Place *held = wiring.held.newest
    return held is NULL or held.since_ns < wiring.parked.newest_since()


cdef int expire(Wiring wiring, Lag lag) except -1:
    """Turns away those that have waited too long, as far as they can be told."""
    cdef Stream stream
    while lag.is_expired(oldest_since(wiring)):
        if is_parked_oldest(wiring):
            if not wiring.parked.turn_oldest_away():
                break
        else:
            stream = <Stream>wiring.held.oldest.source
            if stream.is_urgent():
                stream.read_late()
            elif not stream.turn_away():
                break
    return 0


cdef size_t let_in(Wiring wiring, Lag lag, size_t most) except? 0:
    """Lets the oldest in or, if even they come too late, the newest. How many it lacked, of `most`."""
    cdef Held held = wiring.held
    cdef Stream stream
    cdef bint is_newest
    while most and count(wiring):
        is_newest = lag is None or lag.is_stale(oldest_since(wiring))
        if is_parked_newest(wiring) if is_newest else is_parked_oldest(wiring):
            most -= wiring.parked.let_in(is_newest, wiring.drops_left)
        else:
            most -= 1
            stream = <Stream>(held.newest if is_newest else held.oldest).source
            stream.read_late()
    return most


cdef int tend(Wiring wiring) except -1:
    """In the middle of a turn that takes long: who has come is parked or, most of all, told."""
    cdef Listener door
    # a copy: one whose server is full stops accepting
    for door in list(wiring.doors):
        if door.reply is not None:
            door.accept_some()
    return 0


cdef size_t drop_left(Wiring wiring, int64_t until_ns) except? 0:
    """Closes what has waited since before then and whose client has shut its side down; how many."""
    cdef Place *place = wiring.held.oldest
    cdef Stream stream
    # collected first: the list changes as they leave
    found = []
    while wiring.drops_left and place is not NULL and place.since_ns < until_ns:
        if (<Stream>place.source).unread & EPOLLRDHUP:
            found.append(<Stream>place.source)
        place = place.newer
    for stream in found:
        if stream.place is not NULL:
            stream.leave_unread()
    return len(found) + wiring.parked.close_left(until_ns, wiring.drops_left)
