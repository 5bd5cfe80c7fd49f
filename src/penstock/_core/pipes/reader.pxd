from libc.stdint cimport uint32_t

from penstock._core._sys.python cimport flag
from penstock._core.pipes.transport cimport PipeTransport


cdef class ReadPipe(PipeTransport):
    # Events that came while reading was paused.
    cdef uint32_t unread
    # is_certain: the kernel has reported the pending events just now, so a read does not wait.
    # feeds: the protocol may be asyncio's StreamReaderProtocol, whose reader can be fed.
    cdef flag paused, is_certain, feeds
    cdef Py_ssize_t last_read_bytes

    cdef bint is_closed_outside(self) except -1
    cdef int read_on(self, uint32_t events) except -1
    cdef Py_ssize_t read_once(self, Py_ssize_t *asked) except -1
    cdef Py_ssize_t receive(self, void *first, Py_ssize_t first_bytes, Py_ssize_t second_bytes) except -1
    cdef Py_ssize_t read_copied(self) except -1
    cdef Py_ssize_t read_direct(self, Py_ssize_t *asked) except -1
    cdef Py_ssize_t read_fed(self, object reader) except -1
    cdef int read_eof(self) except -1
