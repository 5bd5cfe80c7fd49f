from penstock._core._sys.python cimport flag
from penstock._core.net.buffers cimport WriteQueue
from penstock._core.pipes.transport cimport PipeTransport


cdef class WritePipe(PipeTransport):
    cdef WriteQueue queue
    cdef Py_ssize_t high_bytes, low_bytes
    # The watermarks (low, high) as the program has set them, perhaps as floats; None: it has not.
    cdef tuple limits
    # blocked: the kernel takes no more until it reports EPOLLOUT.
    cdef flag blocked, protocol_paused
    # Writes after the end, as asyncio counts them.
    cdef int conn_lost

    cdef bint takes(self, bint is_empty) except -1
    cdef int queue_rest(self, object data, Py_buffer *view, Py_ssize_t sent_bytes) except -1
    cdef Py_ssize_t write_now(self, const char *start, Py_ssize_t size_bytes) except -2
    cdef int flush(self) except -1
    cdef int drained(self) except -1
    cdef int write_failed(self, int number) except -1
    cdef int peer_closed(self) except -1
    cdef int maybe_pause(self) except -1
    cdef int call_protocol(self, str method) except -1
