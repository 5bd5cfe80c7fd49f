"""The backlog of a loop that is behind: its deferred reads and deferred accepts, by age.

Admits the oldest or the newest, and sheds the expired. Knows no turn and no clock: the reactor says when, and the lag
how many and in which order.
"""

from libc.stdint cimport int64_t

from penstock._core._sys.epoll cimport EPOLLRDHUP
from penstock._core.net.io_context cimport IOContext
from penstock._core.net.listen cimport Listener
from penstock._core.net.stream cimport Stream
from penstock._core.overload.deferred_reads cimport DeferredReads, DeferredRead
from penstock._core.overload.lag cimport Lag


cdef size_t count(IOContext io) noexcept:
    return io.deferred_reads.count + io.deferred_accepts.count


cdef int64_t oldest_since(IOContext io) noexcept:
    """Return the time since which the oldest entry has waited; 0 for an empty backlog."""
    if not count(io):
        return 0
    return io.deferred_accepts.oldest_since() if is_accept_oldest(io) else io.deferred_reads.oldest.since_ns


cdef bint is_accept_oldest(IOContext io) noexcept:
    """Return whether the oldest entry is a deferred accept. The backlog must not be empty."""
    cdef DeferredRead *reads = io.deferred_reads.oldest
    return reads is NULL or (io.deferred_accepts.count and io.deferred_accepts.oldest_since() < reads.since_ns)


cdef bint is_accept_newest(IOContext io) noexcept:
    cdef DeferredRead *reads = io.deferred_reads.newest
    return reads is NULL or reads.since_ns < io.deferred_accepts.newest_since()


cdef int expire(IOContext io, Lag lag) except -1:
    """Shed the expired entries whose protocol has an answer for that."""
    cdef Stream stream
    while lag.is_expired(oldest_since(io)):
        if is_accept_oldest(io):
            if not io.deferred_accepts.shed_oldest():
                break
        else:
            stream = <Stream>io.deferred_reads.oldest.source
            if stream.is_urgent():
                stream.read_deferred()
            elif not stream.shed():
                break
    return 0


cdef size_t admit(IOContext io, Lag lag, size_t most) except? 0:
    """Admit `most` entries: the oldest or, if even the oldest are stale, the newest. Return the number that was lacking."""
    cdef DeferredReads reads = io.deferred_reads
    cdef Stream stream
    cdef bint is_newest
    while most and count(io):
        is_newest = lag is None or lag.is_stale(oldest_since(io))
        if is_accept_newest(io) if is_newest else is_accept_oldest(io):
            most -= io.deferred_accepts.admit(is_newest, io.closes_abandoned)
        else:
            most -= 1
            stream = <Stream>(reads.newest if is_newest else reads.oldest).source
            stream.read_deferred()
    return most


cdef int accept_all(IOContext io) except -1:
    """Accept from each listener in the middle of a long turn: connections are deferred or shed."""
    cdef Listener listener
    # a copy: a listener whose server is full stops accepting
    for listener in list(io.listeners):
        if listener.reply is not None:
            listener.accept_some()
    return 0


cdef size_t close_abandoned(IOContext io, int64_t until_ns) except? 0:
    """Close the entries older than `until_ns` whose client has shut its side down. Return their number."""
    cdef DeferredRead *read = io.deferred_reads.oldest
    cdef Stream stream
    # collected first: the list changes as they leave
    found = []
    while io.closes_abandoned and read is not NULL and read.since_ns < until_ns:
        if (<Stream>read.source).unread & EPOLLRDHUP:
            found.append(<Stream>read.source)
        read = read.newer
    for stream in found:
        if stream.deferred_read is not NULL:
            stream.close_unread()
    return len(found) + io.deferred_accepts.close_abandoned(until_ns, io.closes_abandoned)
