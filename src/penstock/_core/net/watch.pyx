"""Watches: asyncio's `add_reader` and `add_writer`, level-triggered as asyncio's contract has them; waits of `sock_*`.

A watch in which only waiters of one socket stand is edge-triggered and stays registered while nothing waits: the next
call on that socket costs no system call of the poller's. A waiter makes its system call before it waits, so an edge
without a waiter tells nothing new. The registration counts for one Python socket object: one that was closed, and whose
number has come again, is registered anew.

Ownership: a watch owns its two handles or waiters; the poller's table owns the watch. A waiter refers to its watch
while it waits.
"""

from cpython.weakref cimport PyWeakref_NewRef

from libc.limits cimport INT_MAX
from libc.stdint cimport uint32_t

from penstock._core._sys.epoll cimport EPOLL_CTL_MOD, EPOLLET, EPOLLIN, EPOLLOUT
from penstock._core._sys.pysocket cimport fields_of
from penstock._core.events.handle cimport Handle, Runnable
from penstock._core.events.poller cimport Source
from penstock._core.events.ready cimport push
from penstock._core.net.io_context cimport IOContext


cdef enum:
    # A socket with more events in a row that nothing waits for is used otherwise by now: by a thread, say.
    MOST_IDLE_EVENTS = 8


cdef class WaitingCall(Runnable):
    """The base of calls that wait."""


cdef class Watch(Source):
    """A descriptor with a reader, a writer or both; with neither, one whose socket may be waited for again."""

    cdef int on_events(self, uint32_t events) except -1:
        # An error or a hang-up wakes both sides, whichever was asked for.
        if self.reader is not None and events & ~<uint32_t>EPOLLOUT:
            queue_once(self.io, self.reader)
        if self.writer is not None and events & ~<uint32_t>EPOLLIN:
            queue_once(self.io, self.writer)
        return self.drop_idle(events) if self.kept_for is not None and self.writer is None else 0

    cdef int drop_idle(self, uint32_t events) except -1:
        """Give up what nothing waits for: room to write, and all of a socket that is gone."""
        cdef uint32_t interest = self.io.poller.slots[self.fd].interest & ~<uint32_t>EPOLLOUT
        if self.reader is None:
            self.idle_events += 1
            sock = self.kept_for()
            if sock is None or fields_of(sock).fd != self.fd or self.idle_events >= MOST_IDLE_EVENTS:
                return self.io.poller.remove(self)
        if events == EPOLLOUT:
            if self.io.poller.control(EPOLL_CTL_MOD, self.fd, interest, self.io.poller.slots[self.fd].serial) == 0:
                self.io.poller.slots[self.fd].interest = interest
        return 0

    cdef bint is_kept_for(self, object sock) except -1:
        """Return whether the kernel's registration is still that of this socket object."""
        return self.kept_for is not None and self.kept_for() is sock


cdef inline int queue_once(IOContext io, Runnable entry) except -1:
    """A poll may see again what it saw before the callback has run, which would then find nothing to read."""
    cdef flag *is_queued = &(<Handle>entry).is_queued if isinstance(entry, Handle) else &(<WaitingCall>entry).is_queued
    if is_queued[0]:
        return 0
    push(io.ready, entry)
    is_queued[0] = True
    return 0


cdef Watch watch_at(IOContext io, int fd):
    """The watch at a descriptor, or None."""
    source = io.poller.at(fd)
    return <Watch>source if isinstance(source, Watch) else None


cdef bint is_idle(object source):
    """Return whether a source is a watch that is only kept registered."""
    return isinstance(source, Watch) and (<Watch>source).reader is None and (<Watch>source).writer is None


cdef Watch new_watch(IOContext io, int fd):
    cdef Watch watch = Watch.__new__(Watch)
    watch.io, watch.fd = io, fd
    return watch


cdef uint32_t interest_of(Watch watch):
    cdef uint32_t sides = (EPOLLIN if watch.reader is not None else 0) | (EPOLLOUT if watch.writer is not None else 0)
    return sides | EPOLLET if takes_edges(watch.reader) and takes_edges(watch.writer) else sides


cdef inline bint takes_edges(Runnable entry):
    return entry is None or (isinstance(entry, WaitingCall) and (<WaitingCall>entry).takes_edges)


cdef inline int cancel(Runnable entry) except -1:
    """Cancel a handle that was replaced. A waiter only waits on, as on asyncio's loop."""
    if isinstance(entry, Handle):
        (<Handle>entry).cancel()
    return 0


cdef int update(IOContext io, int fd, Watch known, Runnable reader, Runnable writer) except -1:
    """Set the two handles in the table. Change nothing if the kernel refuses."""
    cdef Watch watch = known if known is not None else new_watch(io, fd)
    former_reader, former_writer = watch.reader, watch.writer
    watch.reader, watch.writer = reader, writer
    try:
        if known is None:
            io.poller.add(watch, interest_of(watch))
        elif reader is None and writer is None:
            io.poller.remove(watch)
        elif watch.kept_for is None:
            io.poller.change(watch, interest_of(watch))
        else:
            io.poller.renew(watch, interest_of(watch))
    except OSError:
        watch.reader, watch.writer = former_reader, former_writer
        raise
    watch.kept_for = None
    if former_reader is not reader:
        cancel(former_reader)
    if former_writer is not writer:
        cancel(former_writer)
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


cdef int enter(IOContext io, WaitingCall waiter, int fd, bint writes) except -1:
    """Have a waiter run at the next event of its side. It replaces the handle or waiter that was there."""
    cdef Watch watch = watch_at(io, fd)
    cdef bint is_kept = watch is not None and watch.is_kept_for(waiter.sock)
    cdef Watch used = watch if watch is not None else new_watch(io, fd)
    former_reader, former_writer = used.reader, used.writer
    used.idle_events = 0
    if writes:
        used.writer = waiter
    else:
        used.reader = waiter
    try:
        if not is_kept:
            drop_strangers(used, waiter)
        register(io, used, is_kept, watch is None)
        if used.kept_for is None and io.poller.slots[fd].interest & EPOLLET:
            used.kept_for, used.file = PyWeakref_NewRef(waiter.sock, None), None
    except BaseException:
        used.reader, used.writer = former_reader, former_writer
        if watch is None:
            io.poller.remove(used)
        raise
    waiter.watch = used
    cancel(former_writer if writes else former_reader)
    return 0


cdef int drop_strangers(Watch watch, WaitingCall waiter) except -1:
    """Forget the waiter of another socket, if that one no longer has the descriptor."""
    watch.kept_for = None
    if isinstance(watch.reader, WaitingCall) and fields_of((<WaitingCall>watch.reader).sock).fd != watch.fd:
        watch.reader = None
    if isinstance(watch.writer, WaitingCall) and fields_of((<WaitingCall>watch.writer).sock).fd != watch.fd:
        watch.writer = None
    return 0


cdef int register(IOContext io, Watch watch, bint is_kept, bint is_new) except -1:
    """Have the kernel report what is waited for. A kept registration that covers it costs no system call."""
    cdef uint32_t wanted = interest_of(watch)
    if is_new:
        return io.poller.add(watch, wanted)
    if not is_kept:
        return io.poller.renew(watch, wanted)
    cdef uint32_t interest = io.poller.slots[watch.fd].interest
    if wanted & EPOLLET:
        wanted |= interest & (EPOLLIN | EPOLLOUT)
    else:
        watch.kept_for = None
    return 0 if wanted == interest else io.poller.change(watch, wanted)


cdef int leave(WaitingCall waiter) except -1:
    """End a wait. What is left of the watch stays registered if it is kept, and takes no event else."""
    cdef Watch watch = waiter.watch
    if watch is None:
        return 0
    waiter.watch = None
    if watch.reader is waiter:
        watch.reader = None
    elif watch.writer is waiter:
        watch.writer = None
    else:
        return 0
    if watch.kept_for is not None or watch.io.poller.at(watch.fd) is not watch:
        return 0
    if watch.reader is None and watch.writer is None:
        return watch.io.poller.remove(watch)
    try:
        watch.io.poller.change(watch, interest_of(watch))
    except OSError:
        # closed meanwhile: there are no more events
        watch.io.poller.remove(watch)
    return 0
