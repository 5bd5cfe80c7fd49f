"""The base of native transports: a descriptor with a protocol, and the ways it ends.

Ownership: a transport owns its descriptor until `release`, unless a Python socket over it exists: then the socket
owns it, and the transport the socket. The poller's table keeps an open transport alive, as asyncio's selector does.
"""

import socket
import sys
import warnings
from asyncio.log import logger
from asyncio.trsock import TransportSocket

from cpython.object cimport PyObject
from posix.unistd cimport close

from penstock._core.net.address cimport long_name, name_of, peer_of
from penstock._core.net.clients cimport Clients, ServedSource
from penstock._core.net.io_context cimport IOContext

# asyncio's Server counts its transports; from 3.13 on it knows them.
cdef bint SERVER_TAKES_TRANSPORT = sys.version_info >= (3, 13)


cdef extern from *:
    Py_ssize_t reference_count "Py_REFCNT"(PyObject *object) noexcept

# A fork duplicates every descriptor: in the child for it, in the parent for a connection that it closes. Counted in both,
# also where C code forks.
cdef extern from *:
    """
    #include <pthread.h>
    static unsigned int penstock_forks = 0;
    static void penstock_count_fork(void) { penstock_forks++; }
    static int penstock_watch_forks(void) { return pthread_atfork(NULL, penstock_count_fork, penstock_count_fork); }
    """
    unsigned int forks "penstock_forks"
    int watch_forks "penstock_watch_forks"() noexcept

if watch_forks() != 0:
    raise MemoryError


cdef class Transport(ServedSource):
    """The base of native transports; made by the loop, never by users."""

    def __init__(self, loop, IOContext io not None, sock, int fd, protocol, extra=None, server=None, context=None):
        self.open(loop, io, sock, fd, extra, context, sock is not None)
        self.set_protocol(protocol)
        if server is not None:
            self.serve(server, None)

    cdef int open(self, object loop, IOContext io, object sock, int fd, object extra, object context, bint is_shared) except -1:
        """Take over a connected descriptor."""
        self.is_shared = is_shared
        self.given_context = context
        self.loop, self.io, self.sock = loop, io, sock
        self.fd = fd
        self.forks_seen = forks
        self.is_open = True
        return self.note_names(extra)

    cdef int serve(self, object server, Clients clients) except -1:
        """Become a connection of the server; `clients` are its clients, None if it keeps them in its own way."""
        self.server = server
        if clients is None:
            return attach(server, self)
        if server._sockets is None:
            raise AssertionError("the server is closed")
        self.join(clients)
        return clients.notify()

    cdef int end_service(self) except -1:
        """Be a connection of the server no more."""
        cdef Clients clients = self.part()
        server, self.server = self.server, None
        if server is None:
            return 0
        if clients is None:
            return detach(server, self)
        if not len(clients) and server._sockets is None:
            server._wakeup()
        return clients.notify()

    def __del__(self):
        if not self.is_open:
            # what runs while it is freed must not find it among the clients
            self.part()
            return
        try:
            # raises where warnings are errors
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
        finally:
            self.release()
            self.end_service()

    cdef int note_names(self, extra) except -1:
        """Note what the loop has given, and the addresses: in their short form, which takes a dozenth of the memory.

        The local name can be asked for as long as the descriptor is open, which nothing but the transport closes unless
        it is shared.
        """
        cdef dict noted = None
        self.is_unnamed = True
        if extra is None and self.peer.family and not self.is_shared:
            return 0
        noted = self.extra = dict(extra or {})
        if self.is_shared:
            self.ask_name()
        if not self.peer.family and "peername" not in noted:
            peer = peer_of(self.fd, &self.peer)
            if not self.peer.family:
                noted["peername"] = peer
        self.extra = noted or None
        return 0

    cdef int ask_name(self) except -1:
        """Ask the kernel for the local name, once."""
        if not self.is_unnamed:
            return 0
        self.is_unnamed = False
        local = name_of(self.fd, &self.local) if self.is_open else None
        if not self.local.family:
            self.extra = {} if self.extra is None else self.extra
            self.extra.setdefault("sockname", local)
        return 0

    cdef dict details(self):
        """Return all that `get_extra_info` knows but the socket, the addresses in full."""
        self.ask_name()
        if self.extra is None:
            self.extra = {}
        self.spell_names()
        return self.extra

    cdef int spell_names(self) except -1:
        """Put the known addresses into `extra`, in full."""
        if self.local.family:
            self.extra.setdefault("sockname", long_name(&self.local))
            self.local.family = 0
        if self.peer.family:
            self.extra["peername"] = long_name(&self.peer)
            self.peer.family = 0
        return 0

    cdef int stop_io(self) except -1:
        """Stop all I/O, for the transport closes at once; queued writes are lost."""
        return 0

    cdef int lose(self, object exc) except -1:
        """Schedule connection_lost; nothing is read or written from here on."""
        self.closing = True
        self.conn_lost += 1
        self.stop_io()
        return self.soon(self._call_connection_lost, exc)

    cdef int soon(self, object callback, object argument) except -1:
        self.loop.call_soon(callback, argument, context=self.given_context)
        return 0

    cdef int lost(self, object exc) except -1:
        """Notify the protocol of the lost connection, and release everything."""
        if exc is not None:
            self.lingers = False
        try:
            if self.protocol_connected and self.protocol is not None:
                self.protocol.connection_lost(exc)
        finally:
            # before the release, which knows by references whether anything can ask for the name
            self.protocol = None
            self.release()
            self.end_service()
        return 0

    cdef int fatal_error(self, object exc, str message) except -1:
        if not isinstance(exc, OSError):
            self.loop.call_exception_handler(
                {"message": message, "exception": exc, "transport": self, "protocol": self.protocol}
            )
        elif self.loop.get_debug():
            logger.debug("%r: %s", self, message, exc_info=exc)
        if not self.conn_lost:
            self.lose(exc)
        return 0

    cdef int release(self) except -1:
        """Close the descriptor, which takes it out of the kernel's interest list unless a duplicate lives on.

        There may be one where the program has the socket, to duplicate it or to send it elsewhere, and after a fork.
        """
        if not self.is_open:
            return 0
        self.lingers = self.lingers and self.forks_seen == forks and self.io.starved is None
        if self.is_shared or self.forks_seen != forks or self.lingers:
            self.io.poller.remove(self)
        else:
            self.io.poller.forget(self)
        if reference_count(<PyObject *>self) > 1:
            # beside the caller somebody has it, and may ask when it is closed
            self.ask_name()
        self.is_open = False
        self.give_back()
        if self.io.starved is not None:
            self.io.descriptor_freed()
        return 0

    cdef int give_back(self) except -1:
        cdef int fd = self.fd
        if self.lingers:
            if self.sock is not None:
                fd = self.sock.detach()
            if fd >= 0:
                self.io.lingering.add(fd)
        elif self.sock is None:
            close(fd)
        else:
            self.sock.close()
        return 0

    cdef object python_socket(self):
        self.is_shared = True
        if self.sock is None:
            if self.is_open:
                self.sock = socket.socket(fileno=self.fd)
                self.sock.setblocking(False)
            else:
                self.sock = socket.socket()
                self.sock.close()
        return self.sock

    def get_extra_info(self, name, default=None):
        """`socket`, `sockname`, `peername`, and what the loop or a wrapping layer has added."""
        if name == "socket":
            sock = self.python_socket()
            if "socket" not in self.details():
                self.extra["socket"] = TransportSocket(sock)
        elif name == "peername" and self.peer.family:
            return long_name(&self.peer)
        elif name == "sockname":
            self.ask_name()
            if self.local.family:
                return long_name(&self.local)
        return default if self.extra is None else self.extra.get(name, default)

    def get_protocol(self):
        """The current protocol."""
        return self.protocol

    def set_protocol(self, protocol):
        """Switch to another protocol; the next event is its."""
        self.protocol = protocol
        self.protocol_connected = True

    def is_closing(self):
        """Return whether the transport is closing or closed."""
        return self.closing

    def abort(self):
        """Close at once: queued writes are lost, `connection_lost(None)` follows."""
        self._force_close(None)

    def _force_close(self, exc):
        self.lingers = False
        if not self.conn_lost:
            self.lose(exc)

    def _fatal_error(self, exc, message="Fatal error on transport"):
        self.fatal_error(exc, message)

    def _call_connection_lost(self, exc):
        self.lost(exc)

    @property
    def _extra(self):
        self.get_extra_info("socket")
        return self.details()

    @property
    def _loop(self):
        return self.loop

    @property
    def _sock(self):
        return self.python_socket() if self.is_open else None

    @property
    def _sock_fd(self):
        return self.fd

    @property
    def _protocol(self):
        return self.protocol

    @property
    def _server(self):
        return self.server

    @property
    def _closing(self):
        return self.closing

    @property
    def _conn_lost(self):
        return self.conn_lost


cdef int attach(object server, object transport) except -1:
    if SERVER_TAKES_TRANSPORT:
        server._attach(transport)
    else:
        server._attach()
    return 0


cdef int detach(object server, object transport) except -1:
    if SERVER_TAKES_TRANSPORT:
        server._detach(transport)
    else:
        server._detach()
    return 0
