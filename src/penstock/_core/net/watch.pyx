"""Watches: asyncio's `add_reader` and `add_writer`, level-triggered as asyncio's contract has them.

Ownership: a watch owns its two handles; the poller's table owns the watch.
"""

from libc.limits cimport INT_MAX
from libc.stdint cimport uint32_t

from penstock._core._sys.epoll cimport EPOLLIN, EPOLLOUT
from penstock._core.events.handle cimport Handle
from penstock._core.events.poller cimport Source
from penstock._core.events.ready cimport push
from penstock._core.net.io_context cimport IOContext


cdef class Watch(Source):
    """A descriptor with a reader handle, a writer handle or both."""

    cdef int on_events(self, uint32_t events) except -1:
        # An error or a hang-up wakes both sides, whichever was asked for.
        if self.reader is not None and events & ~<uint32_t>EPOLLOUT:
            queue_once(self.io, self.reader)
        if self.writer is not None and events & ~<uint32_t>EPOLLIN:
            queue_once(self.io, self.writer)
        return 0


cdef inline int queue_once(IOContext io, Handle handle) except -1:
    """A poll may see again what it saw before the callback has run, which would then find nothing to read."""
    if handle.is_queued:
        return 0
    push(io.ready, handle)
    handle.is_queued = True
    return 0


cdef Watch watch_at(IOContext io, int fd):
    """The watch at a descriptor, or None."""
    source = io.poller.at(fd)
    return <Watch>source if isinstance(source, Watch) else None


cdef Watch new_watch(IOContext io, int fd):
    cdef Watch watch = Watch.__new__(Watch)
    watch.io, watch.fd = io, fd
    return watch


cdef uint32_t interest_of(Watch watch):
    return (EPOLLIN if watch.reader is not None else 0) | (EPOLLOUT if watch.writer is not None else 0)


cdef int update(IOContext io, int fd, Watch known, Handle reader, Handle writer) except -1:
    """Set the two handles in the table. Change nothing if the kernel refuses."""
    cdef Watch watch = known if known is not None else new_watch(io, fd)
    former_reader, former_writer = watch.reader, watch.writer
    watch.reader, watch.writer = reader, writer
    try:
        if known is None:
            io.poller.add(watch, interest_of(watch))
        elif reader is None and writer is None:
            io.poller.remove(watch)
        else:
            io.poller.change(watch, interest_of(watch))
    except OSError:
        watch.reader, watch.writer = former_reader, former_writer
        raise
    if former_reader is not None and former_reader is not reader:
        former_reader.cancel()
    if former_writer is not None and former_writer is not writer:
        former_writer.cancel()
    return 0


cdef int set_reader(IOContext io, object fd, Handle handle) except -1:
    """Set the reader, or remove it with None. Cancel the former handle. Return 1 if there was one."""
    if handle is None and fd > INT_MAX:
        return 0
    cdef Watch known = watch_at(io, fd)
    if handle is None and (known is None or known.reader is None):
        return 0
    cdef bint replaced = known is not None and known.reader is not None
    update(io, fd, known, handle, None if known is None else known.writer)
    return replaced


cdef int set_writer(IOContext io, object fd, Handle handle) except -1:
    """Set the writer, or remove it with None. Cancel the former handle. Return 1 if there was one."""
    if handle is None and fd > INT_MAX:
        return 0
    cdef Watch known = watch_at(io, fd)
    if handle is None and (known is None or known.writer is None):
        return 0
    cdef bint replaced = known is not None and known.writer is not None
    update(io, fd, known, None if known is None else known.reader, handle)
    return replaced


cdef object fileno_of(object fd):
    """A descriptor from a number or an object with `fileno()`; ValueError as the `selectors` module's."""
    if isinstance(fd, int):
        number = fd
    else:
        try:
            number = int(fd.fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {fd!r}") from None
    if number < 0:
        raise ValueError(f"Invalid file descriptor: {number}")
    return number


cdef int keep_file(IOContext io, object number, object file) except -1:
    """Note the object whose `number` is watched, unless it is that number itself."""
    cdef Watch watch = None if number is file else watch_at(io, number)
    # cancelling the former handle may have run code that took the watch away
    if watch is not None:
        watch.file = file
    return 0


cdef object watched_fileno(IOContext io, object fd):
    """A descriptor to watch no more. That of a closed file is the one it was watched at, as in the `selectors` module."""
    try:
        return fileno_of(fd)
    except ValueError:
        for number, source in io.poller.sources().items():
            if fd is not None and isinstance(source, Watch) and (<Watch>source).file is fd:
                return number
        raise
