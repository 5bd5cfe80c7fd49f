"""The interface of native layers, such as TLS: a protocol of a `Stream` that takes received bytes without an object."""


cdef class Layer:
    """A native protocol of a `Stream`."""

    cdef int receive(self, const char *data, Py_ssize_t size_bytes) except -1:
        """Take received bytes. They are valid until the call returns, or until it runs code of the program."""
        raise NotImplementedError

    cdef int send_gathered(self) except -1:
        """Write down what has been kept back: the callback ends, or something else is about to overtake it."""
        raise NotImplementedError
