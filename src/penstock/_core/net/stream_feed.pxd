cdef bint has_asyncio_feed(object protocol) except -1
cdef object reader_of(object protocol)
cdef Py_ssize_t receive_for(
    object reader, int fd, char **received, Py_ssize_t last_bytes, Py_ssize_t *asked
) except? -1
cdef int feed(object reader, const char *received, Py_ssize_t size_bytes) except -1
