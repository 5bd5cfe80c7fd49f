"""The listener: accepts connections in bounded batches and makes their transports, without a task for each.

It is watched level-triggered: what a batch leaves, the next poll reports. When the process is out of descriptors the
listener leaves the poller for a second, since the kernel would report it at once, again and again. Where connections
are bounded by anything it is starved meanwhile: whenever the loop gives a descriptor back, it accepts one.

While the loop is behind, an accepted connection is deferred: its transport is made when the reactor admits it, or
never. The transport of an urgent request is made at once.

Ownership: the server owns the listening socket, the listener a reference to it; an accepted descriptor is the
listener's until it is deferred, or its transport is made.
"""

import errno as errno_module
import socket
from asyncio.constants import ACCEPT_RETRY_DELAY
from asyncio.trsock import TransportSocket

from cpython.exc cimport PyErr_SetFromErrno
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.unistd cimport close

from penstock._core._sys.epoll cimport EPOLLIN
from penstock._core._sys.python cimport PyContext_Copy, PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from penstock._core._sys.socket cimport IPPROTO_TCP, SOCK_CLOEXEC, SOCK_NONBLOCK, accept4, sockaddr
from penstock._core.events.ready cimport push
from penstock._core.net.address cimport Peer, peer_name, protocol_of, reads_to_the_end, shorten
from penstock._core.net.clients cimport Clients
from penstock._core.net.deferred_accepts cimport AcceptingSource, shed_accept
from penstock._core.net.io_context cimport IOContext
from penstock._core.net.stream cimport Stream
from penstock._core.overload.shed_unread cimport ANSWERED, SILENT, next_of, replies_of
from penstock._core.overload.urgent cimport ORDINARY, URGENT, UNDECIDED

cdef enum:
    # As Linux numbers it; Python has no name for it. What is sent and not yet acknowledged the kernel keeps apart from it.
    TCP_NOTSENT_LOWAT = 25
    IPPROTO_MPTCP = 262
    UNSENT_BYTES = 128 * 1024

OUT_OF_RESOURCES = {errno_module.EMFILE, errno_module.ENFILE, errno_module.ENOBUFS, errno_module.ENOMEM}


cdef class Listener(AcceptingSource):
    """A listening stream socket in the poller."""

    def __init__(self, loop, IOContext io not None, sock, protocol_factory, server=None, context=None):
        self.loop, self.io, self.sock, self.server = loop, io, sock, server
        self.protocol_factory = protocol_factory
        self.fd = sock.fileno()
        clients = getattr(server, "_clients", None)
        self.clients = clients if isinstance(clients, Clients) else None
        self.gives_context = context is not None
        self.context = PyContext_CopyCurrent() if context is None else context
        self.is_plain = reads_to_the_end(self.fd)
        # Linux hands the options down to what is accepted: one call instead of one per connection.
        set_nodelay(sock)
        if io.budget is not None:
            bound_unsent(sock)

    def resume(self):
        """Accept connections; nothing changes if it does already, or if the socket is closed."""
        self.is_wanted = True
        self.enter()

    def pause(self):
        """Accept nothing until `resume`; the kernel's backlog fills meanwhile."""
        self.is_wanted = False
        self.leave()

    cdef int enter(self) except -1:
        if not self.is_accepting and not self.is_starved and self.sock.fileno() == self.fd:
            self.io.poller.add(self, EPOLLIN)
            self.is_accepting = True
            self.io.listeners.append(self)
        return 0

    cdef int leave(self) except -1:
        if self.is_accepting:
            self.is_accepting = False
            self.io.listeners.remove(self)
            self.io.poller.remove(self)
        return 0

    cdef int on_events(self, uint32_t events) except -1:
        if not self.is_queued:
            self.is_queued = True
            push(self.io.ready, self)
        return 0

    cdef int run(self) except -1:
        self.is_queued = False
        return self.accept_some()

    cdef int accept_some(self) except -1:
        cdef int i, most = self.next_batch()
        if self.io.defer_now >= 0 and self.server is not None:
            most = self.io.defer_now
        try:
            if self.is_starved:
                return self.accept_freed(most)
            for i in range(most):
                if not self.is_accepting or not self.accept_one():
                    break
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.report(exc)
        return 0

    cdef int next_batch(self) noexcept:
        """Return how many connections to accept: one, unless the poll before has found some too.

        The call that finds nothing more costs as much as an accept, and a level-triggered poll tells it for nothing.
        """
        cdef uint64_t former_poll = self.accepted_poll
        self.accepted_poll = self.io.poller.polls
        return min(self.io.accept_now, 1) if self.accepted_poll - former_poll > 1 else self.io.accept_now

    cdef int report(self, object exc) except -1:
        self.loop.call_exception_handler(
            {"message": "Exception in listener", "exception": exc, "socket": TransportSocket(self.sock)}
        )
        return 0

    cdef int accept_one(self) except -1:
        """Accept one connection. Return 1 if there was one."""
        cdef Peer peer
        peer.size_bytes = sizeof(peer.address)
        cdef int fd = accept4(self.fd, <sockaddr *>&peer.address, &peer.size_bytes, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd >= 0:
            if self.io.defer_now >= 0 and self.server is not None:
                return self.defer(fd, &peer)
            self.make_transport(fd, &peer, 0)
            return 1
        if errno not in (EAGAIN, EINTR, ECONNABORTED):
            self.accept_failed()
        elif self.is_starved and errno == EAGAIN:
            self.recover()
        return 0

    cdef int defer(self, int fd, Peer *peer) except -1:
        """Defer, shed or admit an accepted descriptor. Return 1 if there is room for more."""
        cdef int found = SILENT, kind = ORDINARY
        cdef bint is_full = self.reply is not None and self.io.is_backlog_full()
        if self.io.deferred_accepts.urgent is not None:
            kind = self.io.deferred_accepts.urgent.peek(fd)
        if kind == URGENT:
            self.make_transport(fd, peer, self.io.ready.stamp_ns)
            return 1
        if is_full and kind == ORDINARY:
            found = shed_accept(self.io.lingering, fd, self)
        if found != SILENT:
            self.io.shed_count += found == ANSWERED
            return 1
        self.io.deferred_accepts.add(self, fd, peer, self.io.ready.stamp_ns, is_full, kind == UNDECIDED)
        self.deferred_changed()
        return self.io.deferred_accepts.has_room()

    cdef int deferred_changed(self) except -1:
        if self.io.starved is not None:
            self.io.descriptor_freed()
        try:
            if self.on_deferred is not None:
                self.on_deferred()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.report(exc)
        return 0

    cdef int admit(self, int fd, Peer *peer, int64_t since_ns, bint has_data) except -1:
        try:
            self.make_transport(fd, peer, since_ns if has_data else 0)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.report(exc)
        return self.deferred_changed()

    def close_deferred(self):
        """Close the deferred accepts: they will not be served."""
        self.io.deferred_accepts.close_of(self)
        if self.io.starved is not None:
            self.io.descriptor_freed()

    @property
    def sheds_unread(self):
        """Whether a connection to a full backlog is shed at once."""
        return self.reply is not None

    cdef int make_transport(self, int fd, Peer *peer, int64_t deferred_since_ns) except -1:
        """Make protocol and transport, in a copy of the context in which the server was started."""
        cdef Stream stream = Stream.__new__(Stream)
        context = PyContext_Copy(self.context)
        if PyContext_Enter(<PyObject *>context) < 0:
            close(fd)
            return -1
        protocol = None
        try:
            protocol = self.protocol_factory()
            if self.io.counts_reads:
                self.read_reply(protocol)
            given = context if self.gives_context else None
            extra = None if shorten(peer, &stream.peer) else {"peername": peer_name(fd, peer)}
            stream.accept(self.loop, self.io, fd, protocol, extra, self.server, self.clients, given)
            stream.thorough, stream.deferred_since_ns = not self.is_plain, deferred_since_ns
        except BaseException as exc:
            # The descriptor is the transport's from the moment that it says it is open.
            if stream.is_open:
                stream.release()
                stream.end_service()
            else:
                close(fd)
            self.report_failure(protocol, exc)
        finally:
            PyContext_Exit(<PyObject *>context)
        return 0

    cdef int read_reply(self, object protocol) except -1:
        """Read the answer for connections that are shed before they have a protocol."""
        try:
            self.replies = replies_of(protocol)
            self.reply = next_of(self.replies)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.report(exc)
        return 0

    def report_failure(self, protocol, exc):
        """Report as asyncio does: the connection is closed, and only debug mode says why."""
        if isinstance(exc, (SystemExit, KeyboardInterrupt)):
            raise exc
        if self.loop.get_debug():
            context = {"message": "Error on transport creation for incoming connection", "exception": exc}
            if protocol is not None:
                context["protocol"] = protocol
            self.loop.call_exception_handler(context)

    cdef int accept_failed(self) except -1:
        try:
            PyErr_SetFromErrno(OSError)
        except OSError as exc:
            message = "socket.accept() failed"
            if exc.errno in OUT_OF_RESOURCES:
                message = "socket.accept() out of system resource"
            self.leave()
            if self.retry is None:
                # Told once a second, as asyncio's, however often a descriptor comes and goes.
                self.loop.call_exception_handler(
                    {"message": message, "exception": exc, "socket": TransportSocket(self.sock)}
                )
                self.retry = self.loop.call_later(ACCEPT_RETRY_DELAY, self._retry)
            if exc.errno in OUT_OF_RESOURCES and not self.is_starved and self.waits_for_descriptors():
                self.starve()
        return 0

    def _retry(self):
        self.retry = None
        if not self.loop.is_closed():
            self.recover()

    # --- out of descriptors

    cdef bint waits_for_descriptors(self) except -1:
        """Return whether the loop's connections have any limit: without one, asyncio's pause applies."""
        return (
            self.io.counts_reads
            or self.io.budget is not None
            or self.io.bounds is not None
            or getattr(self.server, "max_connections", None) is not None
        )

    cdef int starve(self) except -1:
        cdef bint gives_some = self.io.lingering.count > 0
        self.is_starved = True
        self.io.starved = [*(self.io.starved or ()), self]
        # lingering connections need theirs less
        self.io.lingering.forget()
        return self.on_events(0) if gives_some else 0

    cdef int recover(self) except -1:
        """Accept again, if the server wants it: there may be descriptors."""
        if self.is_starved:
            self.is_starved = False
            self.io.starved = [source for source in self.io.starved if source is not self] or None
        return self.enter() if self.is_wanted else 0

    cdef int accept_freed(self, int most) except -1:
        """Accept while there are descriptors and clients: a descriptor was released."""
        cdef int i
        for i in range(most):
            if not self.is_starved or not self.is_wanted or self.sock.fileno() != self.fd or not self.accept_one():
                break
        return 0


def set_nodelay(sock):
    """Send small writes at once, as asyncio does over TCP; other kinds of sockets have no such option."""
    if protocol_of(sock.fileno()) in (IPPROTO_TCP, IPPROTO_MPTCP):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def bound_unsent(sock):
    """Bound the unsent bytes in the kernel: it would take megabytes for a client that does not read."""
    if protocol_of(sock.fileno()) == IPPROTO_TCP:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)
