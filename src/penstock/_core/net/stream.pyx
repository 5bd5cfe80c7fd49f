"""The stream transport: TCP and Unix sockets, edge-triggered, registered once for their whole life.

Long because each way to read, to defer and to end a connection checks and sets the same flags of one object.

Reading. The kernel reports an edge when data or a FIN comes in; from then on it is ours to read until the socket is
dry. A read shorter than asked for proves that, and costs no second call, except where it proves nothing:
- the event carried a FIN, an error or a hang-up, which are found by reading on;
- urgent data stops a read at its mark (from then on the transport is `thorough`);
- other sockets than plain TCP's end a read earlier (`reads_to_the_end`): they are `thorough` from birth.
A FIN that arrives after the event was taken is an edge of its own. What is reported while reading is paused is kept in
`unread`; what the budget leaves goes to the end of the ready queue, so to the next turn.

While the loop is behind, an accepted connection is not read, for its data adds work. Its events are kept in `unread` and
its read is deferred until the reactor admits it; a client that leaves meanwhile costs no read. When the backlog is full it
is answered unread, if its protocol has an `overload_reply`. Data on the program's own connections completes work, and is
read.

Ownership: as `Transport`; the read context is the transport's own.
"""

import asyncio
from asyncio import futures
from asyncio.constants import _SendfileMode
from asyncio.log import logger
from os import strerror

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_Clear
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN
from libc.stdint cimport int64_t, uint32_t

from penstock._core._sys.epoll cimport EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
from penstock._core._sys.python cimport (
    PY_VECTORCALL_ARGUMENTS_OFFSET,
    PyBytes_AS_STRING,
    PyContext_Copy,
    PyContext_CopyCurrent,
    PyContext_Enter,
    PyContext_Exit,
    PyObject_VectorcallMethod,
    adopt_methods,
    drop_dict,
)
from penstock._core._sys.socket cimport (
    MSG_DONTWAIT,
    MSG_PEEK,
    SO_ERROR,
    SOL_SOCKET,
    getsockopt,
    receive,
    receive_into_both,
    recv,
    socklen_t,
)
from penstock._core.events.handle cimport Runnable
from penstock._core.events.ready cimport push
from penstock._core.net.address cimport reads_to_the_end
from penstock._core.net.buffers cimport ReadPool
from penstock._core.net.clients cimport Clients
from penstock._core.net.flow_control cimport FlowControlledTransport
from penstock._core.net.io_context cimport RECEIVE_BYTES, IOContext
from penstock._core.net.layer cimport Layer
from penstock._core.net.limited cimport LimitedTransport
from penstock._core.limits.peer_timeouts cimport note_read
from penstock._core.net.stream_feed cimport feed, has_asyncio_feed, reader_of, receive_for
from penstock._core.net.transport cimport Transport
from penstock._core.limits.wheel cimport WheelEntry
from penstock._core.net.writer cimport WriterTransport
from penstock._core.overload.shed_unread cimport drain, next_of, replies_of
from penstock._core.overload.urgent cimport URGENT

cdef enum:
    INTEREST = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET
    TO_READ = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLERR | EPOLLHUP
    TO_WRITE = EPOLLOUT | EPOLLERR | EPOLLHUP
    READ_ON = EPOLLRDHUP | EPOLLPRI | EPOLLERR | EPOLLHUP
    # After a read of this size the next goes straight into an object of its size: from here on copying costs more than
    # a vectored call.
    DIRECT_FROM_BYTES = 16 * 1024

cdef object BufferedProtocol = asyncio.BufferedProtocol
cdef str DATA_RECEIVED = "data_received"
cdef str BUFFER_UPDATED = "buffer_updated"

# `except -1`, but not looked at by Cython: a try block costs as much as a read's other steps.
ctypedef int (*Handling)(Stream stream, uint32_t events) noexcept
ctypedef int (*Lending)(object lender, Py_buffer *view) noexcept

# A client that shuts its side down right behind its request waits for the answer; so long after, it has given up.
cdef int64_t ABANDONED_AFTER_NS = 10_000_000


class StreamTransport(asyncio.transports._FlowControlMixin, asyncio.Transport):
    """The type that `transport.__class__` names: a native object cannot be laid out over asyncio.Transport's slots."""


@cython.final
cdef class Stream(WriterTransport):
    """A connected stream socket. `isinstance(transport, asyncio.Transport)` holds."""

    _start_tls_compatible = True
    _sendfile_compatible = _SendfileMode.TRY_NATIVE

    def __cinit__(self, *args, **kwargs):
        drop_dict(self)

    def __init__(self, loop, io, sock, int fd, protocol, waiter=None, extra=None, server=None, context=None, is_plain=False, is_ours=False):
        self.open(loop, io, sock, fd, extra, context, sock is not None and not is_ours)
        self.take_protocol(protocol)
        if server is not None:
            self.serve(server, None)
        # who has accepted or connected it knows that it is plain
        self.thorough = sock is not None and not is_plain and not reads_to_the_end(fd)
        self.connect_protocol()
        if waiter is not None:
            loop.call_soon(futures._set_result_unless_cancelled, waiter, None, context=context)

    cdef int accept(self, object loop, IOContext io, int fd, object protocol, object extra, object server, Clients clients, object context) except -1:
        """Begin as `__init__` does, over a descriptor that a listener has accepted."""
        self.open(loop, io, None, fd, extra, context, False)
        self.take_protocol(protocol)
        if server is not None:
            self.serve(server, clients)
        return self.connect_protocol()

    cdef int connect_protocol(self) except -1:
        """Schedule connection_made and, after it, the first read."""
        if self.io.budget is not None or self.io.bounds is not None:
            self.bind()
        self.soon(self.protocol.connection_made, self)
        return self.soon(start, self)

    cdef int take_protocol(self, object protocol) except -1:
        """Note the protocol, which gets the next event."""
        self.protocol, self.protocol_connected = protocol, True
        self.buffered = isinstance(protocol, BufferedProtocol)
        self.feeds = has_asyncio_feed(protocol)
        self.layer = protocol if isinstance(protocol, Layer) else None
        self.has_layer = self.layer is not None
        return 0

    cdef int begin(self) except -1:
        """Watch the socket, after connection_made, in the given context or in one of its own."""
        if self.is_open and not self.conn_lost:
            self.context = PyContext_CopyCurrent() if self.given_context is None else self.given_context
            self.io.poller.add(self, INTEREST)
            self.is_registered = True
        return 0

    def _attach(self):
        self.io.poller.add(self, INTEREST)
        self.is_registered = True

    def _detach(self):
        """Leave the poller to others (sendfile) until `_attach`, which reports anew what there is."""
        self.io.poller.remove(self)
        self.is_registered = False

    def _reattach(self):
        if self.is_open and not self.conn_lost:
            self._attach()

    cdef int on_events(self, uint32_t events) except -1:
        cdef uint32_t wanted
        if self.io.counts_reads and self.server is not None and events & TO_READ:
            if self.deferred_since_ns:
                return self.read_deferred_accept(events)
            self.io.reads_left -= 1
            if self.io.reads_left < 0:
                return self.defer(events)
        wanted = self.wanted_events(events)
        return self.enqueue(wanted) if wanted else 0

    cdef int defer(self, uint32_t events) except -1:
        """Handle events while the loop is behind: reads are deferred, writes are not."""
        cdef uint32_t wanted = self.wanted_events(events)
        if not wanted & TO_READ or (self.is_queued and self.deferred_read is NULL):
            return self.enqueue(wanted) if wanted else 0
        if self.is_abandoned(events):
            return self.close_unread()
        if events & EPOLLIN and self.is_urgent():
            return self.enqueue(wanted) if self.deferred_read is NULL else self.read_urgent(wanted)
        if self.deferred_read is NULL:
            if events & EPOLLRDHUP and self.is_empty():
                # its end alone: that is no work, and makes room
                return self.enqueue(wanted)
            if self.io.is_backlog_full() and self.shed():
                return 0
            self.io.deferred_reads.add(self, &self.deferred_read, self.io.ready.stamp_ns)
        self.unread |= wanted & TO_READ
        return self.enqueue(EPOLLOUT) if self.blocked and events & TO_WRITE else 0

    cdef bint is_urgent(self) noexcept:
        """Return whether its request is urgent. That is counted: the request must be admitted."""
        return self.io.deferred_accepts.urgent is not None and self.io.deferred_accepts.urgent.peek(self.fd) == URGENT

    cdef int read_urgent(self, uint32_t wanted) except -1:
        """Read a deferred request whose later bytes show that it is urgent."""
        self.unread |= wanted & TO_READ
        self.read_deferred()
        return self.enqueue(EPOLLOUT) if wanted & EPOLLOUT else 0

    cdef bint is_abandoned(self, uint32_t events) noexcept:
        """Return whether the client has left: it has reset, or was deferred and then shut down."""
        if events & EPOLLERR or self.deferred_read is NULL:
            return events & EPOLLERR != 0
        return self.io.closes_abandoned and events & EPOLLRDHUP and (
            self.io.ready.stamp_ns - self.deferred_read.since_ns >= ABANDONED_AFTER_NS
        )

    cdef bint is_empty(self) noexcept:
        cdef char peeked
        return recv(self.fd, &peeked, 1, MSG_PEEK | MSG_DONTWAIT) == 0

    cdef int close_unread(self) except -1:
        """End a connection whose client has left while it was deferred, without a read."""
        cdef int number = 0
        cdef socklen_t length = sizeof(number)
        self.io.deferred_reads.abandoned += 1
        getsockopt(self.fd, SOL_SOCKET, SO_ERROR, &number, &length)
        return self.lose(OSError(number, strerror(number)) if number else None)

    cdef bint shed(self) except -1:
        """Send the protocol's overload reply, unread, and close. Return False if the protocol has no such reply."""
        cdef bytes reply = self.overload_reply()
        if reply is None or not self.is_open or self.closing or self.conn_lost:
            return False
        if self.deferred_read is not NULL:
            self.io.deferred_reads.remove(self.deferred_read)
        drain(self.fd)
        self.io.shed_count += 1
        self.write(reply)
        self.linger()
        self.close()
        return True

    cdef object overload_reply(self):
        try:
            return next_of(replies_of(self.protocol))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.loop.call_exception_handler({
                "message": "protocol.overload_reply failed", "exception": exc, "transport": self, "protocol": self.protocol
            })
            return None

    cdef int read_deferred(self) except -1:
        """Read in this turn the data that was deferred."""
        cdef int64_t since_ns = self.deferred_read.since_ns
        self.io.deferred_reads.remove(self.deferred_read)
        if self.unread and self.can_read() and self.is_open and not self.conn_lost:
            self.enqueue_deferred(self.unread, since_ns)
            self.unread = 0
        return 0

    cdef int read_deferred_accept(self, uint32_t events) except -1:
        """Handle the first events of a connection that was a deferred accept: it has waited already."""
        cdef int64_t since_ns = self.deferred_since_ns
        cdef uint32_t wanted = self.wanted_events(events)
        self.deferred_since_ns = 0
        return self.enqueue_deferred(wanted, since_ns) if wanted else 0

    cdef int enqueue_deferred(self, uint32_t events, int64_t arrived_ns) except -1:
        self.pending |= events
        if not self.is_queued:
            self.is_queued = True
            push(self.io.ready, deferred_read_handle(self, arrived_ns))
        return 0

    def set_arrival(self, double arrived_s):
        """Set the context variable in the transport's own context; None without a variable, or if another thread runs there."""
        if self.io.arrival is None:
            return None
        try:
            return self.context.run(self.io.arrival.set, arrived_s)
        except RuntimeError:
            return None

    def _forget_arrival(self):
        self.details().pop("arrived_at", None)

    cdef int stop_io(self) except -1:
        if self.deferred_read is not NULL:
            self.io.deferred_reads.remove(self.deferred_read)
        return WriterTransport.stop_io(self)

    cdef int wanted_events(self, uint32_t events) except -1:
        """Return the events to handle now; reads that must wait are kept in `unread`."""
        cdef uint32_t wanted = 0
        if self.blocked:
            wanted = events & TO_WRITE
        if not events & TO_READ:
            return wanted
        if self.can_read():
            return wanted | (events & TO_READ)
        self.unread |= events & TO_READ
        return wanted

    cdef int enqueue(self, uint32_t events) except -1:
        self.pending |= events
        if not self.is_queued:
            self.is_queued = True
            push(self.io.ready, self)
        return 0

    cdef int run(self) except -1:
        cdef uint32_t events = self.pending
        self.pending, self.is_queued = 0, False
        if self.conn_lost or not self.is_open:
            return 0
        context = self.context
        if PyContext_Enter(<PyObject *>context) < 0:
            context = self.enter_copy()
        cdef int result = (<Handling>handle)(self, events)
        if result != 0:
            result = (<Handling>handle_failure)(self, events)
        PyContext_Exit(<PyObject *>context)
        return result

    cdef object enter_copy(self):
        """Return a copy of the transport's context, entered: another thread runs the context itself."""
        PyErr_Clear()
        context = PyContext_Copy(self.context)
        if PyContext_Enter(<PyObject *>context) < 0:
            pending_error()
        return context

    cdef int handling_failed(self, uint32_t events) except -1:
        """Handle the exception that is set; SystemExit and KeyboardInterrupt leave the loop."""
        try:
            pending_error()
        except (SystemExit, KeyboardInterrupt):
            # A later run finds the rest.
            if self.is_open:
                self.enqueue(events)
            raise
        except BaseException as exc:
            # As a handle's: whatever a protocol or a peer brings about, the loop goes on.
            self.loop.call_exception_handler({
                "message": "Exception in transport", "exception": exc, "transport": self, "protocol": self.protocol
            })
            # The events are gone, and perhaps bytes with them: the rest of the stream is worth nothing.
            self._force_close(exc)
        return 0

    cdef int handle_events(self, uint32_t events) except -1:
        if events & TO_READ:
            self.read_ready(events)
        if events & TO_WRITE and not self.conn_lost and self.is_open:
            self.blocked = False
            if self.queue.count:
                self.flush()
                self.drained()
        return 0

    @cython.final
    cdef bint can_read(self) noexcept:
        return not (self.paused or self.closing or self.eof_read or self.budget_pauses)

    cdef int read_ready(self, uint32_t events) except -1:
        """Read until the socket is dry or the budget is spent."""
        cdef Py_ssize_t budget_bytes = self.io.read_budget_bytes
        cdef Py_ssize_t got, asked = 0
        if events & EPOLLPRI:
            self.thorough = True
        while self.can_read() and not self.conn_lost:
            if budget_bytes <= 0:
                return self.enqueue(events | EPOLLIN)
            got = self.read_once(&asked)
            if got == 0:
                return 0
            budget_bytes -= got
            if got < asked:
                # More to find: next turn, as asyncio, so that a FIN never overtakes what its data set going.
                return self.enqueue(events) if self.thorough or events & READ_ON else 0
        self.unread |= events & TO_READ
        return 0

    cdef Py_ssize_t read_once(self, Py_ssize_t *asked) except -1:
        """Read and deliver once. Return the number of bytes; 0 if nothing more can be read now."""
        if self.buffered:
            return self.read_into(asked)
        if self.layer is not None:
            return self.read_layered(asked)
        if self.feeds:
            reader = reader_of(self.protocol)
            if reader is not None:
                return self.read_fed(reader, asked)
        if self.last_read_bytes >= DIRECT_FROM_BYTES:
            return self.read_direct(asked)
        return self.read_copied(asked)

    cdef Py_ssize_t read_layered(self, Py_ssize_t *asked) except -1:
        """Receive into the reactor's buffer, for a native layer."""
        cdef Layer layer = self.layer
        asked[0] = RECEIVE_BYTES
        cdef Py_ssize_t got = self.account_read(receive(self.fd, self.io.receive_buffer, RECEIVE_BYTES))
        if got:
            self.last_read_bytes = got
            try:
                layer.receive(self.io.receive_buffer, got)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self.fatal_error(exc, "Fatal error: protocol.buffer_updated() call failed.")
        return got

    cdef Py_ssize_t read_copied(self, Py_ssize_t *asked) except -1:
        """Receive into the reactor's buffer, and copy the bytes. Return their number."""
        asked[0] = RECEIVE_BYTES
        cdef Py_ssize_t room_bytes
        cdef Py_ssize_t got = self.account_read(receive(self.fd, self.io.receive_buffer, RECEIVE_BYTES))
        if got:
            self.last_read_bytes = got
            data = self.io.reads.copied(self.io.receive_buffer, got, &room_bytes)
            self.deliver(data)
            self.io.reads.keep(<PyObject *>data, room_bytes)
        return got

    cdef Py_ssize_t read_direct(self, Py_ssize_t *asked) except -1:
        """Receive into an object with room for as much as last time, and the rest into the reactor's buffer."""
        cdef ReadPool reads = self.io.reads
        cdef Py_ssize_t got, room_bytes
        # a protocol before this one may have read more at once
        data = reads.lend(min(self.last_read_bytes, <Py_ssize_t>RECEIVE_BYTES), &room_bytes)
        asked[0] = max(room_bytes, <Py_ssize_t>RECEIVE_BYTES)
        got = self.account_read(receive_into_both(
            self.fd, PyBytes_AS_STRING(data), room_bytes, self.io.receive_buffer, asked[0] - room_bytes
        ))
        self.last_read_bytes = got
        if got:
            data = reads.filled(data, self.io.receive_buffer, got, &room_bytes)
            self.deliver(data)
        reads.keep(<PyObject *>data, room_bytes)
        return got

    cdef Py_ssize_t read_fed(self, object reader, Py_ssize_t *asked) except -1:
        """Receive for asyncio's StreamReader, and feed it."""
        cdef char *received = self.io.receive_buffer
        cdef Py_ssize_t got = self.account_read(receive_for(reader, self.fd, &received, self.last_read_bytes, asked))
        if got:
            self.last_read_bytes = got
            self.is_first = self.gathers
            try:
                feed(reader, received, got)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self.fatal_error(exc, "Fatal error: protocol.data_received() call failed.")
        return got

    cdef Py_ssize_t read_into(self, Py_ssize_t *asked) except -1:
        """Straight into the buffer that a BufferedProtocol lends."""
        cdef Py_buffer view
        cdef Py_ssize_t got
        lender = self.protocol
        if (<Lending>borrow)(lender, &view) != 0:
            self.protocol_failed("Fatal error: protocol.get_buffer() call failed.")
            return 0
        if self.protocol is not lender or self.conn_lost or not self.is_open:
            # It has handed over, or ended, within get_buffer(): nothing is read for it. The next turn reads for the new one.
            PyBuffer_Release(&view)
            self.enqueue(EPOLLIN)
            return 0
        asked[0] = view.len
        got = receive(self.fd, view.buf, view.len)
        # Given back before the protocol hears of an end: it may resize its buffer there.
        PyBuffer_Release(&view)
        got = self.account_read(got)
        if got:
            self.last_read_bytes = got
            self.is_first = self.gathers
            if call_method(lender, BUFFER_UPDATED, got) < 0:
                self.protocol_failed("Fatal error: protocol.buffer_updated() call failed.")
        return got

    cdef int deliver(self, object data) except -1:
        self.is_first = self.gathers
        if call_method(self.protocol, DATA_RECEIVED, data) < 0:
            self.protocol_failed("Fatal error: protocol.data_received() call failed.")
        return 0

    cdef int protocol_failed(self, str message) except -1:
        """Handle the exception that a protocol has raised."""
        try:
            pending_error()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fatal_error(exc, message)
        return 0

    cdef Py_ssize_t account_read(self, Py_ssize_t got) except -1:
        """Account for the result of a receive. Return the bytes, or 0 for a dry, ended or failed socket, handled here."""
        if got > 0:
            if self.timeouts is not None:
                note_read(self.timeouts, self.stamp_ns(), self.io.turn, got)
            return got
        if got == 0:
            self.read_eof()
        elif got != -EAGAIN:
            number = <int>-got
            self.fatal_error(OSError(number, strerror(number)), "Fatal read error on socket transport")
        return 0

    cdef int read_eof(self) except -1:
        self.eof_read = True
        if self.loop.get_debug():
            logger.debug("%r received EOF", self)
        try:
            keep_open = self.protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            # As asyncio: a loop that runs again reads the end again.
            self.eof_read = False
            raise
        except BaseException as exc:
            self.fatal_error(exc, "Fatal error: protocol.eof_received() call failed.")
            return 0
        if not keep_open:
            self.close()
        return 0

    def set_protocol(self, protocol):
        """Switch to another protocol, buffered or not; the next event is its."""
        # what the layer before has kept back
        self.flush_gathered()
        WriterTransport.set_protocol(self, protocol)
        self.take_protocol(protocol)

    def is_reading(self):
        """Return whether data would be delivered."""
        return not self.closing and not self.paused

    def pause_reading(self):
        """Deliver nothing more until `resume_reading`; no system call."""
        if self.closing or self.paused:
            return
        self.paused = True
        self.unread |= self.pending & TO_READ
        self.pending &= ~<uint32_t>TO_READ
        if self.loop.get_debug():
            logger.debug("%r pauses reading", self)

    def resume_reading(self):
        """Deliver again, beginning with what came in meanwhile."""
        if self.closing or not self.paused:
            return
        self.paused = False
        self.continue_reading()
        if self.loop.get_debug():
            logger.debug("%r resumes reading", self)

    cdef int continue_reading(self) except -1:
        """Continue to read, with the events that came meanwhile, and start the peer's time anew."""
        if self.timeouts is not None:
            self.timeouts.restart(self.stamp_ns(), False)
        # a deferred read is admitted by the reactor
        if self.unread and self.is_registered and self.deferred_read is NULL and self.can_read():
            self.enqueue(self.unread)
            self.unread = 0
        return 0

    cdef int on_budget_pause(self) except -1:
        WriterTransport.on_budget_pause(self)
        if not self.budget_pauses:
            self.continue_reading()
        return 0

    cdef object protocol_context(self):
        # A copy: its own may be entered by another thread.
        return self.given_context if self.context is None else PyContext_Copy(self.context)

    cdef int flush_gathered(self) except -1:
        if self.layer is not None:
            self.layer.send_gathered()
        return WriterTransport.flush_gathered(self)

    def close(self):
        """Close once everything queued is sent; `connection_lost(None)` follows."""
        if self.closing:
            return
        if self.layer is not None:
            self.layer.send_gathered()
        self.flush()
        if self.conn_lost:
            return
        self.closing = True
        if not self.queue.count:
            self.lose(None)

    def linger(self):
        """Discard, once it is closed, what still comes: the peer reads what was sent to it, and is not reset.

        The connection is lost to its protocol as ever; its descriptor is kept for a while, see `lingering`.
        """
        self.lingers = True

    def __repr__(self):
        info = ["StreamTransport"]
        if not self.is_open:
            info.append("closed")
        elif self.closing:
            info.append("closing")
        info.append(f"fd={self.fd}")
        if self.is_open and not self.loop.is_closed():
            info.append(f"read={'polling' if self.is_registered and self.can_read() else 'idle'}")
            info.append(f"write=<{'polling' if self.queue.count else 'idle'}, bufsize={self.queue.size_bytes}>")
        return f"<{' '.join(info)}>"

    @property
    def __class__(self):
        return StreamTransport

    @property
    def _paused(self):
        return self.paused

    @property
    def _eof(self):
        return self.eof_written


cdef class DeferredReadHandle(Runnable):
    """A deferred read in the ready queue, in place of its transport: the protocol can learn when the data came.

    By the context variable, which tasks made meanwhile inherit, and by `get_extra_info("arrived_at")`, until the
    tasks that this read wakes have run.
    """

    cdef int run(self) except -1:
        cdef Stream stream = self.stream
        stream.details()["arrived_at"] = arrived_s = <double>self.arrived_ns / 1e9
        token = stream.set_arrival(arrived_s)
        try:
            return stream.run()
        finally:
            if token is not None:
                stream.context.run(stream.io.arrival.reset, token)
            if not stream.loop.is_closed():
                stream.loop.call_soon(stream._forget_arrival)

    def __repr__(self):
        return repr(self.stream)


cdef DeferredReadHandle deferred_read_handle(Stream stream, int64_t arrived_ns):
    cdef DeferredReadHandle late = DeferredReadHandle.__new__(DeferredReadHandle)
    late.stream, late.arrived_ns = stream, arrived_ns
    return late


def start(Stream stream not None):
    """The handle that runs between connection_made and the first read."""
    stream.begin()


cdef inline int pending_error() except -1:
    return -1


cdef int handle(Stream self, uint32_t events) except -1:
    return self.handle_events(events)


cdef int handle_failure(Stream self, uint32_t events) except -1:
    return self.handling_failed(events)


cdef int borrow(object lender, Py_buffer *view) except -1:
    """Borrow the buffer of a BufferedProtocol."""
    lent = lender.get_buffer(-1)
    if not len(lent):
        raise RuntimeError("get_buffer() returned an empty buffer")
    PyObject_GetBuffer(lent, view, PyBUF_WRITABLE)
    return 0


cdef inline int call_method(object receiver, str name, object argument) noexcept:
    """Call `receiver.name(argument)`. Return -1 with an exception set, which Cython does not look at."""
    cdef PyObject *args[2]
    cdef PyObject *result
    args[0], args[1] = <PyObject *>receiver, <PyObject *>argument
    Py_INCREF(receiver)
    result = PyObject_VectorcallMethod(<PyObject *>name, args, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
    Py_DECREF(receiver)
    if result is NULL:
        return -1
    Py_DECREF(<object>result)
    return 0


cdef int expire(IOContext io, int64_t turn_ns) except -1:
    """Check every connection whose timeout may have passed, and end lingering connections whose time is up."""
    cdef WheelEntry *due = io.wheel.pop(turn_ns)
    cdef Stream stream
    while due is not NULL:
        stream = <Stream>due.owner
        stream.check_timeouts()
        due = io.wheel.pop(turn_ns)
    return io.lingering.expire(turn_ns)


adopt_methods(Stream, WriterTransport)
adopt_methods(Stream, FlowControlledTransport)
adopt_methods(Stream, LimitedTransport)
adopt_methods(Stream, Transport)
