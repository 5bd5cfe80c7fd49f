"""The buffers of transports: bytes objects that were read, and the write queue.

Ownership: the pool owns its spare objects, the only references to them. The write queue owns one reference to each
chunk, and its account. Chunks are immutable: a bytearray is copied before it is queued.
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.string cimport memcpy

from penstock._core._sys.python cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE, new_bytes
from penstock._core._sys.socket cimport iovec
from penstock._core.limits.budget cimport charge

cdef enum:
    KEPT_SIZE = 256

cdef extern from *:
    """
    #define penstock_has_one_owner(object) (Py_REFCNT(object) == 1)
    #define penstock_spare_class(size) (63 - __builtin_clzll((unsigned long long)(size)) - 9)

    /* Set the size of a bytes object that has no other owner, and room for as much. Its hash is forgotten. */
    static void penstock_fit(PyObject *data, Py_ssize_t size)
    {
        Py_SET_SIZE((PyVarObject *)data, size);
    #pragma GCC diagnostic push
    #pragma GCC diagnostic ignored "-Wdeprecated-declarations"
        ((PyBytesObject *)data)->ob_shash = -1;
    #pragma GCC diagnostic pop
        PyBytes_AS_STRING(data)[size] = 0;
    }
    """
    bint has_one_owner "penstock_has_one_owner"(PyObject *object) noexcept
    int spare_class "penstock_spare_class"(Py_ssize_t size_bytes) noexcept
    void fit "penstock_fit"(PyObject *data, Py_ssize_t size_bytes) noexcept


cdef class ReadPool:
    """Bytes objects that protocols have let go of, for the next reads: malloc is slow above 1 KiB.

    An object is filled again only while nothing else refers to it, so no program sees its bytes change. A read of
    less than half of an object's room gets an object of its own: a program that keeps its data keeps little more.
    """

    def __dealloc__(self):
        cdef int i
        for i in range(SPARES):
            Py_XDECREF(self.spare[i])

    cdef object copied(self, const char *text, Py_ssize_t size_bytes, Py_ssize_t *room_bytes):
        """Return the bytes as an object of its own, and how many bytes it has room for."""
        cdef PyObject *data = self.take(size_bytes, room_bytes)
        if data is NULL:
            return PyBytes_FromStringAndSize(text, size_bytes)
        memcpy(PyBytes_AS_STRING(<object>data), text, size_bytes)
        fit(data, size_bytes)
        return owned(data)

    cdef object lend(self, Py_ssize_t size_bytes, Py_ssize_t *room_bytes):
        """Return an object with room for that many bytes, which nobody else may see before it is filled."""
        cdef PyObject *data = self.take(size_bytes, room_bytes)
        if data is NULL:
            data = new_bytes(NULL, size_bytes)
            if data is NULL:
                raise MemoryError
        return owned(data)

    cdef object filled(self, object room, const char *rest, Py_ssize_t size_bytes, Py_ssize_t *room_bytes):
        """Return received bytes as one object: `room` has the first of them, `rest` what it had no room for.

        That object is `room` unless it is too small, or more than twice as large. `room` must have no other owner.
        """
        cdef Py_ssize_t within_bytes = min(size_bytes, room_bytes[0])
        if room_bytes[0] // 2 < size_bytes <= room_bytes[0]:
            fit(<PyObject *>room, size_bytes)
            return room
        self.keep(<PyObject *>room, room_bytes[0])
        result = self.lend(size_bytes, room_bytes)
        memcpy(PyBytes_AS_STRING(result), PyBytes_AS_STRING(room), within_bytes)
        memcpy(PyBytes_AS_STRING(result) + within_bytes, rest, size_bytes - within_bytes)
        fit(<PyObject *>result, size_bytes)
        return result

    cdef PyObject *take(self, Py_ssize_t size_bytes, Py_ssize_t *room_bytes) noexcept:
        """Take a spare object with room for that many bytes; NULL if there is none. Sets `room_bytes` in both cases."""
        cdef int i
        cdef PyObject *data
        room_bytes[0] = size_bytes
        if not LEAST_SPARE_BYTES <= size_bytes < LEAST_SPARE_BYTES << SPARES:
            return NULL
        i = spare_class(size_bytes)
        data = self.spare[i]
        if data is NULL or self.room_bytes[i] < size_bytes or not has_one_owner(data):
            return NULL
        self.spare[i], room_bytes[0] = NULL, self.room_bytes[i]
        return data

    cdef int keep(self, PyObject *data, Py_ssize_t room_bytes) noexcept:
        """Keep an object that only the caller refers to; the roomiest of its class."""
        cdef int i
        cdef PyObject *former
        if not has_one_owner(data) or not LEAST_SPARE_BYTES <= room_bytes < LEAST_SPARE_BYTES << SPARES:
            return 0
        i = spare_class(room_bytes)
        former = self.spare[i]
        if former is not NULL:
            if self.room_bytes[i] >= room_bytes:
                return 0
            self.spare[i] = NULL
            Py_DECREF(<object>former)
        Py_INCREF(<object>data)
        self.spare[i], self.room_bytes[i] = data, room_bytes
        return 0


cdef inline object owned(PyObject *data):
    """Return an object with the reference that is ours."""
    result = <object>data
    Py_DECREF(result)
    return result


@cython.no_gc
cdef class WriteQueue:
    """A FIFO of bytes; empty ones may stay for ever, at no cost but the object."""

    def __dealloc__(self):
        self.clear()
        if self.budget is not None:
            self.budget.leave(&self.account)
        PyMem_Free(self.chunks)

    cdef int append(self, bytes chunk) except -1:
        if self.chunks is NULL or self.count > self.mask:
            self.grow()
        Py_INCREF(chunk)
        self.chunks[(self.head + self.count) & self.mask] = <PyObject *>chunk
        self.count += 1
        self.size_bytes += PyBytes_GET_SIZE(chunk)
        if self.budget is not None:
            charge(self.budget, &self.account, PyBytes_GET_SIZE(chunk))
        return 0

    cdef int fill(self, iovec *vector, int most, size_t *total_bytes) noexcept:
        """Points up to `most` entries of `vector` at the oldest chunks; gives their number and total size."""
        cdef int count = <int>min(self.count, <size_t>most)
        cdef int i
        cdef PyObject *chunk
        total_bytes[0] = 0
        for i in range(count):
            chunk = self.chunks[(self.head + i) & self.mask]
            vector[i].iov_base = PyBytes_AS_STRING(<object>chunk)
            vector[i].iov_len = PyBytes_GET_SIZE(<object>chunk)
            if i == 0:
                vector[0].iov_base = <char *>vector[0].iov_base + self.offset_bytes
                vector[0].iov_len -= self.offset_bytes
            total_bytes[0] += vector[i].iov_len
        return count

    cdef int consume(self, size_t sent_bytes) except -1:
        """Let go of what has been sent."""
        cdef PyObject *chunk
        cdef size_t left_bytes
        self.size_bytes -= sent_bytes
        if self.budget is not None:
            charge(self.budget, &self.account, -<Py_ssize_t>sent_bytes)
        while self.count:
            chunk = self.chunks[self.head]
            left_bytes = PyBytes_GET_SIZE(<object>chunk) - self.offset_bytes
            if sent_bytes < left_bytes:
                self.offset_bytes += sent_bytes
                return 0
            sent_bytes -= left_bytes
            self.offset_bytes = 0
            self.head = (self.head + 1) & self.mask
            self.count -= 1
            Py_DECREF(<object>chunk)
        if self.mask >= KEPT_SIZE:
            self.forget_ring()
        return 0

    cdef int forget_ring(self) noexcept:
        """A large ring is given back as the queue runs empty; more chunks than half its size have gone through it."""
        PyMem_Free(self.chunks)
        self.chunks, self.head, self.mask = NULL, 0, 0
        return 0

    cdef int clear(self) except -1:
        if self.budget is not None:
            charge(self.budget, &self.account, -<Py_ssize_t>self.size_bytes)
        while self.count:
            self.count -= 1
            Py_DECREF(<object>self.chunks[(self.head + self.count) & self.mask])
        self.offset_bytes = self.size_bytes = 0
        return 0

    cdef int grow(self) except -1:
        cdef size_t size = 2 * (self.mask + 1) if self.chunks is not NULL else 8
        cdef size_t i
        cdef PyObject **wider = <PyObject **>PyMem_Malloc(size * sizeof(PyObject *))
        if wider is NULL:
            raise MemoryError
        for i in range(self.count):
            wider[i] = self.chunks[(self.head + i) & self.mask]
        PyMem_Free(self.chunks)
        self.chunks, self.head, self.mask = wider, 0, size - 1
        return 0
