"""The datagram transport: UDP and Unix sockets, edge-triggered, with one `recvmmsg` for each turn.

Reading. The kernel reports an edge when datagrams come in; a call that brings fewer than asked for proves that none are
left. Each turn makes one call; a full one is followed by another in the next turn, so a busy socket delays others by no
more than one batch. All datagrams of a call are delivered in one callback. The protocol may close, abort or pause
meanwhile, or raise: what it then must not see yet is held, what it must never see is dropped.

Ownership: as `Transport`; the vector is the I/O context's, and lent to one transport while that delivers from it.
"""

import asyncio
import collections
from asyncio import futures
from asyncio.log import logger
from os import strerror

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EBADF, EMSGSIZE
from libc.stdint cimport uint32_t

from penstock._core._sys.datagram cimport UDP_GRO, UDP_SEGMENT, thread_ident
from penstock._core._sys.epoll cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from penstock._core._sys.python cimport (
    PY_VECTORCALL_ARGUMENTS_OFFSET,
    PyContext_Copy,
    PyContext_CopyCurrent,
    PyContext_Exit,
    PyObject_VectorcallMethod,
    adopt_methods,
    drop_dict,
)
from penstock._core._sys.socket cimport AF_UNIX, IPPROTO_UDP, setsockopt
from penstock._core.datagrams.sender cimport DatagramSender, enter
from penstock._core.datagrams.vector cimport LARGE_SLOT_BYTES, UDP_SLOT_BYTES, ReceiveVector, slots_of
from penstock._core.events.ready cimport push
from penstock._core.net.flow_control cimport FlowControlledTransport
from penstock._core.net.limited cimport LimitedTransport
from penstock._core.net.transport cimport Transport

cdef enum:
    TO_READ = EPOLLIN | EPOLLERR | EPOLLHUP
    TO_WRITE = EPOLLOUT | EPOLLERR | EPOLLHUP

cdef str DATAGRAM_RECEIVED = "datagram_received"
cdef object deque = collections.deque

# `except -1`, but not looked at by Cython: a try block costs as much as a read's other steps.
ctypedef int (*Handling)(DatagramEndpoint endpoint, uint32_t events) noexcept


class DatagramTransport(asyncio.transports._FlowControlMixin, asyncio.DatagramTransport):
    """The type that `transport.__class__` names: a native object cannot be laid out over asyncio's slots."""


@cython.final
cdef class DatagramEndpoint(DatagramSender):
    """A datagram socket. `isinstance(transport, asyncio.DatagramTransport)` holds."""

    def __cinit__(self, *args, **kwargs):
        drop_dict(self)

    def __init__(self, loop, io, sock, protocol, address=None, waiter=None, extra=None):
        self.open(loop, io, sock, sock.fileno(), extra, None, True)
        self.set_protocol(protocol)
        self.prepare(address)
        if self.io.datagrams is None:
            self.io.datagrams = ReceiveVector()
        self.vector = <ReceiveVector>self.io.datagrams
        self.slot_bytes = LARGE_SLOT_BYTES if self.family == AF_UNIX else UDP_SLOT_BYTES
        self.soon(protocol.connection_made, self)
        self.soon(start, self)
        if waiter is not None:
            loop.call_soon(futures._set_result_unless_cancelled, waiter, None)

    cdef int begin(self) except -1:
        """Watch the socket, after connection_made."""
        if self.is_open and not self.conn_lost:
            self.context = PyContext_CopyCurrent()
            self.thread_id = thread_ident()
            self.io.poller.add(self, self.interest())
            self.is_registered = True
        return 0

    # --- events

    cdef int on_events(self, uint32_t events) except -1:
        return self.enqueue(events)

    cdef int enqueue(self, uint32_t events) except -1:
        """Handle events in the next turn."""
        self.pending |= events
        if not self.is_queued:
            self.is_queued = True
            push(self.io.ready, self)
        return 0

    cdef int run(self) except -1:
        cdef uint32_t events = self.pending
        cdef int result
        self.pending, self.is_queued = 0, False
        if self.conn_lost or not self.is_open:
            return 0
        self.thread_id = thread_ident()
        context = enter(self.context)
        result = (<Handling>handle)(self, events)
        if result != 0:
            result = (<Handling>handle_failure)(self, events)
        if context is not None:
            PyContext_Exit(<PyObject *>context)
        return result

    cdef int handle_events(self, uint32_t events) except -1:
        if events & TO_READ:
            self.read_ready()
        if events & TO_WRITE and self.blocked and not self.conn_lost and self.is_open:
            self.unblock()
        return 0

    cdef int handling_failed(self, uint32_t events) except -1:
        """Handle the exception that is set; SystemExit and KeyboardInterrupt leave the loop."""
        try:
            pending_error()
        except (SystemExit, KeyboardInterrupt):
            # a later run finds the rest
            if self.is_open:
                self.enqueue(events)
            raise
        except BaseException as exc:
            self.fatal_error(exc, "Fatal read error on datagram transport")
        return 0

    # --- reading

    @cython.final
    cdef bint can_read(self) noexcept:
        return not (self.paused or self.closing or self.conn_lost or self.budget_pauses) and self.is_open

    cdef int read_ready(self) except -1:
        """Deliver what is held, or else one call's datagrams. Read on in the next turn if there may be more."""
        cdef int got, asked
        if not self.can_read():
            self.is_unread = True
            return 0
        if self.held is not None or self.vector.is_lent:
            self.enqueue(EPOLLIN)
            return self.deliver_held() if self.held is not None else 0
        asked = self.room()
        got = self.vector.receive(self.descriptor(), asked, self.slot_bytes, self.joins)
        if got == -EAGAIN:
            return 0
        if got >= asked or (got < 0 and got != -EBADF):
            self.enqueue(EPOLLIN)
        return self.deliver_received() if got >= 0 else self.report_error(OSError(-got, strerror(-got)))

    cdef int room(self) noexcept:
        """Return how many to ask for: two at least, so that fewer prove that none are left."""
        cdef size_t most = <size_t>self.io.read_budget_bytes // max(self.largest_bytes, <size_t>1)
        return min(max(most, <size_t>2), <size_t>slots_of(self.slot_bytes))

    cdef int deliver_received(self) except -1:
        """Deliver from the vector. The rest is held if the protocol pauses or raises, and dropped if it closes."""
        self.largest_bytes = self.vector.largest()
        self.vector.is_lent, self.gathers_all = True, self.vector.used > 1
        try:
            while self.vector.has_more() and self.can_read():
                self.deliver_next()
        finally:
            self.gathers_all = False
            try:
                self.hold_rest()
            finally:
                self.vector.is_lent = False
        return 0

    cdef int deliver_next(self) except -1:
        cdef size_t size_bytes
        cdef Py_ssize_t room_bytes
        cdef const char *start
        if self.vector.is_cut_off():
            return self.skip_cut_off()
        name = self.name_of_next()
        start = self.vector.next(&size_bytes)
        data = self.io.reads.copied(start, size_bytes, &room_bytes)
        self.deliver(data, name)
        self.io.reads.keep(<PyObject *>data, room_bytes)
        return 0

    cdef object name_of_next(self):
        """Return the name of the next datagram's sender."""
        cdef int at = self.vector.at
        return self.names.name_of(<const char *>&self.vector.names[at], self.vector.messages[at].msg_hdr.msg_namelen)

    cdef int skip_cut_off(self) except -1:
        """Report a datagram whose end is lost: it is worth nothing."""
        self.vector.at += 1
        return self.report_cut_off()

    cdef int report_cut_off(self) except -1:
        return self.report_error(OSError(EMSGSIZE, f"a datagram of more than {self.slot_bytes} bytes was cut off"))

    cdef int hold_rest(self) except -1:
        """Keep what the vector still has, unless the transport is closing: another may use it."""
        cdef size_t size_bytes
        cdef const char *start
        if not self.vector.has_more() or self.closing or self.conn_lost or not self.is_open:
            return 0
        held = self.held = deque()
        while self.vector.has_more():
            if self.vector.is_cut_off():
                self.vector.at += 1
                held.append((None, None))
                continue
            name = self.name_of_next()
            start = self.vector.next(&size_bytes)
            held.append((start[:size_bytes], name))
        self.is_unread = True
        return 0

    cdef int deliver_held(self) except -1:
        """Deliver what was held."""
        held = self.held
        try:
            while held and self.can_read():
                data, name = held.popleft()
                if data is None:
                    self.report_cut_off()
                else:
                    self.deliver(data, name)
        finally:
            if not held:
                self.held = None
        return 0

    cdef int deliver(self, object data, object name) except -1:
        if call_method(self.protocol, DATAGRAM_RECEIVED, data, name) < 0:
            return self.protocol_failed()
        return 0

    cdef int protocol_failed(self) except -1:
        """Handle the exception that a protocol has raised: the transport goes on, as asyncio's."""
        try:
            pending_error()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.loop.call_exception_handler({
                "message": "protocol.datagram_received() failed",
                "exception": exc,
                "transport": self,
                "protocol": self.protocol,
            })
        return 0

    def is_reading(self):
        """Return whether datagrams would be delivered."""
        return not self.closing and not self.paused

    def pause_reading(self):
        """Deliver nothing more until `resume_reading`; no system call."""
        if self.closing or self.paused:
            return
        self.paused = True
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
        if self.is_unread and self.is_registered and self.can_read():
            self.is_unread = False
            self.enqueue(EPOLLIN)
        return 0

    cdef int on_budget_pause(self) except -1:
        DatagramSender.on_budget_pause(self)
        if not self.budget_pauses:
            self.continue_reading()
        return 0

    cdef object protocol_context(self):
        # a copy: its own may be entered by another thread
        return None if self.context is None else PyContext_Copy(self.context)

    # --- the kernel's own splitting and joining

    def segment_datagrams(self, int segment_bytes):
        """Have the kernel split what is sent into datagrams of `segment_bytes`, and join what is received for one call.

        Each datagram is delivered by itself all the same. 0 ends it. Return whether the kernel splits.
        """
        if self.family == AF_UNIX or not self.is_open:
            return False
        self.flush_gathered()
        if self.set_option(UDP_SEGMENT, segment_bytes) < 0:
            return False
        self.joins = self.set_option(UDP_GRO, segment_bytes != 0) == 0 and segment_bytes != 0
        return True

    cdef int set_option(self, int option, int value) except -2:
        return setsockopt(self.descriptor(), IPPROTO_UDP, option, &value, sizeof(value))

    # --- the end

    def close(self):
        """Close once everything queued is sent; `connection_lost(None)` follows."""
        if self.closing:
            return
        self.flush_gathered()
        if self.closing or self.conn_lost:
            return
        self.closing, self.held = True, None
        if not self.waiting.count:
            self.lose(None)

    cdef int stop_io(self) except -1:
        self.held = None
        return DatagramSender.stop_io(self)

    def __repr__(self):
        info = ["DatagramTransport"]
        if not self.is_open:
            info.append("closed")
        elif self.closing:
            info.append("closing")
        info.append(f"fd={self.fd}")
        if self.is_open and not self.loop.is_closed():
            info.append(f"read={'polling' if self.is_registered and self.can_read() else 'idle'}")
            info.append(f"write=<{'polling' if self.blocked else 'idle'}, bufsize={self.waiting.size_bytes}>")
        return f"<{' '.join(info)}>"

    @property
    def __class__(self):
        return DatagramTransport

    @property
    def _paused(self):
        return self.paused

    @property
    def _address(self):
        return self.address


def start(DatagramEndpoint endpoint not None):
    """The handle that runs between connection_made and the first read."""
    endpoint.begin()


cdef inline int pending_error() except -1:
    """Raise the exception that is set."""
    return -1


cdef int handle(DatagramEndpoint self, uint32_t events) except -1:
    return self.handle_events(events)


cdef int handle_failure(DatagramEndpoint self, uint32_t events) except -1:
    return self.handling_failed(events)


cdef inline int call_method(object receiver, str name, object first, object second) noexcept:
    """Call `receiver.name(first, second)`. Return -1 with an exception set, which Cython does not look at."""
    cdef PyObject *args[3]
    cdef PyObject *result
    args[0], args[1], args[2] = <PyObject *>receiver, <PyObject *>first, <PyObject *>second
    Py_INCREF(receiver)
    result = PyObject_VectorcallMethod(<PyObject *>name, args, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
    Py_DECREF(receiver)
    if result is NULL:
        return -1
    Py_DECREF(<object>result)
    return 0


adopt_methods(DatagramEndpoint, DatagramSender)
adopt_methods(DatagramEndpoint, FlowControlledTransport)
adopt_methods(DatagramEndpoint, LimitedTransport)
adopt_methods(DatagramEndpoint, Transport)
