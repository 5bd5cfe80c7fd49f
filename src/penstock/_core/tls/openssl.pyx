"""The engine that calls OpenSSL itself, with a BIO of its own under the `SSL *` of a finished handshake.

A call costs no step through Python, and keeps the GIL: encrypting 16 KiB takes less time than to get the GIL back beside
a busy thread. The program's `SSLObject` stays whole: `_ssl` uses the same `SSL *`, and raises every exception. With
callbacks of Python code that OpenSSL runs in the middle of a read, a connection keeps its MemoryBIOs.

Ownership: the engine owns one reference of its BIO, and the `SSL` two. The `SSLObject`, which owns the `SSL`, may outlive
the engine: the BIO is detached then.
"""

import threading

cimport cython

from penstock._core.tls.bio cimport (
    Output,
    detach,
    drain,
    forget_written,
    input_bytes,
    is_closed,
    keep_fed,
    new_bio,
    peek,
    state_of,
    written,
)
from penstock._core.tls.engine cimport FAILED, WANTS_INPUT, Engine
from penstock._core.tls.libssl cimport (
    BIO,
    SSL,
    SSL_ERROR_WANT_READ,
    SSL_ERROR_ZERO_RETURN,
    SSL_RECEIVED_SHUTDOWN,
    libssl,
)
from penstock._core.tls.sslobject cimport is_quiet, raised_by_ssl, ssl_of

cdef enum:
    # Four full records: the output of one call stays in the cache, and one send takes it.
    WRITE_BYTES = 64 * 1024
    RECORD_HEADER_BYTES = 5
    # The least of the bounds that OpenSSL has for the body of a record: TLS 1.3's.
    MOST_BODY_BYTES = 16 * 1024 + 256

cdef object of_thread = threading.local()


@cython.final
@cython.no_gc_clear
cdef class BioEngine(Engine):
    """A TLS connection whose `SSL *` is called directly."""

    def __dealloc__(self):
        if self.bio is not NULL:
            detach(self.state)
            libssl.BIO_free(self.bio)

    cdef int take_over(self) except -1:
        """Put the BIO in the place of both MemoryBIOs, with the bytes that are left in them."""
        cdef BIO *incoming = libssl.SSL_get_rbio(self.ssl)
        cdef BIO *outgoing = libssl.SSL_get_wbio(self.ssl)
        self.bio = new_bio(&self.shared.gathered)
        self.state = state_of(self.bio)
        drain(incoming, &self.state.kept)
        drain(outgoing, &self.state.apart)
        self.state.is_at_end = is_closed(incoming)
        libssl.BIO_up_ref(self.bio)
        libssl.BIO_up_ref(self.bio)
        libssl.SSL_set0_rbio(self.ssl, self.bio)
        libssl.SSL_set0_wbio(self.ssl, self.bio)
        # The context has none now, and a later one must not run in the middle of our calls.
        libssl.SSL_set_msg_callback(self.ssl, NULL)
        return 0

    # --- bytes of the wire ---

    cdef int feed(self, const char *data, Py_ssize_t size_bytes) except -1:
        keep_fed(self.state)
        self.state.fed, self.state.fed_bytes = data, <size_t>size_bytes
        return 0

    cdef int settle(self) except -1:
        return keep_fed(self.state)

    cdef int feed_eof(self) except -1:
        self.state.is_at_end = True
        return 0

    cdef Py_ssize_t output(self, const char **start) except -1:
        return written(self.state, start)

    cdef int discard_output(self) except -1:
        forget_written(self.state)
        return 0

    # --- calls of OpenSSL ---

    cdef int begin(self) except -1:
        """Enter OpenSSL with an empty queue of errors."""
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        if self.state.is_active:
            raise RuntimeError("a TLS connection is called while it runs a callback")
        self.state.is_active = True
        libssl.ERR_clear_error()
        return 0

    cdef int end(self, int result) noexcept:
        """Leave OpenSSL. Return the code of its error, 0 if there is none."""
        self.state.is_active = False
        return 0 if result > 0 else libssl.SSL_get_error(self.ssl, result)

    cdef int handshake(self) except -2:
        self.begin()
        return self.finish_step(libssl.SSL_do_handshake(self.ssl), "do_handshake")

    cdef int shut_down(self) except -2:
        cdef int result
        self.begin()
        result = libssl.SSL_shutdown(self.ssl)
        if result == 0:
            # Ours is sent: look for the peer's. `_ssl` asks twice as well, and takes a second 0 for the end.
            result = libssl.SSL_shutdown(self.ssl)
        return self.finish_step(1 if result == 0 else result, "shutdown")

    cdef int finish_step(self, int result, str method) except -2:
        return <int>self.finish(self.end(result), 1 if result > 0 else 0, 1, method)

    cdef Py_ssize_t read(self, char *into, Py_ssize_t most_bytes) except -2:
        cdef size_t got, count_bytes = 0
        cdef int result = 1
        if self.failure is None and not self.is_readable():
            return WANTS_INPUT
        self.begin()
        while result > 0 and <Py_ssize_t>count_bytes < most_bytes:
            result = libssl.SSL_read_ex(self.ssl, into + count_bytes, most_bytes - count_bytes, &got)
            if result > 0:
                count_bytes += got
                if not self.is_readable():
                    break
        return self.finish(self.end(result), count_bytes, 0, "read")

    cdef bint is_readable(self) noexcept:
        """Return whether OpenSSL may have anything to return: bytes, the end or an error."""
        return (
            input_bytes(self.state) > 0
            or libssl.SSL_pending(self.ssl) > 0
            or self.state.is_at_end
            or self.has_failed
            or libssl.SSL_get_shutdown(self.ssl) & SSL_RECEIVED_SHUTDOWN != 0
        )

    cdef Py_ssize_t write(self, const char *data, Py_ssize_t size_bytes) except -2:
        cdef size_t got, count_bytes = 0
        cdef int result = 1
        self.begin()
        size_bytes = min(size_bytes, <Py_ssize_t>WRITE_BYTES)
        while result > 0 and <Py_ssize_t>count_bytes < size_bytes:
            # one record, by the mode of partial writes
            result = libssl.SSL_write_ex(self.ssl, data + count_bytes, size_bytes - count_bytes, &got)
            if result > 0:
                count_bytes += got
        return self.finish(self.end(result), count_bytes, FAILED, "read")

    cdef Py_ssize_t finish(self, int code, Py_ssize_t count_bytes, Py_ssize_t at_close, str method) except -2:
        """Return what a call returns that has brought so many bytes and ended with this code."""
        if code == 0:
            return count_bytes
        if code == SSL_ERROR_WANT_READ:
            return count_bytes if count_bytes else WANTS_INPUT
        if code == SSL_ERROR_ZERO_RETURN and at_close != FAILED:
            self.is_ended = count_bytes > 0
            return count_bytes if count_bytes else at_close
        self.has_failed = True
        failure = raised_by_ssl(self.sslobj, method, libssl.SSL_in_init(self.ssl))
        if not count_bytes:
            raise failure
        self.failure = failure
        return count_bytes

    cdef bint has_plaintext(self) except -1:
        cdef size_t left_bytes = input_bytes(self.state)
        if self.failure is not None or self.is_ended or libssl.SSL_pending(self.ssl) > 0:
            return True
        if self.state.short_bytes:
            # in the middle of a record, or of its header
            return left_bytes >= self.state.short_bytes
        return left_bytes >= RECORD_HEADER_BYTES and self.has_record(left_bytes)

    cdef bint has_record(self, size_t left_bytes) noexcept:
        """Return whether a whole record is at the front of the input, or a header that OpenSSL refuses at once."""
        cdef unsigned char header[RECORD_HEADER_BYTES]
        cdef size_t body_bytes
        peek(self.state, <char *>header, RECORD_HEADER_BYTES)
        body_bytes = header[3] << 8 | header[4]
        if not 20 <= header[0] <= 24 or header[1] != 3 or body_bytes > MOST_BODY_BYTES:
            return True
        return left_bytes >= RECORD_HEADER_BYTES + body_bytes


cdef Output output_of_thread():
    """Return the memory of the engines that are made on this thread."""
    cdef Output found = getattr(of_thread, "output", None)
    if found is None:
        found = of_thread.output = Output()
    return found


cdef BioEngine bio_engine(object ssl_object, object sslobj):
    """Return an engine for a connection in memory whose handshake is done; None if it keeps its MemoryBIOs.

    What is left in the MemoryBIOs moves to the engine, and they are out of use afterwards.
    """
    cdef BioEngine engine
    cdef SSL *ssl = ssl_of(sslobj)
    if ssl is NULL or not is_quiet(sslobj.context):
        return None
    engine = BioEngine.__new__(BioEngine)
    engine.ssl_object, engine.sslobj, engine.ssl, engine.shared = ssl_object, sslobj, ssl, output_of_thread()
    engine.take_over()
    return engine
