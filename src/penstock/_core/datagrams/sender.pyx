"""The sending half of a datagram transport: one `sendmmsg` for all that a callback sends after its first datagram.

The first datagram of a callback goes at once, so an answer costs one `sendto`, and the program gets its error there. The
others wait until the callback ends: the reactor flushes them then, and whatever could lose them, overtake them or show
them flushes them before. While a batch of received datagrams is delivered the first one waits, too.

What the kernel does not take is queued until it reports EPOLLOUT. It never does for the receive queue of a Unix socket
that ours is not connected to: then a timer tries again.

Ownership: as `LimitedTransport`; the queue owns the datagrams.
"""

import sys
from asyncio.log import logger
from os import strerror

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_CheckExact
from cpython.exc cimport PyErr_Clear
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN
from libc.stdint cimport uint32_t

from penstock._core._sys.datagram cimport audit_sendto, send_many, send_one, thread_ident
from penstock._core._sys.epoll cimport EPOLLET, EPOLLIN, EPOLLOUT
from penstock._core._sys.python cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
    PyContext_Copy,
    PyContext_Enter,
    PyContext_Exit,
)
from penstock._core._sys.socket cimport AF_UNIX
from penstock._core.datagrams.names cimport NameCache
from penstock._core.datagrams.queue cimport DatagramQueue, outgoing
from penstock._core.limits.budget cimport charge
from penstock._core.net.flow_control cimport FlowControlledTransport
from penstock._core.net.gathered cimport gather

cdef enum:
    # Gathered datagrams are at most so many, and none of them is larger: beyond that a call more costs little.
    GATHERED_MOST = 64
    GATHERED_MOST_BYTES = 16 * 1024
    # asyncio warns from the fifth write to a lost connection on.
    LOST_WRITES_BEFORE_WARNING = 5

cdef double FIRST_RETRY_S = 50e-6
cdef double LAST_RETRY_S = 2e-3
# As asyncio's before 3.13.
cdef bint SKIPS_EMPTY = sys.version_info < (3, 13)
cdef size_t HEADER_BYTES = 0 if SKIPS_EMPTY else 8


cdef class DatagramSender(FlowControlledTransport):
    """A transport that sends datagrams."""

    cdef int prepare(self, object address) except -1:
        """Note the receiver. The socket is open."""
        self.waiting = DatagramQueue()
        self.waiting.header_bytes = HEADER_BYTES
        self.address, self.has_address = address, bool(address)
        self.family = self.sock.family
        self.is_connected = bool(self.get_extra_info("peername"))
        if self.io.names is None:
            self.io.names = NameCache()
        self.names = <NameCache>self.io.names
        if self.io.budget is not None:
            self.own_queue().budget = self.io.budget
            self.queue.account.owner = <PyObject *>self
        return 0

    def sendto(self, data, addr=None):
        """Send a datagram to `addr`, or to the only receiver. It leaves at the latest when the running callback ends.

        TypeError unless `data` is bytes, a bytearray or a memoryview; ValueError for another address than the only one.
        """
        if not PyBytes_CheckExact(data) and not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if SKIPS_EMPTY and not data:
            return
        if self.has_address:
            if addr is not None and addr is not self.address and addr != self.address:
                raise ValueError(f"Invalid address: must be None or {self.address}")
            addr = self.address
        if self.conn_lost and (self.has_address or not self.is_open):
            self.sent_after_loss()
            return
        self.send_to(data, addr)

    cdef int sent_after_loss(self) except -1:
        if self.conn_lost >= LOST_WRITES_BEFORE_WARNING:
            logger.warning("socket.send() raised exception.")
        self.conn_lost += 1
        return 0

    cdef int send_to(self, object data, object name) except -1:
        """Send a datagram; an exception that is no OSError ends the transport, as asyncio's."""
        cdef Py_buffer view
        cdef bint has_view = False
        packed = None
        try:
            if not self.is_connected:
                packed = self.packed_name(name)
                if packed is None:
                    return self.send_by_socket(data, name)
            if not PyBytes_CheckExact(data):
                PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
                has_view = True
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            return self.fatal_error(exc, "Fatal write error on datagram transport")
        if not has_view:
            return self.send_plain(data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), packed, name)
        try:
            return self.send_plain(None, <const char *>view.buf, view.len, packed, name)
        finally:
            PyBuffer_Release(&view)

    cdef object packed_name(self, object name):
        """Return a name in packed form, None if only Python's socket knows it; raise the event of `socket.sendto`."""
        packed = self.names.packed_of(name, self.family)
        if packed is not None:
            audit_sendto("socket.sendto", "OO", <PyObject *>self.sock, <PyObject *>name)
        return packed

    cdef int send_plain(self, object data, const char *start, Py_ssize_t size_bytes, object packed, object name) except -1:
        """Send, gather or queue bytes. `data` is the bytes object that has them, None when they must be copied."""
        if self.waiting.count and not self.blocked:
            if self.waiting.count < GATHERED_MOST and self.can_gather(size_bytes):
                self.note_callback()
                return self.queue_up(data, start, size_bytes, packed, name)
            self.flush()
            if self.conn_lost and self.has_address or not self.is_open:
                return self.sent_after_loss()
        if self.blocked:
            self.queue_up(data, start, size_bytes, packed, name)
            return self.maybe_pause()
        if (self.is_gathered or self.gathers_all) and self.can_gather(size_bytes):
            self.note_callback()
            return self.queue_up(data, start, size_bytes, packed, name)
        return self.send_now(data, start, size_bytes, packed, name)

    cdef int send_now(self, object data, const char *start, Py_ssize_t size_bytes, object packed, object name) except -1:
        cdef int result
        if packed is None:
            result = send_one(self.descriptor(), start, size_bytes, NULL, 0)
        else:
            result = send_one(self.descriptor(), start, size_bytes, PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed))
        if result == 0:
            return self.note_callback() if self.can_gather(0) else 0
        if result != -EAGAIN:
            self.send_failed(OSError(-result, strerror(-result)))
            return 0
        self.block()
        self.queue_up(data, start, size_bytes, packed, name)
        return self.maybe_pause()

    cdef int send_by_socket(self, object data, object name) except -1:
        """Send to a name that only Python's socket knows how to handle, such as a host to look up."""
        if self.waiting.count and not self.blocked:
            self.flush()
        if self.blocked and name is not None:
            return self.wait_for_room(bytes(data), name)
        exc = self.attempt_by_socket(data, name)
        if exc is None:
            return 0
        if isinstance(exc, (BlockingIOError, InterruptedError)):
            self.block()
            return self.wait_for_room(bytes(data), name)
        self.send_failed(exc)
        return 0

    cdef object attempt_by_socket(self, object data, object name):
        """Return None, or the OSError."""
        try:
            self.sock.sendto(data, name)
        except OSError as exc:
            return exc
        return None

    cdef int wait_for_room(self, bytes data, object name) except -1:
        """Queue a datagram that Python's socket will send."""
        cdef size_t before_bytes = self.waiting.size_bytes
        self.waiting.append(data, None, name)
        self.charge_from(before_bytes)
        return self.maybe_pause()

    # --- gathering

    cdef bint can_gather(self, Py_ssize_t size_bytes) noexcept:
        """Return whether a datagram may wait: a callback of the loop runs, in this thread, and will end."""
        return (
            size_bytes <= GATHERED_MOST_BYTES and self.io.ready.stamp_ns != 0 and not self.conn_lost
            and self.thread_id == thread_ident()
        )

    cdef int note_callback(self) except -1:
        """Be flushed when this callback ends."""
        if not self.is_gathered:
            gather(&self.io.gathered, self, flush_kept_back)
            self.is_gathered = True
        return 0

    cdef int end_callback(self) except -1:
        """Send what the callback has left, in the transport's own context."""
        cdef int failed
        self.is_gathered = False
        if self.waiting.count == 0 or self.blocked or not self.is_open:
            return 0
        context = enter(self.context)
        failed = (<Flushing>flush_and_pause)(self)
        if context is not None:
            PyContext_Exit(<PyObject *>context)
        return failed

    cdef int flush_gathered(self) except -1:
        """Send what waits for the end of a callback."""
        if self.waiting.count == 0 or self.blocked or not self.is_open:
            return 0
        self.flush()
        return self.maybe_pause() if self.blocked else 0

    # --- the queue

    cdef int queue_up(self, object data, const char *start, Py_ssize_t size_bytes, object packed, object name) except -1:
        cdef size_t before_bytes = self.waiting.size_bytes
        if data is None:
            data = PyBytes_FromStringAndSize(start, size_bytes)
        self.waiting.append(data, packed, None)
        return self.charge_from(before_bytes)

    cdef int drop(self, size_t count) except -1:
        """Forget the first of the queue: they are sent, or cannot be."""
        cdef size_t before_bytes = self.waiting.size_bytes
        self.waiting.drop(count)
        return self.charge_from(before_bytes)

    cdef int charge_from(self, size_t before_bytes) except -1:
        """Count the growth of the queue in the process's budget."""
        if self.queue.budget is not None:
            charge(self.queue.budget, &self.queue.account, <Py_ssize_t>self.waiting.size_bytes - <Py_ssize_t>before_bytes)
        return 0

    cdef int flush(self) except -1:
        """Send the queue until it is empty or the kernel takes no more."""
        try:
            while self.waiting.count and not self.blocked and self.is_open:
                self.flush_some()
        except BaseException:
            self.flush_later()
            raise
        if self.queue.budget is not None:
            self.account_bytes(False)
        return 0

    cdef int flush_later(self) except -1:
        """Have a later run send the rest: the protocol's SystemExit or KeyboardInterrupt leaves the loop."""
        if self.waiting.count and self.is_open:
            self.blocked = True
            self.enqueue(EPOLLOUT)
        return 0

    cdef int flush_some(self) except -1:
        cdef int sent, count = self.waiting.fill()
        if count == 0:
            return self.flush_first()
        sent = send_many(self.descriptor(), outgoing(), count)
        if sent > 0:
            self.retry_s = 0
            return self.drop(sent)
        return self.block() if sent == -EAGAIN else self.first_failed(-sent)

    cdef int flush_first(self) except -1:
        """Send the first one by Python's socket."""
        data, name = <object>self.waiting.first().data, <object>self.waiting.first().name
        self.drop(1)
        try:
            exc = self.attempt_by_socket(data, name)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            return self.fatal_error(exc, "Fatal write error on datagram transport")
        if isinstance(exc, (BlockingIOError, InterruptedError)):
            self.put_back(data, name)
            return self.block()
        return 0 if exc is None else self.report_error(exc)

    cdef int put_back(self, object data, object name) except -1:
        cdef size_t before_bytes = self.waiting.size_bytes
        self.waiting.put_back(data, name)
        return self.charge_from(before_bytes)

    cdef int first_failed(self, int number) except -1:
        """Report the error of the first one, which is lost."""
        self.drop(1)
        return self.report_error(OSError(number, strerror(number)))

    cdef int report_error(self, object exc) except -1:
        """Pass an error to the protocol, outside of any call of the program."""
        if self.protocol is None:
            return 0
        try:
            self.protocol.error_received(exc)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as failure:
            self.loop.call_exception_handler({
                "message": "protocol.error_received() failed",
                "exception": failure,
                "transport": self,
                "protocol": self.protocol,
            })
        return 0

    cdef int block(self) except -1:
        """Wait until the kernel takes more."""
        self.blocked = True
        if self.is_watched():
            self.io.poller.change(self, self.interest())
        if self.family == AF_UNIX and not self.is_connected:
            self.retry_s = min(max(2 * self.retry_s, FIRST_RETRY_S), LAST_RETRY_S)
            self.loop.call_later(self.retry_s, self._retry)
        return 0

    def _retry(self):
        """Try again to send: the kernel does not report when this receiver has room."""
        if self.is_open and self.blocked:
            self.enqueue(EPOLLOUT)

    cdef int unblock(self) except -1:
        """Go on, for the kernel may take more."""
        self.blocked = False
        self.flush()
        if not self.blocked and self.is_watched():
            self.io.poller.change(self, self.interest())
        return self.drained()

    cdef int descriptor(self) except -2:
        """Return the socket's descriptor; -1 if the program has closed it: another file may have the number by now."""
        return self.sock.fileno()

    cdef bint is_watched(self) except -1:
        """Return whether the poller has the socket still."""
        return self.is_registered and self.descriptor() == self.fd and self.io.poller.at(self.fd) is self

    cdef uint32_t interest(self) noexcept:
        # Without need of it EPOLLOUT would be reported for each datagram that leaves the socket's buffer.
        return EPOLLIN | EPOLLET | (EPOLLOUT if self.blocked else 0)

    cdef int enqueue(self, uint32_t events) except -1:
        raise NotImplementedError

    cdef int drained(self) except -1:
        """Act on a queue that ran low or empty."""
        if self.conn_lost:
            return 0
        self.maybe_resume()
        # resume_writing() may have sent again
        if self.waiting.count == 0 and self.closing and not self.conn_lost:
            self.conn_lost += 1
            self.lost(None)
        return 0

    # --- the watermarks and the end

    cdef size_t waiting_bytes(self) noexcept:
        return self.waiting.size_bytes

    cdef int watermarks_set(self) except -1:
        self.flush_gathered()
        return self.maybe_pause()

    def get_write_buffer_size(self):
        """Bytes that are queued, with 8 for each header from Python 3.13 on, as asyncio counts them."""
        self.flush_gathered()
        return self.waiting.size_bytes

    cdef object python_socket(self):
        # its user may send
        self.flush_gathered()
        return FlowControlledTransport.python_socket(self)

    cdef int lose(self, object exc) except -1:
        self.flush_gathered()
        # unless an error's receiver has ended it
        return 0 if self.conn_lost else FlowControlledTransport.lose(self, exc)

    cdef int stop_io(self) except -1:
        self.waiting.clear()
        return FlowControlledTransport.stop_io(self)


    cdef int send_failed(self, object exc) except -1:
        """Tell the protocol of an error within its own call of `sendto`."""
        if self.protocol is not None:
            self.protocol.error_received(exc)
        return 0


# `except -1`, but not looked at by Cython, so that the context is left in any case.
ctypedef int (*Flushing)(DatagramSender sender) noexcept


cdef int flush_and_pause(DatagramSender sender) except -1:
    return sender.flush_gathered()


cdef int flush_kept_back(object sender) except -1:
    return (<DatagramSender>sender).end_callback()


cdef object enter(object context):
    """Enter a context, or a copy of it if another thread runs it. Return what was entered; None: nothing."""
    if context is None or PyContext_Enter(<PyObject *>context) == 0:
        return context
    PyErr_Clear()
    context = PyContext_Copy(context)
    if PyContext_Enter(<PyObject *>context) < 0:
        pending_error()
    return context


cdef inline int pending_error() except -1:
    """Raise the exception that is set."""
    return -1
