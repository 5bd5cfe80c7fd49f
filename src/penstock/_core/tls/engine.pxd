cdef enum:
    # What an engine's calls return instead of a number of bytes.
    WANTS_INPUT = -1
    FAILED = -2


cdef class Engine:
    # The `ssl.SSLObject` that programs see, and the `_ssl._SSLSocket` under it.
    cdef readonly object ssl_object
    cdef object sslobj

    cdef int feed(self, const char *data, Py_ssize_t size_bytes) except -1
    cdef int settle(self) except -1
    cdef int feed_eof(self) except -1
    cdef Py_ssize_t output(self, const char **start) except -1
    cdef int discard_output(self) except -1
    cdef int handshake(self) except -2
    cdef int shut_down(self) except -2
    cdef Py_ssize_t read(self, char *into, Py_ssize_t most_bytes) except -2
    cdef Py_ssize_t write(self, const char *data, Py_ssize_t size_bytes) except -2
    cdef bint has_plaintext(self) except -1
