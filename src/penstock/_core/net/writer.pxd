from cpython.object cimport PyObject

from penstock._core._sys.python cimport flag
from penstock._core.net.io_context cimport IOContext
from penstock._core.net.limited cimport LimitedTransport


cdef class WriterTransport(LimitedTransport):
    # blocked: the kernel takes no more until it reports EPOLLOUT.
    cdef flag blocked, protocol_paused, eof_written
    # gathers: the program has asked for it; is_first: the next write is the first since data came in.
    # is_gathered: it is in the I/O context's chain.
    cdef flag gathers, is_first, is_gathered
    cdef PyObject *next_gathered
    cdef object empty_waiter
    # The watermarks (low, high) as the program has set them, perhaps as floats; None: it has not.
    cdef tuple limits

    cdef int check_writable(self, str verb) except -1
    cdef int write_bytes(self, object data, const char *start, Py_ssize_t size_bytes) except -1
    cdef int queue_rest(self, object data, const char *start, Py_ssize_t size_bytes, Py_ssize_t sent_bytes) except -1
    cdef bint can_gather(self, Py_ssize_t size_bytes) noexcept
    cdef int gather(self) except -1
    cdef Py_ssize_t send_now(self, const char *start, Py_ssize_t size_bytes) except -2
    cdef int flush(self) except -1
    cdef int flush_gathered(self) except -1
    cdef int drained(self) except -1
    cdef int write_failed(self) except -1
    cdef int shut_down(self) except -1
    cdef int maybe_pause(self) except -1
    cdef int maybe_resume(self) except -1
    cdef int call_protocol(self, str method) except -1
    cdef int pause(self) except -1
    cdef int resume(self) except -1


cdef Py_ssize_t whole_bytes(object limit) except? -1
cdef int flush_gathered(IOContext io) except -1
