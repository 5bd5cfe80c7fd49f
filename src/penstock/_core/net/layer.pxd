cdef class Layer:
    cdef int receive(self, const char *data, Py_ssize_t size_bytes) except -1
    cdef int send_gathered(self) except -1
