"""The TLS engine over `SSLContext.wrap_bio`: an SSLObject between two memory BIOs.

A memory BIO keeps the memory that it once needed. So bytes go through it in pieces of about a record, however many come
at once, and an idle connection keeps no more than that.

The bounds of records are followed: OpenSSL is asked only when a whole record is there, since its answer that it wants
more is an exception.

Ownership: the engine owns its SSLObject and both BIOs. Views of foreign memory are released before a call returns.
"""

try:
    import ssl
except ImportError:
    ssl = None

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from libc.string cimport memcpy

from penstock._core._sys.python cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from penstock._core.tls.engine cimport WANTS_INPUT, Engine

cdef enum:
    HEADER_BYTES = 5
    RECORD_BYTES = 16 * 1024
    # A record of that size with its header and whatever its cipher adds; OpenSSL takes no larger one.
    PIECE_BYTES = HEADER_BYTES + RECORD_BYTES + 2048

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char *start, Py_ssize_t size_bytes, int flags)

# As asyncio: both mean that the peer's next bytes are needed.
cdef tuple WANT_ERRORS = () if ssl is None else (ssl.SSLWantReadError, ssl.SSLSyscallError)
cdef tuple METHODS = ("read", "write", "pending", "do_handshake", "unwrap")


cdef MemoryEngine memory_engine(object context, bint server_side, object server_hostname):
    """Make an engine. Raises what `wrap_bio` raises."""
    cdef MemoryEngine engine = MemoryEngine.__new__(MemoryEngine)
    engine.incoming, engine.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    wrapped = context.wrap_bio(
        engine.incoming, engine.outgoing, server_side=server_side, server_hostname=server_hostname
    )
    engine.ssl_object = wrapped
    engine.is_foreign = has_own_methods(wrapped)
    engine.sslobj = wrapped if engine.is_foreign else wrapped._sslobj
    return engine


cdef bint has_own_methods(object wrapped) except -1:
    """Return whether an SSLObject has other methods than ssl's own."""
    if not isinstance(wrapped, ssl.SSLObject) or type(wrapped).__getattribute__ is not object.__getattribute__:
        return True
    own = vars(wrapped)
    return any([name in own or getattr(type(wrapped), name) is not getattr(ssl.SSLObject, name) for name in METHODS])


cdef class MemoryEngine(Engine):
    """One side of a TLS connection over memory BIOs."""

    cdef int feed(self, const char *data, Py_ssize_t size_bytes) except -1:
        self.settle()
        self.fed, self.fed_bytes = data, size_bytes
        self.is_dry = False
        return 0

    cdef int settle(self) except -1:
        return self.pass_on(self.fed_bytes) if self.fed_bytes else 0

    cdef int feed_eof(self) except -1:
        self.settle()
        self.incoming.write_eof()
        return 0

    cdef int pass_on(self, Py_ssize_t most_bytes) except -1:
        """Put some of the fed bytes into the BIO."""
        cdef Py_ssize_t size_bytes = min(most_bytes, self.fed_bytes)
        cdef const char *start = self.fed
        self.fed, self.fed_bytes = start + size_bytes, self.fed_bytes - size_bytes
        self.follow_records(start, size_bytes)
        view = PyMemoryView_FromMemory(<char *>start, size_bytes, PyBUF_READ)
        try:
            self.incoming.write(view)
        finally:
            view.release()
        return 0

    cdef int follow_records(self, const char *data, Py_ssize_t size_bytes) noexcept:
        """Note where the last record ends."""
        cdef Py_ssize_t step_bytes
        while size_bytes > 0:
            if self.known_bytes < HEADER_BYTES:
                step_bytes = min(size_bytes, HEADER_BYTES - self.known_bytes)
                memcpy(self.header + self.known_bytes, data, step_bytes)
                self.record_bytes = HEADER_BYTES + (self.header[3] << 8) + self.header[4]
            else:
                step_bytes = min(size_bytes, self.record_bytes - self.known_bytes)
            self.known_bytes += step_bytes
            data += step_bytes
            size_bytes -= step_bytes
            if self.known_bytes >= HEADER_BYTES and self.known_bytes == self.record_bytes:
                self.known_bytes = 0
        return 0

    cdef bint is_known_record(self) noexcept:
        """Return whether the unfinished record may be one of TLS: OpenSSL refuses another one by its header."""
        return self.known_bytes < HEADER_BYTES or (
            20 <= self.header[0] <= 24 and self.header[1] == 3 and self.record_bytes <= PIECE_BYTES
        )

    cdef bint has_record(self) except -1:
        """Return whether the BIO has more than the beginning of a record."""
        cdef Py_ssize_t pending_bytes = self.incoming.pending
        return pending_bytes > self.known_bytes or (pending_bytes > 0 and not self.is_known_record())

    cdef bint has_plaintext(self) except -1:
        if self.is_foreign:
            return not self.is_dry
        while not (self.has_record() or self.sslobj.pending()):
            if not self.fed_bytes:
                return False
            self.pass_on(PIECE_BYTES)
        return True

    cdef Py_ssize_t output(self, const char **start) except -1:
        cdef bytes last
        if self.taken is None:
            last = self.outgoing.read()
            self.taken = last if self.pieces is None else b"".join([*self.pieces, last])
            self.pieces = None
        start[0] = PyBytes_AS_STRING(self.taken)
        return PyBytes_GET_SIZE(self.taken)

    cdef int discard_output(self) except -1:
        self.taken = None
        return 0

    cdef int handshake(self) except -2:
        self.settle()
        try:
            self.sslobj.do_handshake()
        except WANT_ERRORS:
            return WANTS_INPUT
        return 1

    cdef int shut_down(self) except -2:
        self.settle()
        try:
            if self.is_foreign:
                self.sslobj.unwrap()
            else:
                self.sslobj.shutdown()
        except WANT_ERRORS:
            return WANTS_INPUT
        return 1

    cdef Py_ssize_t read(self, char *into, Py_ssize_t most_bytes) except -2:
        cdef Py_ssize_t got
        while True:
            got = self.read_foreign(into, most_bytes) if self.is_foreign else self.read_some(into, most_bytes)
            if got != WANTS_INPUT:
                return got
            if not self.fed_bytes:
                self.is_dry = True
                return WANTS_INPUT
            self.pass_on(PIECE_BYTES)

    cdef Py_ssize_t read_some(self, char *into, Py_ssize_t most_bytes) except -2:
        view = PyMemoryView_FromMemory(into, most_bytes, PyBUF_WRITE)
        try:
            return self.sslobj.read(most_bytes, view)
        except WANT_ERRORS:
            return WANTS_INPUT
        finally:
            view.release()

    cdef Py_ssize_t read_foreign(self, char *into, Py_ssize_t most_bytes) except -2:
        """Read by a method of the program, which gets no view of memory that is not its own."""
        try:
            data = self.sslobj.read(most_bytes)
        except WANT_ERRORS:
            return WANTS_INPUT
        data = bytes(data)
        if PyBytes_GET_SIZE(data) > most_bytes:
            raise ValueError(f"read({most_bytes}) returned {len(data)} bytes")
        memcpy(into, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        return PyBytes_GET_SIZE(data)

    cdef Py_ssize_t write(self, const char *data, Py_ssize_t size_bytes) except -2:
        cdef Py_ssize_t some_bytes, done_bytes = 0
        while done_bytes < size_bytes:
            if done_bytes:
                self.pieces = [] if self.pieces is None else self.pieces
                self.pieces.append(self.outgoing.read())
            some_bytes = self.write_some(data + done_bytes, min(size_bytes - done_bytes, RECORD_BYTES))
            if some_bytes <= 0:
                break
            done_bytes += some_bytes
        return done_bytes if done_bytes or not size_bytes else WANTS_INPUT

    cdef Py_ssize_t write_some(self, const char *data, Py_ssize_t size_bytes) except -2:
        if self.is_foreign:
            view = data[:size_bytes]
        else:
            view = PyMemoryView_FromMemory(<char *>data, size_bytes, PyBUF_READ)
        try:
            return self.sslobj.write(view)
        except WANT_ERRORS:
            return WANTS_INPUT
        finally:
            if not self.is_foreign:
                view.release()
