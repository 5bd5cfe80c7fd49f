"""The writing half of a transport: write at once, or gather and flush vectored.

The first write of a turn goes to the kernel at once when nothing is queued. A second one in the same turn is gathered,
to be sent with all that follow by one vectored call at the turn's end; and a transport that has written twice in a
turn (a header, then a body) gathers from the first write on, until a turn in which it wrote once. Flow control looks
only at what the kernel has refused: gathered bytes that reach the high watermark are flushed before it is judged.

Ownership: as `Bounded`, which has the queue.
"""

from asyncio.log import logger

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_CheckExact
from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memset

from penstock._core._sys.python cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from penstock._core._sys.socket cimport MSG_NOSIGNAL, SHUT_WR, iovec, msghdr, send, sendmsg, shutdown
from penstock._core.bounded cimport Bounded
from penstock._core.budget cimport is_spent
from penstock._core.pace cimport note_sent
from penstock._core.ready cimport push

cdef enum:
    VECTOR_SIZE = 64
    # asyncio's default watermark.
    HIGH_BYTES = 64 * 1024
    # asyncio warns from the fifth write to a lost connection on.
    LOST_WRITES_BEFORE_WARNING = 5


cdef class Outlet(Bounded):
    """A transport that can be written to."""

    def write(self, data):
        """Send bytes, now or as soon as the kernel takes them; never blocks. The buffer may be reused at once."""
        cdef Py_buffer view
        if PyBytes_CheckExact(data):
            self.write_bytes(data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            return
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if isinstance(data, memoryview) and not data.c_contiguous:
            data = bytes(data)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.write_bytes(None, <const char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def writelines(self, list_of_data):
        """Send many buffers in one vectored call."""
        self.check_writable("writelines")
        # All are taken before any is queued: a wrong one leaves nothing behind.
        chunks = [data if PyBytes_CheckExact(data) else bytes(memoryview(data)) for data in list_of_data]
        if self.conn_lost:
            self.write_after_loss()
            return
        for chunk in chunks:
            if chunk:
                self.queue.append(chunk)
        if self.pace is not None:
            self.note_answer()
        self.flush()
        self.maybe_pause()

    cdef int check_writable(self, str verb) except -1:
        if self.eof_written:
            raise RuntimeError(f"Cannot call {verb}() after write_eof()")
        if self.empty_waiter is not None:
            raise RuntimeError(f"unable to {verb}; sendfile is in progress")
        return 0

    cdef int write_bytes(self, object data, const char *start, Py_ssize_t size_bytes) except -1:
        """`data` is the bytes object that `start` points into, None when what is left must be copied."""
        cdef Py_ssize_t sent = 0
        cdef bint at_once
        self.check_writable("write")
        if size_bytes == 0:
            return 0
        if self.conn_lost:
            return self.write_after_loss()
        at_once = self.queue.count == 0 and not self.gathers and self.last_write_turn != self.wiring.turn
        self.last_write_turn = self.wiring.turn
        if self.pace is not None:
            self.note_answer()
        if at_once:
            sent = self.send_now(start, size_bytes)
            if sent < 0 or sent == size_bytes:
                return 0
        if data is None:
            data, sent = PyBytes_FromStringAndSize(start + sent, size_bytes - sent), 0
        return self.enqueue(data, sent)

    def write_after_loss(self):
        if self.conn_lost >= LOST_WRITES_BEFORE_WARNING:
            logger.warning("socket.send() raised exception.")
        self.conn_lost += 1
        return 0

    cdef int enqueue(self, bytes chunk, Py_ssize_t sent_bytes) except -1:
        """Queues a chunk, the beginning of which is sent already if it is the first."""
        self.queue.append(chunk)
        if sent_bytes:
            self.queue.consume(sent_bytes)
        if not self.blocked:
            self.gather()
            if <Py_ssize_t>self.queue.size_bytes <= self.high_bytes and not is_spent(self.queue.budget):
                return 0
            self.flush()
        return self.maybe_pause()

    cdef int gather(self) except -1:
        """Leaves the queue to the end of this turn, when the reactor flushes it."""
        self.gathered_count += 1
        if not self.is_gathered:
            self.is_gathered = True
            push(self.wiring.gathered, self)
        return 0

    cdef Py_ssize_t send_now(self, const char *start, Py_ssize_t size_bytes) except -2:
        """How much the kernel took; -1 when the connection has failed, and was told so."""
        cdef Py_ssize_t sent
        while True:
            sent = send(self.fd, start, size_bytes, MSG_NOSIGNAL)
            if sent >= 0:
                self.blocked = sent < size_bytes
                return sent
            if errno == EAGAIN:
                self.blocked = True
                return 0
            if errno != EINTR:
                self.write_failed()
                return -1

    cdef int flush(self) except -1:
        """Sends the queue until it is empty or the kernel is full; knows nothing of what follows either."""
        cdef iovec vector[VECTOR_SIZE]
        cdef msghdr message
        cdef size_t total_bytes
        cdef Py_ssize_t sent
        while self.queue.count and not self.blocked and not self.conn_lost:
            memset(&message, 0, sizeof(message))
            message.msg_iov = vector
            message.msg_iovlen = self.queue.fill(vector, VECTOR_SIZE, &total_bytes)
            sent = sendmsg(self.fd, &message, MSG_NOSIGNAL)
            if sent >= 0:
                self.queue.consume(sent)
                self.blocked = <size_t>sent < total_bytes
                if self.pace is not None:
                    note_sent(self.pace, self.stamp_ns(), self.wiring.turn, sent)
            elif errno == EAGAIN:
                self.blocked = True
            elif errno != EINTR:
                self.write_failed()
        if self.queue.budget is not None:
            self.weigh(False)
        return 0

    cdef int flush_gathered(self) except -1:
        """The end of a turn in which writes were gathered."""
        self.gathers = self.gathered_count > 1
        self.gathered_count, self.is_gathered = 0, False
        if not self.is_open or not self.queue.count:
            return 0
        self.flush()
        if self.protocol_paused and not self.blocked:
            self.loop.call_soon(self._drained)
        return 0

    def _drained(self):
        self.drained()

    cdef int drained(self) except -1:
        """What waits for the queue to run low or empty, after a flush."""
        if self.conn_lost:
            return 0
        self.maybe_resume()
        # resume_writing() may have written again.
        if self.queue.count or self.conn_lost:
            return 0
        if self.empty_waiter is not None and not self.empty_waiter.done():
            self.empty_waiter.set_result(None)
        if self.closing:
            self.conn_lost += 1
            self.lost(None)
        elif self.eof_written:
            try:
                self.shut_down()
            except OSError as exc:
                # The peer was faster: it has reset the connection since the last byte went out.
                self.fatal_error(exc, "Fatal error: shutdown() of the writing side failed.")
        return 0

    cdef int write_failed(self) except -1:
        self.queue.clear()
        try:
            PyErr_SetFromErrno(OSError)
        except OSError as exc:
            self.fatal_error(exc, "Fatal write error on socket transport")
            if self.empty_waiter is not None and not self.empty_waiter.done():
                self.empty_waiter.set_exception(exc)
        return 0

    cdef int stop_io(self) except -1:
        self.queue.clear()
        return Bounded.stop_io(self)

    cdef int lost(self, object exc) except -1:
        Bounded.lost(self, exc)
        if self.empty_waiter is not None and not self.empty_waiter.done():
            self.empty_waiter.set_exception(ConnectionError("Connection is closed by peer"))
        return 0

    def write_eof(self):
        """Half-close: no more writes; the peer reads EOF once everything queued is sent."""
        if self.closing or self.eof_written:
            return
        self.flush()
        self.eof_written = True
        if not self.queue.count and not self.conn_lost:
            self.shut_down()

    cdef int shut_down(self) except -1:
        if shutdown(self.fd, SHUT_WR) < 0:
            PyErr_SetFromErrno(OSError)
        return 0

    def can_write_eof(self):
        """True: stream sockets can be half-closed."""
        return True

    def get_write_buffer_size(self):
        """Bytes that are queued, in bytes."""
        return self.queue.size_bytes

    def get_write_buffer_limits(self):
        """The watermarks `(low, high)`, in bytes."""
        return self.low_bytes, self.high_bytes

    def set_write_buffer_limits(self, high=None, low=None):
        """Set the watermarks, in bytes: above `high` the protocol is paused, at `low` resumed. ValueError if low > high."""
        if high is None:
            high = HIGH_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self.high_bytes, self.low_bytes = high, low
        self.maybe_pause()

    cdef int maybe_pause(self) except -1:
        if self.queue.budget is not None and self.queue.count:
            self.weigh(True)
        if self.pace is not None:
            self.note_growth()
        return self.pause() if <Py_ssize_t>self.queue.size_bytes > self.high_bytes else 0

    cdef int pause(self) except -1:
        if not self.protocol_paused:
            self.protocol_paused = True
            self.call_protocol("pause_writing")
        return 0

    cdef int maybe_resume(self) except -1:
        # A layer is never kept from writing down what it has: its own protocol is paused instead.
        if self.budget_pauses and not self.has_layer:
            return 0
        return self.resume() if <Py_ssize_t>self.queue.size_bytes <= self.low_bytes else 0

    cdef int resume(self) except -1:
        if self.protocol_paused:
            self.protocol_paused = False
            self.call_protocol("resume_writing")
        return 0

    cdef int on_budget_pause(self) except -1:
        if self.has_layer:
            return self.call_protocol("_control_app_writing")
        if self.budget_pauses:
            return self.pause()
        # Its own watermark has not been passed, or not for long.
        return self.resume() if <Py_ssize_t>self.queue.size_bytes <= self.high_bytes else 0

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

    cdef bint is_lent(self) noexcept:
        return self.empty_waiter is not None

    def _make_empty_waiter(self):
        if self.empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self.flush()
        self.empty_waiter = self.loop.create_future()
        if not self.queue.count:
            self.empty_waiter.set_result(None)
        return self.empty_waiter

    def _reset_empty_waiter(self):
        self.empty_waiter = None

    @property
    def _protocol_paused(self):
        return self.protocol_paused
