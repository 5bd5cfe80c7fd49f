from cpython.object cimport PyObject

from penstock._core._sys.socket cimport iovec
from penstock._core.limits.budget cimport Account, Budget


cdef enum:
    # One spare object for each power of two from 512 bytes to 256 KiB, as much as one receive. Smaller ones cost malloc next to nothing.
    SPARES = 10
    LEAST_SPARE_BYTES = 512


cdef class ReadPool:
    # NULL: none of this class. Owned.
    cdef PyObject *spare[SPARES]
    # The most bytes that each has room for.
    cdef Py_ssize_t room_bytes[SPARES]

    cdef object copied(self, const char *text, Py_ssize_t size_bytes, Py_ssize_t *room_bytes)
    cdef object lend(self, Py_ssize_t size_bytes, Py_ssize_t *room_bytes)
    cdef object filled(self, object room, const char *rest, Py_ssize_t size_bytes, Py_ssize_t *room_bytes)
    cdef PyObject *take(self, Py_ssize_t size_bytes, Py_ssize_t *room_bytes) noexcept
    cdef int keep(self, PyObject *data, Py_ssize_t room_bytes) noexcept


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
