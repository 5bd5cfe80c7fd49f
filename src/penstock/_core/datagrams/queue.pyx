"""The datagrams that wait to be sent, each with the name of its receiver.

Ownership: the queue owns a reference to each datagram and to both forms of its name. The headers for the kernel are the
module's: they are filled and used without a call in between.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.string cimport memset

from penstock._core._sys.datagram cimport mmsghdr
from penstock._core._sys.python cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from penstock._core._sys.socket cimport iovec

cdef enum:
    FIRST_SIZE = 16
    # The ring is kept while it is no larger than this.
    KEPT_SIZE = 256
    MOST_SENT = 64

cdef mmsghdr[MOST_SENT] headers
cdef iovec[MOST_SENT] parts


cdef mmsghdr *outgoing() noexcept:
    """The headers that `fill` has filled."""
    return headers


cdef class DatagramQueue:
    """A FIFO of datagrams."""

    def __dealloc__(self):
        self.clear()
        PyMem_Free(self.entries)

    cdef int append(self, bytes data, object packed, object name) except -1:
        cdef Waiting *entry
        if self.entries is NULL or self.count > self.mask:
            self.grow()
        entry = &self.entries[(self.head + self.count) & self.mask]
        Py_INCREF(data)
        entry[0] = Waiting(<PyObject *>data, owned(packed), owned(name))
        self.count += 1
        self.size_bytes += PyBytes_GET_SIZE(data) + self.header_bytes
        return 0

    cdef int put_back(self, object data, object name) except -1:
        """Put a datagram that only Python's socket can send before the others."""
        if self.entries is NULL or self.count > self.mask:
            self.grow()
        self.head = (self.head - 1) & self.mask
        self.entries[self.head] = Waiting(owned(data), NULL, owned(name))
        self.count += 1
        self.size_bytes += PyBytes_GET_SIZE(data) + self.header_bytes
        return 0

    cdef Waiting *first(self) noexcept:
        return &self.entries[self.head]

    cdef int fill(self) noexcept:
        """Fill headers for the next datagrams, up to the first that only Python's socket can send. Return how many."""
        cdef int filled = 0
        cdef int most = min(self.count, <size_t>MOST_SENT)
        cdef Waiting *entry
        while filled < most:
            entry = &self.entries[(self.head + filled) & self.mask]
            if entry.packed is NULL and entry.name is not NULL:
                break
            fill_header(&headers[filled], &parts[filled], entry)
            filled += 1
        return filled

    cdef int drop(self, size_t count) except -1:
        """Release the first datagrams."""
        cdef Waiting entry
        while count and self.count:
            entry = self.entries[self.head]
            self.head = (self.head + 1) & self.mask
            self.count -= 1
            count -= 1
            self.size_bytes -= PyBytes_GET_SIZE(<object>entry.data) + self.header_bytes
            release(&entry)
        if self.count == 0 and self.mask >= KEPT_SIZE:
            self.forget_ring()
        return 0

    cdef int forget_ring(self) noexcept:
        PyMem_Free(self.entries)
        self.entries = NULL
        self.head = self.mask = 0
        return 0

    cdef int clear(self) except -1:
        return self.drop(self.count)

    cdef int grow(self) except -1:
        cdef size_t i, size = FIRST_SIZE if self.entries is NULL else 2 * (self.mask + 1)
        cdef Waiting *entries = <Waiting *>PyMem_Malloc(size * sizeof(Waiting))
        if entries is NULL:
            raise MemoryError
        for i in range(self.count):
            entries[i] = self.entries[(self.head + i) & self.mask]
        PyMem_Free(self.entries)
        self.entries, self.mask, self.head = entries, size - 1, 0
        return 0


cdef inline PyObject *owned(object thing) noexcept:
    """A reference to own; NULL for None."""
    if thing is None:
        return NULL
    Py_INCREF(thing)
    return <PyObject *>thing


cdef inline int release(Waiting *entry) except -1:
    Py_DECREF(<object>entry.data)
    Py_XDECREF(entry.packed)
    Py_XDECREF(entry.name)
    return 0


cdef inline int fill_header(mmsghdr *header, iovec *part, Waiting *entry) noexcept:
    memset(header, 0, sizeof(mmsghdr))
    part.iov_base = PyBytes_AS_STRING(<object>entry.data)
    part.iov_len = PyBytes_GET_SIZE(<object>entry.data)
    header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen = part, 1
    if entry.packed is not NULL:
        header.msg_hdr.msg_name = PyBytes_AS_STRING(<object>entry.packed)
        header.msg_hdr.msg_namelen = PyBytes_GET_SIZE(<object>entry.packed)
    return 0
