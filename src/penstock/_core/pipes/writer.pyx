"""The writing end of a pipe: it writes as many bytes as the kernel takes, and queues the rest.

The kernel reports an edge when a full pipe has room again, and when its last reader is gone. As on asyncio's loop the
protocol is resumed when the queue is empty, and a socket whose peer sends anything counts as closed by its peer.

Ownership: as `PipeTransport`. The queue owns its chunks, which are immutable: anything but bytes is copied.
"""

import asyncio
from asyncio.log import logger
from os import strerror

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_CheckExact
from libc.errno cimport EAGAIN
from libc.stdint cimport uint32_t

from penstock._core._sys.epoll cimport EPOLLET, EPOLLIN, EPOLLOUT
from penstock._core._sys.pipe cimport write_pipe
from penstock._core._sys.python cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
    adopt_methods,
)
from penstock._core._sys.socket cimport iovec
from penstock._core.net.buffers cimport WriteQueue
from penstock._core.net.flow_control cimport watermarks, whole_bytes
from penstock._core.pipes.transport cimport PipeTransport

cdef enum:
    VECTOR_SIZE = 64
    # asyncio's default watermarks.
    HIGH_BYTES = 64 * 1024
    LOW_BYTES = HIGH_BYTES // 4
    # asyncio warns from the fifth write to a lost pipe on.
    LOST_WRITES_BEFORE_WARNING = 5


class WritePipeTransport(asyncio.transports._FlowControlMixin, asyncio.WriteTransport):
    """The type that `transport.__class__` names: a native object cannot be laid out over asyncio's slots."""


@cython.final
cdef class WritePipe(PipeTransport):
    """The writing end of a pipe. `isinstance(transport, asyncio.WriteTransport)` holds."""

    def __cinit__(self, *args, **kwargs):
        self.queue = WriteQueue()
        self.high_bytes, self.low_bytes = HIGH_BYTES, LOW_BYTES

    cdef uint32_t interest(self) noexcept:
        return EPOLLIN | EPOLLOUT | EPOLLET

    # --- events

    cdef int on_events(self, uint32_t events) except -1:
        # room that nothing waits for is no event
        return self.enqueue(events) if self.blocked or events != EPOLLOUT else 0

    cdef int handle_events(self, uint32_t events) except -1:
        if events & ~<uint32_t>EPOLLOUT:
            return self.peer_closed()
        self.blocked = False
        if not self.queue.count:
            return 0
        self.flush()
        return self.drained()

    cdef int peer_closed(self) except -1:
        if self.loop.get_debug():
            logger.info("%r was closed by peer", self)
        return self.end(BrokenPipeError() if self.queue.count else None)

    cdef int drained(self) except -1:
        """Act on a queue that has run empty in a flush."""
        if self.queue.count or self.is_ending:
            return 0
        if self.protocol_paused:
            self.protocol_paused = False
            self.call_protocol("resume_writing")
        if self.closing and not self.is_ending:
            self.is_ending = True
            self.stop_io()
            self.lost(None)
        return 0

    # --- writing

    def write(self, data):
        """Write bytes, now or as soon as the kernel takes them; never blocks. The buffer may be reused at once."""
        cdef Py_buffer view
        cdef Py_ssize_t sent = 0
        if not isinstance(data, (bytes, bytearray, memoryview)):
            # asyncio's own exception
            raise AssertionError(repr(data))
        if isinstance(data, memoryview) and not data.c_contiguous:
            data = bytes(data)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if not self.takes(view.len == 0):
                return
            if self.queue.count == 0:
                sent = self.write_now(<const char *>view.buf, view.len)
                if sent < 0 or sent == view.len:
                    return
            self.queue_rest(data, &view, sent)
        finally:
            PyBuffer_Release(&view)
        self.maybe_pause()

    def writelines(self, list_of_data):
        """Write many buffers in one vectored call."""
        # All are taken before any is queued: a wrong one leaves nothing behind.
        chunks = [data if PyBytes_CheckExact(data) else b"".join((data,)) for data in list_of_data]
        if not self.takes(not any(chunks)):
            return
        for chunk in chunks:
            if chunk:
                self.queue.append(chunk)
        self.flush()
        if not self.is_ending:
            self.maybe_pause()

    cdef bint takes(self, bint is_empty) except -1:
        """Return whether bytes can be written still, and count writes that come too late."""
        if is_empty:
            return False
        if not self.conn_lost and not self.closing:
            return True
        if self.conn_lost >= LOST_WRITES_BEFORE_WARNING:
            logger.warning("pipe closed by peer or os.write(pipe, data) raised exception.")
        self.conn_lost += 1
        return False

    cdef int queue_rest(self, object data, Py_buffer *view, Py_ssize_t sent_bytes) except -1:
        """Queue what the kernel has not taken, without a copy if it is in a bytes object."""
        try:
            if not PyBytes_CheckExact(data):
                data = PyBytes_FromStringAndSize(<const char *>view.buf + sent_bytes, view.len - sent_bytes)
                return self.queue.append(data)
            self.queue.append(data)
            return self.queue.consume(sent_bytes) if sent_bytes else 0
        except MemoryError as exc:
            if not sent_bytes:
                raise
            # the reader has the beginning, and can never have the rest
            return self.fatal_error(exc, "Fatal write error on pipe transport", False)

    cdef Py_ssize_t write_now(self, const char *start, Py_ssize_t size_bytes) except -2:
        """Write now. Return the number of bytes that the kernel took; -1 when the pipe has failed."""
        cdef iovec vector
        cdef Py_ssize_t sent
        vector.iov_base, vector.iov_len = <void *>start, size_bytes
        sent = write_pipe(self.fd, self.kind, &vector, 1)
        if sent >= 0:
            self.blocked = sent < size_bytes
            return sent
        if sent == -EAGAIN:
            self.blocked = True
            return 0
        self.write_failed(<int>-sent)
        return -1

    cdef int flush(self) except -1:
        """Write the queue until it is empty or the kernel is full."""
        cdef iovec vector[VECTOR_SIZE]
        cdef size_t total_bytes
        cdef Py_ssize_t sent
        cdef int count
        while self.queue.count and not self.blocked and not self.is_ending:
            count = self.queue.fill(vector, VECTOR_SIZE, &total_bytes)
            sent = write_pipe(self.fd, self.kind, vector, count)
            if sent >= 0:
                self.queue.consume(sent)
                self.blocked = <size_t>sent < total_bytes
            elif sent == -EAGAIN:
                self.blocked = True
            else:
                self.write_failed(<int>-sent)
        return 0

    cdef int write_failed(self, int number) except -1:
        self.queue.clear()
        self.conn_lost += 1
        return self.fatal_error(OSError(number, strerror(number)), "Fatal write error on pipe transport", True)

    # --- the end

    cdef int stop_io(self) except -1:
        self.queue.clear()
        return PipeTransport.stop_io(self)

    def can_write_eof(self):
        """True: the end of a pipe is its close."""
        return True

    def write_eof(self):
        """Close once everything queued is written; `connection_lost(None)` follows."""
        if self.closing:
            return
        self.closing = True
        if not self.queue.count:
            self.end(None)

    def close(self):
        """As `write_eof`."""
        self.write_eof()

    def abort(self):
        """Close at once: queued bytes are lost, `connection_lost(None)` follows."""
        self.end(None)

    # --- flow control

    def get_write_buffer_size(self):
        """Bytes that are queued, in bytes."""
        return self.queue.size_bytes

    def get_write_buffer_limits(self):
        """The watermarks `(low, high)`, in bytes."""
        return (self.low_bytes, self.high_bytes) if self.limits is None else self.limits

    def set_write_buffer_limits(self, high=None, low=None):
        """Set the watermarks, in bytes: above `high` the protocol is paused. ValueError if low > high."""
        high, low = watermarks(high, low, HIGH_BYTES)
        self.high_bytes, self.low_bytes, self.limits = whole_bytes(high), whole_bytes(low), (low, high)
        self.maybe_pause()

    cdef int maybe_pause(self) except -1:
        if self.protocol_paused or <Py_ssize_t>self.queue.size_bytes <= self.high_bytes:
            return 0
        self.protocol_paused = True
        return self.call_protocol("pause_writing")

    cdef int call_protocol(self, str method) except -1:
        try:
            getattr(self.protocol, method)()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.loop.call_exception_handler({
                "message": f"protocol.{method}() failed",
                "exception": exc,
                "transport": self,
                "protocol": self.protocol,
            })
        return 0

    def __repr__(self):
        info = self.describe()
        if self.pipe is not None and not self.loop.is_closed():
            info.append("polling" if self.queue.count else "idle")
            info.append(f"bufsize={self.queue.size_bytes}")
        return f"<{' '.join(info)}>"

    @property
    def __class__(self):
        return WritePipeTransport

    @property
    def _conn_lost(self):
        return self.conn_lost

    @property
    def _protocol_paused(self):
        return self.protocol_paused


adopt_methods(WritePipe, PipeTransport)
