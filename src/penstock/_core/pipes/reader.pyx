"""The reading end of a pipe, edge-triggered.

A FIFO's read that is shorter than asked for has emptied it, and the next write is an edge of its own. All else is read
on in the next turn, as asyncio does: after a full read, a hang-up, and on sockets, whose reads end at messages. Such a
read asks first: a process that shares the FIFO may have made it blocking, or have read it empty.

Ownership: as `PipeTransport`.
"""

import asyncio
from asyncio.log import logger
from os import strerror

cimport cython
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, EIO
from libc.stdint cimport uint32_t

from penstock._core._sys.epoll cimport EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN
from penstock._core._sys.pipe cimport FIFO, can_read_now, read_pipe
from penstock._core._sys.python cimport PyBytes_AS_STRING, adopt_methods
from penstock._core.net.buffers cimport ReadPool
from penstock._core.net.io_context cimport RECEIVE_BYTES, IOContext
from penstock._core.net.stream_feed cimport feed, has_asyncio_feed, reader_of
from penstock._core.pipes.transport cimport PipeTransport

cdef enum:
    # After a read of this size the next goes straight into an object of its size.
    DIRECT_FROM_BYTES = 16 * 1024


class ReadPipeTransport(asyncio.ReadTransport):
    """The type that `transport.__class__` names: a native object cannot be laid out over asyncio's slots."""


@cython.final
cdef class ReadPipe(PipeTransport):
    """The reading end of a pipe. `isinstance(transport, asyncio.ReadTransport)` holds."""

    def __init__(self, loop, IOContext io not None, pipe, protocol, waiter=None, extra=None):
        self.open(loop, io, pipe, protocol, extra)
        self.feeds = has_asyncio_feed(protocol)
        self.connect_protocol(waiter)

    cdef uint32_t interest(self) noexcept:
        return EPOLLIN | EPOLLET

    cdef int on_events(self, uint32_t events) except -1:
        self.is_certain = True
        return self.read_on(events)

    cdef int read_on(self, uint32_t events) except -1:
        """Read in the next turn, or once it is no longer paused."""
        if self.closing:
            return 0
        if self.paused:
            self.unread |= events
            return 0
        return self.enqueue(events)

    cdef int handle_events(self, uint32_t events) except -1:
        cdef Py_ssize_t got, asked = RECEIVE_BYTES
        cdef bint is_certain = self.is_certain
        self.is_certain = False
        if self.paused or self.closing:
            return self.read_on(events)
        if not is_certain and (self.is_closed_outside() or self.kind == FIFO and not can_read_now(self.fd)):
            return 0
        got = self.read_once(&asked)
        if got and (got == asked or self.kind != FIFO or events & (EPOLLHUP | EPOLLERR)):
            return self.read_on(events)
        return 0

    cdef bint is_closed_outside(self) except -1:
        """Return whether the program has closed the pipe itself: another file may have its descriptor by now."""
        try:
            return self.pipe.fileno() != self.fd
        except ValueError:
            return True

    cdef int failed(self, uint32_t events) except -1:
        try:
            return PipeTransport.failed(self, events)
        finally:
            # what the protocol has not seen yet is read all the same
            self.read_on(events)

    cdef Py_ssize_t read_once(self, Py_ssize_t *asked) except -1:
        """Read and deliver once. Return the number of bytes; 0 if nothing more can be read now."""
        if self.feeds:
            reader = reader_of(self.protocol)
            if reader is not None:
                return self.read_fed(reader)
        return self.read_direct(asked) if self.last_read_bytes >= DIRECT_FROM_BYTES else self.read_copied()

    cdef Py_ssize_t receive(self, void *first, Py_ssize_t first_bytes, Py_ssize_t second_bytes) except -1:
        """Read into a buffer, and what it has no room for into the reactor's. Return 0 for an empty or ended pipe."""
        cdef Py_ssize_t got = read_pipe(self.fd, self.kind, first, first_bytes, self.io.receive_buffer, second_bytes)
        if got > 0:
            self.last_read_bytes = got
            return got
        if got == 0:
            self.read_eof()
        elif got != -EAGAIN:
            exc = OSError(<int>-got, strerror(<int>-got))
            self.fatal_error(exc, "Fatal read error on pipe transport", exc.errno == EIO)
        return 0

    cdef Py_ssize_t read_copied(self) except -1:
        """Read into the reactor's buffer, and deliver a copy."""
        cdef Py_ssize_t room_bytes
        cdef Py_ssize_t got = self.receive(self.io.receive_buffer, RECEIVE_BYTES, 0)
        if got:
            data = self.io.reads.copied(self.io.receive_buffer, got, &room_bytes)
            self.protocol.data_received(data)
            self.io.reads.keep(<PyObject *>data, room_bytes)
        return got

    cdef Py_ssize_t read_direct(self, Py_ssize_t *asked) except -1:
        """Read into an object with room for as much as last time, and the rest into the reactor's buffer."""
        cdef ReadPool reads = self.io.reads
        cdef Py_ssize_t got, room_bytes
        data = reads.lend(min(self.last_read_bytes, <Py_ssize_t>RECEIVE_BYTES), &room_bytes)
        asked[0] = max(room_bytes, <Py_ssize_t>RECEIVE_BYTES)
        got = self.receive(PyBytes_AS_STRING(data), room_bytes, asked[0] - room_bytes)
        if got:
            data = reads.filled(data, self.io.receive_buffer, got, &room_bytes)
            self.protocol.data_received(data)
        reads.keep(<PyObject *>data, room_bytes)
        return got

    cdef Py_ssize_t read_fed(self, object reader) except -1:
        """Read for asyncio's StreamReader, and feed it."""
        cdef Py_ssize_t got = self.receive(self.io.receive_buffer, RECEIVE_BYTES, 0)
        if got:
            feed(reader, self.io.receive_buffer, got)
        return got

    cdef int read_eof(self) except -1:
        if self.loop.get_debug():
            logger.info("%r was closed by peer", self)
        self.closing = True
        self.stop_io()
        self.loop.call_soon(self.protocol.eof_received)
        return self.end(None)

    def set_protocol(self, protocol):
        """Switch to another protocol; the next event is its."""
        PipeTransport.set_protocol(self, protocol)
        self.feeds = has_asyncio_feed(protocol)

    def is_reading(self):
        """Return whether data would be delivered."""
        return not self.paused and not self.closing

    def pause_reading(self):
        """Deliver nothing more until `resume_reading`; no system call."""
        if self.paused or self.closing:
            return
        self.paused = True
        self.unread |= self.pending
        self.pending = 0
        if self.loop.get_debug():
            logger.debug("%r pauses reading", self)

    def resume_reading(self):
        """Deliver again, beginning with what came in meanwhile."""
        if self.closing or not self.paused:
            return
        self.paused = False
        self.is_certain = False
        if self.unread:
            self.enqueue(self.unread)
            self.unread = 0
        if self.loop.get_debug():
            logger.debug("%r resumes reading", self)

    def close(self):
        """Close; `connection_lost(None)` follows."""
        if not self.closing:
            self.end(None)

    def __repr__(self):
        info = self.describe()
        if self.pipe is not None and not self.loop.is_closed():
            is_polling = not self.paused and self.io.poller.at(self.fd) is self
            info.append("polling" if is_polling else "idle")
        return f"<{' '.join(info)}>"

    @property
    def __class__(self):
        return ReadPipeTransport

    @property
    def _paused(self):
        return self.paused


adopt_methods(ReadPipe, PipeTransport)
