"""The state machine of a TLS connection: the protocol of the transport below, and the source of the program's transport.

Long because handshake, reading, writing and closing check and set the same state. States, the order of calls and the
failures are those of asyncio.sslproto.

Reading. A `Stream` hands over received bytes where they are. All that they hold is decrypted into one recycled object,
what is left of them is copied by `settle`, and only then code of the program runs, for it may change the bytes.

Writing. The writes of one callback are gathered, and encrypted at its end or as soon as they fill a record. Encrypted
bytes go to the transport below at once. Above its watermark the rest stays plaintext in the backlog, and the program's
protocol is paused by the backlog's size.

Ownership: the connection owns its engine and the backlog. It and the transport of the program refer to each other until
the connection is lost.
"""

import asyncio
from asyncio import constants, sslproto
from asyncio.log import logger

try:
    import ssl
except ImportError:
    ssl = None

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_CheckExact
from cpython.object cimport PyObject
from libc.string cimport memcpy

from penstock._core._sys.python cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from penstock._core._sys.socket cimport iovec
from penstock._core.net.buffers cimport ReadPool, WriteQueue
from penstock._core.net.flow_control cimport watermarks, whole_bytes
from penstock._core.net.layer cimport Layer
from penstock._core.net.stream cimport Stream
from penstock._core.net.stream_feed cimport feed, has_asyncio_feed, reader_of
from penstock._core.tls.engine cimport WANTS_INPUT, Engine
from penstock._core.tls.engines cimport make_engine, upgraded

cdef enum:
    RECORD_BYTES = 16 * 1024
    # What is encrypted before it is sent, and decrypted at once.
    PIECE_BYTES = 64 * 1024
    MOST_READ_BYTES = 256 * 1024
    VECTOR_SIZE = 64

cdef object SSLError = () if ssl is None else ssl.SSLError
cdef object CertificateError = () if ssl is None else ssl.CertificateError
cdef object BufferedProtocol = asyncio.BufferedProtocol
cdef int LOST_WRITES_BEFORE_WARNING = constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES
cdef Engine NO_ENGINE = Engine()
# For connections that have no reactor below.
cdef ReadPool shared_reads = ReadPool()
cdef tuple STATES = tuple(sslproto.SSLProtocolState) if hasattr(sslproto, "SSLProtocolState") else (0, 1, 2, 3, 4)


class TLSProtocol(asyncio.Protocol):
    """The type that `protocol.__class__` names: a native object cannot be laid out over asyncio.Protocol's slots."""


cdef class TLSConnection(Layer):
    """A TLS connection over any transport; the fast way over a `Stream`."""

    def __init__(
        self,
        loop,
        app_protocol,
        sslcontext,
        waiter=None,
        bint server_side=False,
        server_hostname=None,
        bint call_connection_made=True,
        ssl_handshake_timeout=None,
        ssl_shutdown_timeout=None,
    ):
        if ssl is None:
            raise RuntimeError("stdlib ssl module not available")
        self.handshake_timeout_s = positive(
            "ssl_handshake_timeout", ssl_handshake_timeout, constants.SSL_HANDSHAKE_TIMEOUT
        )
        self.shutdown_timeout_s = positive("ssl_shutdown_timeout", ssl_shutdown_timeout, constants.SSL_SHUTDOWN_TIMEOUT)
        self.sslcontext = sslcontext or sslproto._create_transport_context(server_side, server_hostname)
        self.loop, self.waiter, self.server_side = loop, waiter, server_side
        self.reads = shared_reads
        self.app_state = INIT if call_connection_made else MADE
        self.take_app_protocol(app_protocol)
        hostname = server_hostname if server_hostname and not server_side else None
        self.engine = make_engine(self.sslcontext, server_side, hostname)
        self.set_write_limits(None, None)
        self.set_read_limits(None, None)

    cdef int take_app_protocol(self, object protocol) except -1:
        self.app_protocol = protocol
        self.buffered = isinstance(protocol, BufferedProtocol)
        self.feeds = has_asyncio_feed(protocol)
        return 0

    def take_over(self, data not None):
        """Take bytes that the transport below has delivered to another protocol before."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.waiting_bytes += view.len
            self.engine.feed(<const char *>view.buf, view.len)
            self.engine.settle()
        finally:
            PyBuffer_Release(&view)

    # --- the protocol of the transport below

    def connection_made(self, transport):
        """Start the handshake."""
        self.lower = transport
        if isinstance(transport, Stream):
            self.stream = transport
            self.reads = self.stream.io.reads
            self.lower_writing_paused = self.stream.protocol_paused
            # paused by the budget, perhaps, which pauses the program's protocol from now on
            self.stream.maybe_resume()
        self.start_handshake()

    def connection_lost(self, exc):
        """Notify the program's protocol soon, and let go of everything."""
        if self.backlog is not None:
            self.backlog.clear()
        self.conn_lost += 1
        self.is_closed = True
        if self.state != DO_HANDSHAKE and self.app_state in (MADE, ENDED):
            self.app_state = LOST
            self.loop.call_soon(self.app_protocol.connection_lost, exc)
        self.state = UNWRAPPED
        self.lower = self.stream = self.app_transport = self.app_protocol = None
        self.wake_waiter(exc)
        self.cancel_timers()
        if self.forgets:
            self.forget()

    cdef int forget(self) except -1:
        """Let go of context and engine once the connection is lost: the program has closed twice, as to say that it is done.

        asyncio's transport lets go of its protocol then, and programs keep transports.
        """
        self.forgets = True
        if self.lower is None and self.conn_lost:
            self.engine, self.sslcontext, self.known = NO_ENGINE, None, None
            self.is_established = False
        return 0

    def data_received(self, data not None):
        """Take bytes of a transport that is not native."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.receive(<const char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int receive(self, const char *data, Py_ssize_t size_bytes) except -1:
        cdef Engine engine = self.engine
        if self.state == UNWRAPPED:
            return 0
        self.waiting_bytes += size_bytes
        engine.feed(data, size_bytes)
        try:
            if self.state != WRAPPED or self.buffered or self.app_reading_paused:
                engine.settle()
            self.act()
        finally:
            engine.settle()
        return 0

    cdef int act(self) except -1:
        """Go on with what the connection is at."""
        if self.state == WRAPPED:
            return self.do_read()
        if self.state == DO_HANDSHAKE:
            return self.do_handshake()
        if self.state == FLUSHING:
            return self.do_flush()
        return self.do_shutdown() if self.state == SHUTDOWN else 0

    def eof_received(self):
        """Take the end of the peer's bytes. Return whether the transport below must stay open."""
        self.eof_read = True
        try:
            if self.loop.get_debug():
                logger.debug("%r received EOF", self)
            if self.state == DO_HANDSHAKE:
                self.handshake_failed(ConnectionResetError())
            elif self.state == WRAPPED:
                self.state = FLUSHING
                if self.app_reading_paused:
                    return True
                self.do_flush()
            elif self.state == FLUSHING:
                self.do_write(True)
                self.state = SHUTDOWN
                self.do_shutdown()
            elif self.state == SHUTDOWN:
                self.do_shutdown()
        except Exception:
            if self.lower is not None:
                self.lower.close()
            raise

    def pause_writing(self):
        """Keep plaintext back: the transport below is above its watermark."""
        self.lower_writing_paused = True

    def resume_writing(self):
        """Write again."""
        self.lower_writing_paused = False
        if self.lower is not None:
            self.flush_backlog()

    # --- handshake

    cdef int start_handshake(self) except -1:
        if self.loop.get_debug():
            logger.debug("%r starts SSL handshake", self)
            self.handshake_began_s = self.loop.time()
        self.state = DO_HANDSHAKE
        self.handshake_timer = self.loop.call_later(self.handshake_timeout_s, self._check_handshake_timeout)
        # a server has nothing to say before its client
        return 0 if self.server_side and not self.waiting_bytes else self.do_handshake()

    def _check_handshake_timeout(self):
        if self.state == DO_HANDSHAKE:
            self.fatal_error(
                ConnectionAbortedError(
                    f"SSL handshake is taking longer than {self.handshake_timeout_s} seconds: aborting the connection"
                ),
                "Fatal error on transport",
            )

    cdef int do_handshake(self) except -1:
        cdef int result
        if self.is_busy:
            return 0
        self.is_busy = True
        try:
            result = self.engine.handshake()
        except SSLError as exc:
            return self.handshake_failed(exc)
        finally:
            self.is_busy = False
        if result == WANTS_INPUT:
            self.waiting_bytes = 0
            return self.send_output()
        return self.handshake_done() if self.state == DO_HANDSHAKE else 0

    cdef int handshake_done(self) except -1:
        self.handshake_timer = cancelled(self.handshake_timer)
        self.state = WRAPPED
        if self.loop.get_debug():
            logger.debug("%r: SSL handshake took %.1f ms", self, (self.loop.time() - self.handshake_began_s) * 1e3)
        self.is_established = True
        self.send_output()
        if self.stream is not None:
            self.engine = upgraded(self.engine)
        if self.app_state == INIT:
            self.app_state = MADE
            self.app_protocol.connection_made(self.app_transport)
        self.wake_waiter(None)
        return self.do_read()

    cdef int handshake_failed(self, object exc) except -1:
        self.handshake_timer = cancelled(self.handshake_timer)
        self.state = UNWRAPPED
        if isinstance(exc, CertificateError):
            self.fatal_error(exc, "SSL handshake failed on verifying the certificate")
        else:
            self.fatal_error(exc, "SSL handshake failed")
        return self.wake_waiter(exc)

    cdef int wake_waiter(self, object exc) except -1:
        waiter, self.waiter = self.waiter, None
        if waiter is None or waiter.cancelled():
            return 0
        if exc is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(exc)
        return 0

    cdef int cancel_timers(self) except -1:
        self.handshake_timer = cancelled(self.handshake_timer)
        self.shutdown_timer = cancelled(self.shutdown_timer)
        return 0

    # --- reading

    cdef int do_read(self) except -1:
        """Deliver what can be decrypted, and write what waited for it."""
        if self.state not in (WRAPPED, FLUSHING) or self.is_busy:
            return 0
        try:
            if not self.app_reading_paused:
                self.read_plain()
                self.flush_backlog()
            self.control_lower_reading()
        except Exception as exc:
            self.fatal_error(exc, "Fatal error on SSL protocol")
        return 0

    def _do_read(self):
        self.do_read()

    cdef bint can_deliver(self) noexcept:
        return not self.app_reading_paused and self.state in (WRAPPED, FLUSHING)

    cdef int read_plain(self) except -1:
        if self.buffered:
            return self.read_lent()
        while self.engine.has_plaintext():
            if not self.read_copied() or not self.can_deliver():
                return 0
            if self.buffered:
                self.loop.call_soon(self._do_read)
                return 0
        self.waiting_bytes = 0
        return 0

    cdef bint read_copied(self) except -1:
        """Decrypt into a recycled object and deliver it. Return whether there may be more."""
        cdef ReadPool reads = self.reads
        cdef bint ended = False
        cdef Py_ssize_t room_bytes
        room = reads.lend(min(self.waiting_bytes, <Py_ssize_t>MOST_READ_BYTES) + RECORD_BYTES, &room_bytes)
        cdef Py_ssize_t most_bytes = room_bytes
        cdef Py_ssize_t got = self.decrypt(PyBytes_AS_STRING(room), room_bytes, &ended)
        self.engine.settle()
        if got:
            room = reads.filled(room, PyBytes_AS_STRING(room), got, &room_bytes)
            self.deliver(room)
        reads.keep(<PyObject *>room, room_bytes)
        if ended:
            self.peer_closed()
        return got == most_bytes

    cdef int read_lent(self) except -1:
        """Decrypt into the buffer that a BufferedProtocol lends."""
        cdef Py_buffer view
        cdef bint ended = False
        cdef Py_ssize_t got = 0, most_bytes
        self.engine.settle()
        if not self.engine.has_plaintext():
            self.waiting_bytes = 0
            return 0
        lender = self.app_protocol
        lent = lender.get_buffer(self.waiting_bytes)
        if not len(lent):
            raise RuntimeError("get_buffer() returned an empty buffer")
        PyObject_GetBuffer(lent, &view, PyBUF_WRITABLE)
        most_bytes = view.len
        try:
            if self.app_protocol is lender and self.can_deliver():
                got = self.decrypt(<char *>view.buf, most_bytes, &ended)
        finally:
            PyBuffer_Release(&view)
        if self.app_protocol is not lender or got == most_bytes:
            self.loop.call_soon(self._do_read)
        if got:
            lender.buffer_updated(got)
        return self.peer_closed() if ended else 0

    cdef Py_ssize_t decrypt(self, char *into, Py_ssize_t most_bytes, bint *ended) except -1:
        """Decrypt all that fits. Return the number of bytes, and whether the peer's close_notify came after them."""
        cdef Engine engine = self.engine
        cdef Py_ssize_t some_bytes, got = 0
        self.is_busy = True
        try:
            while got < most_bytes and engine.has_plaintext():
                some_bytes = engine.read(into + got, most_bytes - got)
                if some_bytes <= 0:
                    ended[0] = some_bytes == 0
                    break
                got += some_bytes
            if got < most_bytes:
                self.waiting_bytes = 0
        finally:
            self.is_busy = False
        return got

    cdef int deliver(self, object data) except -1:
        if self.feeds:
            reader = reader_of(self.app_protocol)
            if reader is not None:
                return feed(reader, PyBytes_AS_STRING(data), len(data))
        self.app_protocol.data_received(data)
        return 0

    cdef int peer_closed(self) except -1:
        """Close: the peer's close_notify has come."""
        self.call_eof_received()
        return self.start_shutdown()

    cdef int call_eof_received(self) except -1:
        if self.app_state != MADE:
            return 0
        self.app_state = ENDED
        try:
            if self.app_protocol.eof_received():
                logger.warning("returning true from eof_received() has no effect when using ssl")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self.fatal_error(exc, "Error calling eof_received()")
        return 0

    cdef int pause_app_reading(self) except -1:
        self.app_reading_paused = True
        return 0

    cdef int resume_app_reading(self) except -1:
        if self.app_reading_paused:
            self.app_reading_paused = False
            self.loop.call_soon(self._resume)
        return 0

    def _resume(self):
        if self.state != DO_HANDSHAKE:
            self.act()

    cdef int control_lower_reading(self) except -1:
        """Pause the transport below while much of what it has read waits here."""
        if self.lower is None:
            return 0
        if self.waiting_bytes >= self.read_high_bytes and not self.lower_reading_paused:
            self.lower_reading_paused = True
            self.lower.pause_reading()
        elif self.waiting_bytes <= self.read_low_bytes and self.lower_reading_paused:
            self.lower_reading_paused = False
            self.lower.resume_reading()
        return 0

    # --- writing

    cdef int write_plain(self, object data, const char *start, Py_ssize_t size_bytes) except -1:
        """`data` is the bytes object that `start` points into, None when what is queued must be copied."""
        if size_bytes == 0 or not self.is_writable():
            return 0
        try:
            self.take_write(data, start, size_bytes)
        except Exception as exc:
            self.fatal_error(exc, "Fatal error on SSL protocol")
        return 0

    cdef bint is_writable(self) except -1:
        if self.state in (DO_HANDSHAKE, WRAPPED):
            return True
        if self.conn_lost >= LOST_WRITES_BEFORE_WARNING:
            logger.warning("SSL connection is closed")
        self.conn_lost += 1
        return False

    cdef int take_write(self, object data, const char *start, Py_ssize_t size_bytes) except -1:
        cdef Py_ssize_t done_bytes = 0
        # Another transport than a Stream may call back between two pieces: what is written then goes behind this.
        if self.stream is not None and size_bytes >= RECORD_BYTES and self.state == WRAPPED and not self.backlog_bytes():
            done_bytes = self.write_large(start, size_bytes)
        if done_bytes < size_bytes and self.state in (DO_HANDSHAKE, WRAPPED):
            self.queue_plain(data, start, size_bytes, done_bytes)
        if self.state == WRAPPED and self.can_gather():
            self.is_gathering = True
            return self.stream.gather()
        return self.flush_backlog()

    cdef int queue_plain(self, object data, const char *start, Py_ssize_t size_bytes, Py_ssize_t done_bytes) except -1:
        if self.backlog is None:
            self.backlog = WriteQueue()
        if data is None:
            self.backlog.append(PyBytes_FromStringAndSize(start + done_bytes, size_bytes - done_bytes))
            return 0
        self.backlog.append(data)
        return self.backlog.consume(done_bytes) if done_bytes else 0

    cdef Py_ssize_t write_large(self, const char *start, Py_ssize_t size_bytes) except -1:
        """Encrypt and send without a copy, as far as the transport below is under its watermark. Return the bytes taken."""
        cdef Py_ssize_t some_bytes, done_bytes = 0
        while done_bytes < size_bytes and not self.lower_writing_paused and not self.is_busy:
            if self.state != WRAPPED:
                # failed, or aborted: nothing is kept
                return size_bytes
            some_bytes = self.encrypt(start + done_bytes, min(size_bytes - done_bytes, PIECE_BYTES))
            if some_bytes <= 0:
                break
            done_bytes += some_bytes
            self.send_output()
            if self.stream is not None and self.stream.conn_lost:
                return size_bytes
        return done_bytes

    cdef bint can_gather(self) noexcept:
        """Return whether the backlog may wait for the end of the callback: it is small, and one runs."""
        return (
            self.stream is not None
            # a program may have given the transport below another protocol
            and self.stream.layer is self
            and self.stream.io.ready.stamp_ns != 0
            and self.backlog_bytes() < min(self.high_bytes, <Py_ssize_t>RECORD_BYTES)
        )

    cdef Py_ssize_t backlog_bytes(self) noexcept:
        return 0 if self.backlog is None else <Py_ssize_t>self.backlog.size_bytes

    cdef int send_gathered(self) except -1:
        if not self.is_gathering:
            return 0
        try:
            self.flush_backlog()
        except Exception as exc:
            self.fatal_error(exc, "Fatal error on SSL protocol")
        return 0

    cdef int flush_backlog(self) except -1:
        """Write what may be written, and pause or resume the program's protocol."""
        self.do_write(False)
        return self.control_app_writing()

    cdef int do_write(self, bint whole) except -1:
        """Encrypt and send the backlog: the whole of it, or until the transport below is above its watermark."""
        if self.is_busy:
            return 0
        self.is_gathering = False
        while self.state in (WRAPPED, FLUSHING) and self.backlog_bytes() and (whole or not self.lower_writing_paused):
            if self.write_piece() <= 0 or (self.stream is not None and self.stream.conn_lost):
                break
            self.send_output()
        return self.send_output()

    cdef Py_ssize_t write_piece(self) except -2:
        """Encrypt a piece of the backlog: chunks that are small are put together in one record."""
        cdef iovec vector[VECTOR_SIZE]
        cdef char record[RECORD_BYTES]
        cdef size_t total_bytes
        cdef WriteQueue backlog = self.backlog
        cdef int count = backlog.fill(vector, VECTOR_SIZE, &total_bytes)
        cdef const char *start = <const char *>vector[0].iov_base
        cdef Py_ssize_t size_bytes = min(<Py_ssize_t>vector[0].iov_len, <Py_ssize_t>PIECE_BYTES)
        # stays alive if the engine's callbacks clear the backlog
        held = <object>backlog.chunks[backlog.head]
        if count > 1 and size_bytes < RECORD_BYTES:
            start, size_bytes = record, put_together(vector, count, record)
        size_bytes = self.encrypt(start, size_bytes)
        if size_bytes > 0 and <Py_ssize_t>backlog.size_bytes >= size_bytes:
            backlog.consume(size_bytes)
        return size_bytes

    cdef Py_ssize_t encrypt(self, const char *start, Py_ssize_t size_bytes) except -2:
        cdef Engine engine = self.engine
        self.is_busy = True
        try:
            return engine.write(start, size_bytes)
        finally:
            self.is_busy = False

    cdef int send_output(self) except -1:
        """Pass down what the engine has for the peer."""
        cdef Engine engine = self.engine
        cdef const char *start
        cdef Py_ssize_t size_bytes
        if self.is_busy or self.lower is None:
            return 0
        size_bytes = engine.output(&start)
        if self.stream is None:
            return self.pass_object_down(start, size_bytes)
        self.is_sending = True
        try:
            if size_bytes:
                self.pass_down(start, size_bytes)
        finally:
            self.is_sending = False
            engine.discard_output()
        return 0

    cdef int pass_object_down(self, const char *start, Py_ssize_t size_bytes) except -1:
        """Pass down to a transport of any kind, which may call back at once: nothing is left in the engine by then."""
        data = PyBytes_FromStringAndSize(start, size_bytes) if size_bytes else None
        self.engine.discard_output()
        if data is not None:
            self.lower.write(data)
        return 0

    cdef int pass_down(self, const char *start, Py_ssize_t size_bytes) except -1:
        if self.stream.queue.budget is not None or self.stream.timeouts is not None:
            self.count_move(size_bytes)
        return self.stream.write_bytes(None, start, size_bytes)

    cdef int count_move(self, Py_ssize_t size_bytes) except -1:
        """Count bytes no more that are about to count as the transport's: what encryption adds is no growth."""
        cdef Py_ssize_t moved_bytes = <Py_ssize_t>self.stream.layer_bytes - self.backlog_bytes()
        self.stream._count_layer(self.backlog_bytes(), True)
        if self.stream.queue.budget is not None and 0 < moved_bytes < size_bytes:
            self.stream.queue.account.accounted_bytes += size_bytes - moved_bytes
        return 0

    def _control_app_writing(self):
        # Not in the middle of a write, where the program could write between two parts of it: that ends with the same.
        if not self.is_sending:
            self.control_app_writing()

    cdef int control_app_writing(self) except -1:
        """Pause or resume the program's protocol by the size of the backlog."""
        cdef Py_ssize_t size_bytes = self.backlog_bytes()
        if self.stream is not None and (self.stream.queue.budget is not None or self.stream.timeouts is not None):
            self.count_backlog()
        if size_bytes >= self.high_bytes and not self.app_writing_paused:
            self.app_writing_paused = True
            return self.call_app("pause_writing")
        if size_bytes <= self.low_bytes and self.app_writing_paused:
            self.app_writing_paused = False
            return self.call_app("resume_writing")
        return 0

    cdef int count_backlog(self) except -1:
        """Count the backlog in the budget and the peer's timeouts. A budget's pause is one whatever the backlog's size."""
        cdef bint pauses
        self.stream._count_layer(self.backlog_bytes())
        pauses = self.stream is not None and self.stream.budget_pauses
        # before the handshake is done the program's protocol does not know the connection
        if pauses and self.kept_limits is None and self.state == WRAPPED:
            self.kept_limits = self.high_bytes, self.low_bytes
            self.high_bytes, self.low_bytes = 0, -1
        elif not pauses and self.kept_limits is not None:
            (self.high_bytes, self.low_bytes), self.kept_limits = self.kept_limits, None
        return 0

    cdef int call_app(self, str method) except -1:
        if self.app_protocol is None:
            return 0
        try:
            getattr(self.app_protocol, method)()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self.loop.call_exception_handler({
                "message": f"protocol.{method}() failed",
                "exception": exc,
                "transport": self.app_transport,
                "protocol": self,
            })
        return 0

    cdef int set_write_limits(self, object high, object low) except -1:
        high, low = watermarks(high, low, constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE * 1024)
        self.high_bytes, self.low_bytes = whole_bytes(high), whole_bytes(low)
        if self.kept_limits is not None:
            self.kept_limits = self.high_bytes, self.low_bytes
            self.high_bytes, self.low_bytes = 0, -1
        return 0

    cdef int set_read_limits(self, object high, object low) except -1:
        high, low = watermarks(high, low, constants.FLOW_CONTROL_HIGH_WATER_SSL_READ * 1024)
        self.read_high_bytes, self.read_low_bytes = whole_bytes(high), whole_bytes(low)
        return 0

    # --- closing

    cdef int start_shutdown(self) except -1:
        """Close: flush, send close_notify, and wait for the peer's."""
        if self.state not in (DO_HANDSHAKE, WRAPPED):
            return 0
        self.is_closed = True
        if self.state == DO_HANDSHAKE:
            return self.abort(None)
        self.state = FLUSHING
        self.shutdown_timer = self.loop.call_later(self.shutdown_timeout_s, self._check_shutdown_timeout)
        if self.is_busy:
            self.loop.call_soon(self._resume)
            return 0
        return self.do_flush()

    def _check_shutdown_timeout(self):
        if self.state in (FLUSHING, SHUTDOWN) and self.lower is not None:
            self.lower._force_close(asyncio.TimeoutError("SSL shutdown timed out"))

    cdef int do_flush(self) except -1:
        self.do_read()
        if self.state != FLUSHING or self.is_busy:
            return 0
        try:
            self.do_write(True)
        except Exception as exc:
            self.fatal_error(exc, "Fatal error on SSL protocol")
        if self.state != FLUSHING:
            return 0
        self.state = SHUTDOWN
        return self.do_shutdown()

    cdef int do_shutdown(self) except -1:
        cdef int result = 1
        if self.is_busy:
            return 0
        if not self.eof_read:
            self.is_busy = True
            try:
                result = self.engine.shut_down()
            except SSLError as exc:
                self.shutdown_timer = cancelled(self.shutdown_timer)
                return self.fatal_error(exc, "Fatal error on transport")
            finally:
                self.is_busy = False
        self.send_output()
        if result == WANTS_INPUT:
            return self.control_app_writing()
        self.call_eof_received()
        self.shutdown_timer = cancelled(self.shutdown_timer)
        if self.lower is not None:
            self.loop.call_soon(self.lower.close)
        return 0

    cdef int abort(self, object exc) except -1:
        """Close at once. What was written in this callback is sent, as asyncio has done by now."""
        self.send_gathered()
        self.is_closed = True
        self.state = UNWRAPPED
        if self.lower is not None:
            self.lower._force_close(exc)
        return 0

    cdef int fatal_error(self, object exc, str message) except -1:
        lower = self.lower
        self.is_gathering = False
        if lower is not None:
            lower._force_close(exc)
        if isinstance(exc, OSError):
            if self.loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=exc)
        elif not isinstance(exc, asyncio.CancelledError):
            self.loop.call_exception_handler(
                {"message": message, "exception": exc, "transport": lower, "protocol": self}
            )
        return 0

    # --- what programs and other parts ask for

    cdef object extra_info(self, object name, object default):
        if name == "sslcontext" and self.sslcontext is not None:
            return self.sslcontext
        if self.is_established and name in ("ssl_object", "peercert", "cipher", "compression"):
            return self.established_info(name)
        return default if self.lower is None else self.lower.get_extra_info(name, default)

    def established_info(self, name):
        """Return what is known since the handshake. Asked for once, and kept."""
        wrapped = self.engine.ssl_object
        if name == "ssl_object":
            return wrapped
        if self.known is None:
            self.known = {}
        if name not in self.known:
            self.known[name] = getattr(wrapped, "getpeercert" if name == "peercert" else name)()
        return self.known[name]

    @property
    def __class__(self):
        return TLSProtocol

    @property
    def overload_reply(self):
        """No bytes where the program's protocol has a reply: in TLS a client that is shed unread can only be closed."""
        return None if getattr(self.app_protocol, "overload_reply", None) is None else b""

    @property
    def _transport(self):
        return self.lower

    @property
    def _app_transport(self):
        return self.app_transport

    @property
    def _app_protocol(self):
        return self.app_protocol

    @property
    def _loop(self):
        return self.loop

    @property
    def _state(self):
        return STATES[self.state]

    @property
    def _app_reading_paused(self):
        return bool(self.app_reading_paused)

    @property
    def _sslobj(self):
        return self.engine.ssl_object

    @property
    def _outgoing_high_water(self):
        return self.high_bytes

    @property
    def _outgoing_low_water(self):
        return self.low_bytes


cdef object positive(str name, object timeout_s, object default):
    if timeout_s is None:
        return default
    if timeout_s <= 0:
        raise ValueError(f"{name} should be a positive number, got {timeout_s}")
    return timeout_s


cdef object cancelled(object timer):
    """Cancel a timer, if there is one. Return None."""
    if timer is not None:
        timer.cancel()
    return None


cdef Py_ssize_t put_together(iovec *vector, int count, char *record) noexcept:
    """Copy chunks one after the other, as far as a record has room. Return the number of bytes."""
    cdef Py_ssize_t some_bytes, size_bytes = 0
    cdef int i
    for i in range(count):
        some_bytes = min(<Py_ssize_t>vector[i].iov_len, RECORD_BYTES - size_bytes)
        memcpy(record + size_bytes, vector[i].iov_base, some_bytes)
        size_bytes += some_bytes
        if size_bytes == RECORD_BYTES:
            break
    return size_bytes
