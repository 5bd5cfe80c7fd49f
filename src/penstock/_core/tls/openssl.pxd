from penstock._core.tls.bio cimport BioState, Output
from penstock._core.tls.engine cimport Engine
from penstock._core.tls.libssl cimport BIO, SSL


cdef class BioEngine(Engine):
    cdef SSL *ssl
    cdef BIO *bio
    cdef BioState *state
    cdef Output shared
    # Raised by the next call; None: there is none.
    cdef object failure
    # has_failed: OpenSSL has reported an error that lasts. is_ended: the end came behind bytes, and is returned next.
    cdef bint has_failed, is_ended

    cdef int take_over(self) except -1
    cdef int begin(self) except -1
    cdef int end(self, int result) noexcept
    cdef bint is_readable(self) noexcept
    cdef Py_ssize_t finish(self, int code, Py_ssize_t count_bytes, Py_ssize_t at_close, str method) except -2
    cdef int finish_step(self, int result, str method) except -2
    cdef bint has_record(self, size_t left_bytes) noexcept

cdef BioEngine bio_engine(object ssl_object, object sslobj)
