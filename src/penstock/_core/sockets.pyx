"""The system calls behind `sock_*`, made at once, and waited for where the kernel would block.

A function here makes its call and returns the result, or a call that is to be awaited and then has the result. The call
is made again in the step of the coroutine that awaits it: so one that is cancelled has taken nothing from the socket.
None is returned for everything that is not plain: a subclass of `socket.socket`, a socket with a timeout, an argument
of another type. Then asyncio's own code does the work, with its errors.

Ownership: a call owns its socket, and while it waits its future. The watch at the socket's descriptor owns the call
while it waits, and the coroutine that awaits it does too.
"""

import os
import socket

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.errno cimport EAGAIN, EALREADY, EINPROGRESS, EINTR, errno
from libc.string cimport memset
from posix.unistd cimport close

from penstock._core._sys.pysocket cimport PySocket, fields_of, socket_size
from penstock._core._sys.python cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyErr_CheckSignals,
    _PyBytes_Resize,
    new_bytes,
)
from penstock._core._sys.socket cimport (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    IPPROTO_TCP,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SO_ERROR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    accept4,
    getsockopt,
    in6_addr,
    inet_pton,
    receive as receive_now,
    send,
    sockaddr,
    sockaddr_storage,
    socklen_t,
)
from penstock._core.net.address cimport decode
from penstock._core.net.io_context cimport RECEIVE_BYTES, IOContext
from penstock._core.net.watch cimport WaitingCall, Watch, enter, leave, watch_at
from penstock._core.reactor cimport Reactor

cdef object Socket = socket.socket
# From here on a result is large: copying it would cost as much as receiving it.
cdef Py_ssize_t MUCH_BYTES = 16 * 1024
cdef int NUMBER_BYTES = sizeof(in6_addr)


cdef extern from *:
    """
    static unsigned int penstock_version(PyObject *type) { return ((PyTypeObject *)type)->tp_version_tag; }
    """
    # Another one after each change of the class; 0 for a class without one.
    unsigned int version_of "penstock_version"(object type_) noexcept


# --- sockets whose fields are read


cdef bint agrees(object sock, double seconds) except -1:
    """Return whether the fields of a socket with this timeout are what its methods answer."""
    cdef PySocket *fields = fields_of(sock)
    if (fields.fd, fields.family, fields.type, fields.proto) != (sock.fileno(), sock.family, sock.type, sock.proto):
        return False
    return fields.timeout_ns < 0 if seconds < 0 else fields.timeout_ns == <long long>(seconds * 1e9)


cdef bint knows_layout() except -1:
    """Return whether sockets have their fields where they are read."""
    if socket_size(socket.SocketType) < <Py_ssize_t>sizeof(PySocket):
        return False
    try:
        sample = Socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError:
        return False
    with sample:
        for seconds in (-1, 0, 2.5):
            sample.settimeout(None if seconds < 0 else seconds)
            if not agrees(sample, seconds):
                return False
    return fields_of(sample).fd == -1


cdef bint KNOWS_LAYOUT = knows_layout()


# The methods in whose place system calls are made. A program may replace them, to forbid connections or to count.
cdef tuple METHODS = tuple(
    (name, getattr(Socket, name))
    for name in ("accept", "connect", "connect_ex", "recv", "recv_into", "recvfrom", "recvfrom_into", "send", "sendto")
)
# The version of the class at which they were found to be Python's own; 0: they have to be looked at.
cdef unsigned int own_version = 0


cdef bint has_own_methods() except -1:
    """Return whether the methods of sockets are those of the import."""
    global own_version
    if own_version != 0 and version_of(Socket) == own_version:
        return True
    for name, method in METHODS:
        if getattr(Socket, name) is not method:
            return False
    own_version = version_of(Socket)
    return True


cdef inline bint is_plain(object sock) except -1:
    """Return whether it is Python's own socket, without a timeout."""
    return KNOWS_LAYOUT and type(sock) is Socket and fields_of(sock).timeout_ns == 0 and has_own_methods()


cdef bint takes_edges(PySocket *fields, bint writes) noexcept:
    """Return whether the kernel reports every change after which the call can succeed.

    An unconnected datagram socket may be writable while its peer has no room, and other kinds of sockets are not known.
    """
    if fields.type == SOCK_STREAM:
        return fields.family == AF_UNIX or (
            (fields.family == AF_INET or fields.family == AF_INET6) and (fields.proto == 0 or fields.proto == IPPROTO_TCP)
        )
    return fields.type == SOCK_DGRAM and not writes and fields.family in (AF_INET, AF_INET6, AF_UNIX)


# --- waiting


cdef class SocketCall(WaitingCall):
    """A call that the kernel would have blocked. `await` it, then read `result`."""

    cdef Reactor loop
    cdef object future
    cdef readonly object result
    cdef bint writes

    cdef bint attempt(self) except -1:
        """Make the call, and keep its result. Return whether it did not block."""
        raise NotImplementedError

    cdef int finish(self) except -1:
        """Leave the socket, and release what only a waiting call needs."""
        self.future = None
        return leave(self)

    cdef int run(self) except -1:
        """Wake the coroutine: the socket has had an event."""
        self.is_queued = False
        future = self.future
        try:
            if future is not None and not future.done():
                future.set_result(None)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.loop.call_exception_handler({"message": "Waking a socket call failed", "exception": exc})
        return 0

    def __await__(self):
        return self

    def __next__(self):
        if self.future is not None and self.step():
            raise StopIteration
        return self.wait()

    cdef bint step(self) except -1:
        """Try again. Return whether the call is done; its error is raised."""
        cdef bint is_done = True
        try:
            if not self.future.done():
                raise RuntimeError("await wasn't used with future")
            is_done = self.attempt()
        finally:
            if is_done:
                self.finish()
        return is_done

    cdef object wait(self):
        """Wait at the socket. Return the future of the next event."""
        cdef int fd = fields_of(self.sock).fd
        future = self.loop.create_future()
        try:
            if self.watch is None or self.watch.fd != fd:
                self.enter(fd)
        except BaseException:
            self.finish()
            raise
        self.future = future
        future._asyncio_future_blocking = True
        return future

    cdef int enter(self, int fd) except -1:
        leave(self)
        self.loop.check_open()
        cdef Watch watch = watch_at(self.loop.io, fd)
        if watch is None or not watch.is_kept_for(self.sock):
            self.loop._ensure_fd_no_transport(fd)
        self.takes_edges = takes_edges(fields_of(self.sock), self.writes)
        return enter(self.loop.io, self, fd, self.writes)

    def send(self, value):
        """Resume, as `next` does."""
        return self.__next__()

    def throw(self, kind, value=None, trace=None):
        """End the wait, and raise the exception in the coroutine."""
        self.finish()
        if value is None:
            value = kind() if isinstance(kind, type) else kind
        raise value if trace is None else value.with_traceback(trace)

    def close(self):
        """End the wait: the coroutine that awaited it is closed."""
        self.finish()

    def __repr__(self):
        return f"<{type(self).__name__} {self.sock!r}>"


cdef SocketCall begin(SocketCall call, Reactor loop, object sock, bint writes):
    call.loop, call.sock, call.writes = loop, sock, writes
    return call


cdef bint blocks(int number) except -1:
    """Return whether a system call with this error would have blocked; False: try again. Any other error is raised."""
    if number == EAGAIN:
        return True
    if number != EINTR:
        raise OSError(number, os.strerror(number))
    PyErr_CheckSignals()
    return False


# --- receiving


cdef object received(IOContext io, object sock, Py_ssize_t most_bytes):
    """Receive bytes. Return None if there are none yet."""
    cdef Py_ssize_t got = -1
    cdef PyObject *target = NULL
    while got < 0:
        if io.receives_much:
            got = receive_large(sock, most_bytes, &target)
        else:
            got = receive_now(fields_of(sock).fd, io.receive_buffer, most_bytes)
        if got < 0 and blocks(<int>-got):
            return None
    io.receives_much = got >= MUCH_BYTES
    if target is NULL:
        return PyBytes_FromStringAndSize(io.receive_buffer, got)
    result = <object>target
    Py_DECREF(result)
    return result


cdef Py_ssize_t receive_large(object sock, Py_ssize_t most_bytes, PyObject **target) except? -1:
    """Receive straight into new bytes, which the caller owns. Return their number or minus the error's."""
    cdef Py_ssize_t got
    cdef PyObject *made = new_bytes(NULL, most_bytes)
    if made is NULL:
        raise MemoryError
    got = receive_now(fields_of(sock).fd, PyBytes_AS_STRING(<object>made), most_bytes)
    if got < 0:
        Py_DECREF(<object>made)
        return got
    if got != most_bytes:
        _PyBytes_Resize(&made, got)
    target[0] = made
    return got


cdef class Receive(SocketCall):
    """A waiting `sock_recv`."""

    cdef Py_ssize_t most_bytes

    cdef bint attempt(self) except -1:
        self.result = received(self.loop.io, self.sock, self.most_bytes)
        return self.result is not None


def receive(Reactor loop not None, sock, size):
    """Receive at most `size` bytes. Return bytes, a call, or None if asyncio's code has to do it."""
    if not is_plain(sock) or type(size) is not int or not 0 < size <= RECEIVE_BYTES:
        return None
    got = received(loop.io, sock, size)
    if got is not None:
        return got
    cdef Receive call = Receive.__new__(Receive)
    call.most_bytes = size
    return begin(call, loop, sock, False)


cdef Py_ssize_t received_into(object sock, object buffer) except -2:
    """Receive into a buffer. Return the number of bytes, or -1 if there are none yet."""
    cdef Py_buffer view
    cdef Py_ssize_t got
    PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    try:
        while True:
            got = receive_now(fields_of(sock).fd, view.buf, view.len) if view.len else 0
            if got >= 0:
                return got
            if blocks(<int>-got):
                return -1
    finally:
        PyBuffer_Release(&view)


cdef class ReceiveInto(SocketCall):
    """A waiting `sock_recv_into`."""

    cdef object buffer

    cdef bint attempt(self) except -1:
        cdef Py_ssize_t got = received_into(self.sock, self.buffer)
        self.result = got
        return got >= 0

    cdef int finish(self) except -1:
        self.buffer = None
        return SocketCall.finish(self)


def receive_into(Reactor loop not None, sock, buffer):
    """Receive into a buffer. Return the number of bytes, a call, or None if asyncio's code has to do it."""
    if not is_plain(sock) or type(buffer) not in (bytearray, memoryview):
        return None
    cdef Py_ssize_t got
    try:
        got = received_into(sock, buffer)
    except (BufferError, ValueError):
        return None
    if got >= 0:
        return got
    cdef ReceiveInto call = ReceiveInto.__new__(ReceiveInto)
    call.buffer = buffer
    return begin(call, loop, sock, False)


# --- sending


cdef Py_ssize_t sent_from(object sock, Py_buffer *view, Py_ssize_t start) except -1:
    """Send what the kernel takes, from `start` bytes on. Return where it stopped."""
    cdef Py_ssize_t sent
    while True:
        sent = send(fields_of(sock).fd, <char *>view.buf + start, view.len - start, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent >= 0:
            start += sent
            if start >= view.len or sent == 0:
                return start
        elif blocks(errno):
            return start


cdef class SendAll(SocketCall):
    """A waiting `sock_sendall`. It holds the buffer, so that a bytearray cannot change its size."""

    cdef Py_buffer view
    cdef bint holds_view
    cdef Py_ssize_t start

    cdef bint attempt(self) except -1:
        self.start = sent_from(self.sock, &self.view, self.start)
        return self.start >= self.view.len

    cdef int finish(self) except -1:
        self.release()
        return SocketCall.finish(self)

    cdef int release(self) except -1:
        if self.holds_view:
            self.holds_view = False
            PyBuffer_Release(&self.view)
        return 0

    def __dealloc__(self):
        self.release()


def send_all(Reactor loop not None, sock, data):
    """Send all of `data`. Return True, a call, or None if asyncio's code has to do it."""
    cdef SendAll call
    cdef Py_buffer view
    cdef Py_ssize_t start
    if not is_plain(sock) or type(data) not in (bytes, bytearray, memoryview):
        return None
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        start = sent_from(sock, &view, 0)
        if start >= view.len:
            return True
    finally:
        PyBuffer_Release(&view)
    call = SendAll.__new__(SendAll)
    PyObject_GetBuffer(data, &call.view, PyBUF_SIMPLE)
    call.holds_view = True
    call.start = start
    return begin(call, loop, sock, True)


# --- connecting and accepting


cdef class Connect(SocketCall):
    """A waiting `sock_connect`."""

    cdef object address

    cdef bint attempt(self) except -1:
        cdef int number = 0
        cdef socklen_t length = sizeof(number)
        if getsockopt(fields_of(self.sock).fd, SOL_SOCKET, SO_ERROR, &number, &length) < 0:
            number = errno
            raise OSError(number, os.strerror(number))
        if number:
            raise OSError(number, f"Connect call failed {self.address}")
        return True


cdef bint is_numeric(object sock, object address) except -1:
    """Return whether a socket takes the address as it is, without a look-up."""
    cdef int family = fields_of(sock).family
    cdef char[16] number
    if family != AF_INET and family != AF_INET6:
        return True
    if type(address) is not tuple or len(address) != 2 or type(address[0]) is not str or type(address[1]) is not int:
        return False
    if fields_of(sock).type not in (SOCK_STREAM, SOCK_DGRAM) or not (<str>address[0]).isascii():
        return False
    text = (<str>address[0]).encode("ascii")
    return 0 not in text and 0 <= address[1] <= 0xFFFF and inet_pton(family, text, number) == 1


def needs_look_up(sock, address):
    """Return whether the address of a plain socket has to be looked up; None if asyncio's code has to connect."""
    return not is_numeric(sock, address) if is_plain(sock) else None


def connect(Reactor loop not None, sock, address):
    """Connect a plain socket to an address that was looked up. Return True or a call."""
    if begin_to_connect(sock, address):
        return True
    cdef Connect call = Connect.__new__(Connect)
    # as asyncio's look-up gives it
    is_short = fields_of(sock).family == AF_INET6 and len(address) == 2
    call.address = (*address, 0, 0) if is_short else address
    return begin(call, loop, sock, True)


cdef bint begin_to_connect(object sock, object address) except -1:
    """Return whether the socket is connected already."""
    cdef int number
    if fields_of(sock).family not in (AF_INET, AF_INET6) or not is_numeric(sock, address):
        try:
            sock.connect(address)
        except (BlockingIOError, InterruptedError):
            return False
        return True
    # no exception is made for what is usual
    number = sock.connect_ex(address)
    if number == 0:
        return True
    return number not in (EINPROGRESS, EALREADY, EINTR) and not blocks(number)


cdef object accepted(object sock):
    """Accept a connection. Return (socket, address), or None if there is none yet."""
    cdef sockaddr_storage address
    cdef socklen_t length
    cdef int fd = -1
    while fd < 0:
        length = sizeof(address)
        memset(&address, 0, sizeof(address))
        fd = accept4(fields_of(sock).fd, <sockaddr *>&address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd < 0 and blocks(errno):
            return None
    return new_connection(fields_of(sock), fd, &address, length)


cdef object new_connection(PySocket *listener, int fd, sockaddr_storage *address, socklen_t length):
    """Make the socket of an accepted descriptor, which does not block. Closes the descriptor if that fails."""
    try:
        name = decode(address, length)
        connection = Socket(listener.family, listener.type | SOCK_NONBLOCK, listener.proto, fd)
    except BaseException:
        close(fd)
        raise
    return connection, name


cdef class Accept(SocketCall):
    """A waiting `sock_accept`."""

    cdef bint attempt(self) except -1:
        self.result = accepted(self.sock)
        return self.result is not None


def accept(Reactor loop not None, sock):
    """Accept a connection. Return (socket, address), a call, or None if asyncio's code has to do it."""
    if not is_plain(sock) or fields_of(sock).family not in (AF_INET, AF_INET6, AF_UNIX):
        return None
    connection = accepted(sock)
    if connection is not None:
        return connection
    return begin(Accept.__new__(Accept), loop, sock, False)


# --- datagrams


cdef class MethodCall(SocketCall):
    """A waiting call of a socket's own method."""

    cdef object method
    cdef tuple args

    cdef bint attempt(self) except -1:
        try:
            self.result = self.method(*self.args)
        except (BlockingIOError, InterruptedError):
            return False
        return True

    cdef int finish(self) except -1:
        self.method = self.args = None
        return SocketCall.finish(self)


def call_method(Reactor loop not None, sock, str name, tuple args, bint writes):
    """Call a method of a plain socket. Return its result, a call, or None if asyncio's code has to do it."""
    if not is_plain(sock):
        return None
    cdef MethodCall call = MethodCall.__new__(MethodCall)
    call.method, call.args = getattr(sock, name), args
    begin(call, loop, sock, writes)
    return call.result if call.attempt() else call
