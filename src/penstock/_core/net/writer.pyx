"""The writing half of a transport: a write hands the kernel as many bytes as it takes, and queues the rest.

A program that answers with a header and then a body can ask for gathering (`gather_writes`). The first write after
data has come in then waits for the second one, and one vectored call sends both. It waits at most until its callback
ends: the reactor flushes it there, and whatever else could lose it or overtake it flushes it before.

Ownership: as `LimitedTransport`, which has the queue.
"""

from asyncio.log import logger

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_CheckExact
from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memset

from penstock._core._sys.python cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from penstock._core._sys.socket cimport MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_WR, iovec, msghdr, send, sendmsg, shutdown
from penstock._core.net.buffers cimport WriteQueue
from penstock._core.net.flow_control cimport FlowControlledTransport
from penstock._core.net.gathered cimport gather
from penstock._core.limits.peer_timeouts cimport note_sent

cdef enum:
    VECTOR_SIZE = 64
    # Does not wait, although a process that shares the descriptor may have made it blocking.
    SEND_FLAGS = MSG_NOSIGNAL | MSG_DONTWAIT
    # A larger first write goes at once: it is no header.
    GATHERED_MOST_BYTES = 16 * 1024
    # asyncio warns from the fifth write to a lost connection on.
    LOST_WRITES_BEFORE_WARNING = 5


cdef class WriterTransport(FlowControlledTransport):
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
        cdef WriteQueue queue
        self.check_writable("writelines")
        # All are taken before any is queued: a wrong one leaves nothing behind.
        chunks = [data if PyBytes_CheckExact(data) else bytes(memoryview(data)) for data in list_of_data]
        if self.conn_lost:
            self.write_after_loss()
            return
        queue = self.own_queue()
        for chunk in chunks:
            if chunk:
                queue.append(chunk)
        if self.timeouts is not None:
            self.note_answer()
        self.flush()
        self.maybe_pause()

    @cython.final
    cdef int check_writable(self, str verb) except -1:
        if self.eof_written:
            raise RuntimeError(f"Cannot call {verb}() after write_eof()")
        if self.empty_waiter is not None:
            raise RuntimeError(f"unable to {verb}; sendfile is in progress")
        return 0

    cdef int write_bytes(self, object data, const char *start, Py_ssize_t size_bytes) except -1:
        """`data` is the bytes object that `start` points into, None when what is left must be copied."""
        cdef Py_ssize_t sent = 0
        cdef bint gathers = self.is_first and self.can_gather(size_bytes)
        self.check_writable("write")
        if size_bytes == 0:
            # An empty body: its header waits for nothing more.
            return self.flush_gathered()
        if self.conn_lost:
            return self.write_after_loss()
        if self.timeouts is not None:
            self.note_answer()
        if self.queue.count == 0 and not gathers:
            sent = self.send_now(start, size_bytes)
            if sent < 0 or sent == size_bytes:
                return 0
        self.queue_rest(data, start, size_bytes, sent)
        if gathers:
            return self.gather()
        if not self.blocked:
            self.flush()
        return self.maybe_pause()

    def write_after_loss(self):
        if self.conn_lost >= LOST_WRITES_BEFORE_WARNING:
            logger.warning("socket.send() raised exception.")
        self.conn_lost += 1
        return 0

    cdef int queue_rest(self, object data, const char *start, Py_ssize_t size_bytes, Py_ssize_t sent_bytes) except -1:
        """Queue what the kernel has not taken."""
        cdef WriteQueue queue
        try:
            queue = self.own_queue()
            if data is None:
                queue.append(PyBytes_FromStringAndSize(start + sent_bytes, size_bytes - sent_bytes))
            else:
                queue.append(data)
                if sent_bytes:
                    queue.consume(sent_bytes)
        except MemoryError as exc:
            if not sent_bytes:
                raise
            # The peer has the beginning, and can never have the rest.
            self.fatal_error(exc, "Fatal write error on socket transport")
        return 0

    @cython.final
    cdef bint can_gather(self, Py_ssize_t size_bytes) noexcept:
        """Whether a first write may wait: it is small, nothing is before it, and a callback runs that will end."""
        self.is_first = False
        return (
            self.queue.count == 0 and self.io.ready.stamp_ns != 0
            and 0 < size_bytes <= min(self.high_bytes, <Py_ssize_t>GATHERED_MOST_BYTES)
        )

    cdef int gather(self) except -1:
        """Leave the queue to the next write or the end of the callback."""
        if not self.is_gathered:
            gather(&self.io.gathered, self, flush_kept_back)
            self.is_gathered = True
        return 0

    @cython.final
    cdef Py_ssize_t send_now(self, const char *start, Py_ssize_t size_bytes) except -2:
        """Send now. Return the number of bytes that the kernel took; -1 when the connection has failed."""
        cdef Py_ssize_t sent
        while True:
            sent = send(self.fd, start, size_bytes, SEND_FLAGS)
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
        """Send the queue until it is empty or the kernel is full; knows nothing of what follows either."""
        cdef iovec vector[VECTOR_SIZE]
        cdef msghdr message
        cdef size_t total_bytes
        cdef Py_ssize_t sent
        while self.queue.count and not self.blocked and not self.conn_lost:
            memset(&message, 0, sizeof(message))
            message.msg_iov = vector
            message.msg_iovlen = self.queue.fill(vector, VECTOR_SIZE, &total_bytes)
            sent = sendmsg(self.fd, &message, SEND_FLAGS)
            if sent >= 0:
                self.queue.consume(sent)
                self.blocked = <size_t>sent < total_bytes
                if self.timeouts is not None:
                    note_sent(self.timeouts, self.stamp_ns(), self.io.turn, sent)
            elif errno == EAGAIN:
                self.blocked = True
            elif errno != EINTR:
                self.write_failed()
        if self.queue.budget is not None:
            self.account_bytes(False)
        return 0

    cdef int flush_gathered(self) except -1:
        """Send what a first write has left in the queue."""
        return self.flush() if self.queue.count and not self.blocked and not self.conn_lost else 0

    def gather_writes(self):
        """Have the first write after received data wait for the second one or the callback's end, from now on."""
        self.gathers = True

    def _switched(self):
        FlowControlledTransport._switched(self)
        self.gathers = self.is_first = False

    cdef int drained(self) except -1:
        """Act on a queue that ran low or empty in a flush."""
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

    cdef int lose(self, object exc) except -1:
        self.flush_gathered()
        # Unless that has failed, and the protocol was notified.
        return 0 if self.conn_lost else FlowControlledTransport.lose(self, exc)

    cdef int stop_io(self) except -1:
        self.queue.clear()
        return FlowControlledTransport.stop_io(self)

    cdef object python_socket(self):
        # Its user may write or shut down.
        self.flush_gathered()
        return FlowControlledTransport.python_socket(self)

    cdef int lost(self, object exc) except -1:
        FlowControlledTransport.lost(self, exc)
        if self.empty_waiter is not None and not self.empty_waiter.done():
            self.empty_waiter.set_exception(ConnectionError("Connection is closed by peer"))
        return 0

    def write_eof(self):
        """Half-close: no more writes; the peer reads EOF once everything queued is sent."""
        if self.closing or self.eof_written:
            return
        self.flush_gathered()
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

    cdef int watermarks_set(self) except -1:
        self.flush_gathered()
        return self.maybe_pause()

    cdef bint is_lent(self) noexcept:
        return self.empty_waiter is not None

    def _make_empty_waiter(self):
        if self.empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self.flush_gathered()
        self.empty_waiter = self.loop.create_future()
        if not self.queue.count:
            self.empty_waiter.set_result(None)
        return self.empty_waiter

    def _reset_empty_waiter(self):
        self.empty_waiter = None

cdef int flush_kept_back(object transport) except -1:
    """Flush at the end of the callback in which it has gathered."""
    (<WriterTransport>transport).is_gathered = False
    return (<WriterTransport>transport).flush_gathered()
