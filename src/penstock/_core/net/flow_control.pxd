from penstock._core._sys.python cimport flag
from penstock._core.net.limited cimport LimitedTransport


cdef class FlowControlledTransport(LimitedTransport):
    cdef flag protocol_paused
    # The watermarks (low, high) as the program has set them, perhaps as floats; None: it has not.
    cdef tuple limits

    cdef size_t waiting_bytes(self) noexcept
    cdef int watermarks_set(self) except -1
    cdef int maybe_pause(self) except -1
    cdef int maybe_resume(self) except -1
    cdef int pause(self) except -1
    cdef int resume(self) except -1
    cdef int call_protocol(self, str method) except -1


cdef tuple watermarks(object high, object low, Py_ssize_t default_bytes)
cdef Py_ssize_t whole_bytes(object limit) except? -1
