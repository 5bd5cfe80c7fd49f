from penstock._core._sys.python cimport flag
from penstock._core.net.flow_control cimport FlowControlledTransport


cdef class WriterTransport(FlowControlledTransport):
    # blocked: the kernel takes no more until it reports EPOLLOUT.
    cdef flag blocked, eof_written
    # gathers: the program has asked for it; is_first: the next write is the first since data came in.
    # is_gathered: it is flushed when this callback ends.
    cdef flag gathers, is_first, is_gathered
    cdef object empty_waiter

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
