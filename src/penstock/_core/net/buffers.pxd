from cpython.object cimport PyObject

from penstock._core._sys.socket cimport iovec
from penstock._core.net.budget cimport Account, Budget


cdef class WriteQueue:
    cdef PyObject **chunks
    cdef size_t head, count, mask
    # How much of the first chunk has been sent.
    cdef size_t offset_bytes
    cdef size_t size_bytes
    # None: bytes are not counted. The account may exceed the queue by the bytes that layers above it buffer.
    cdef Budget budget
    cdef Account account

    cdef int append(self, bytes chunk) except -1
    cdef int fill(self, iovec *vector, int most, size_t *total_bytes) noexcept
    cdef int consume(self, size_t sent_bytes) except -1
    cdef int clear(self) except -1
    cdef int grow(self) except -1
    cdef int forget_ring(self) noexcept
