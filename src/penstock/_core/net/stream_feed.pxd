cdef bint has_asyncio_feed(object protocol) except -1
cdef object reader_of(object protocol)
cdef bint can_resize(bytearray buffer) noexcept
cdef Py_ssize_t receive_into(bytearray buffer, int fd, Py_ssize_t room_bytes) except? -1
cdef int append(bytearray buffer, const char *start, Py_ssize_t size_bytes) except -1
cdef int notify(object reader, bytearray buffer) except -1
