from cpython.object cimport PyObject

from penstock._core._sys.datagram cimport mmsghdr


cdef struct Waiting:
    # All owned. `packed` NULL: to the connected peer, or, if there is a `name`, only Python's socket can send it.
    PyObject *data
    PyObject *packed
    PyObject *name


cdef class DatagramQueue:
    cdef Waiting *entries
    cdef size_t head, count, mask
    # The bytes of the datagrams, and as many for each header as asyncio counts.
    cdef size_t size_bytes, header_bytes

    cdef int append(self, bytes data, object packed, object name) except -1
    cdef int put_back(self, object data, object name) except -1
    cdef Waiting *first(self) noexcept
    cdef int fill(self) noexcept
    cdef int drop(self, size_t count) except -1
    cdef int clear(self) except -1
    cdef int grow(self) except -1
    cdef int forget_ring(self) noexcept


# Filled by `DatagramQueue.fill`, for the next system call.
cdef mmsghdr *outgoing() noexcept
