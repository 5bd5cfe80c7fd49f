from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t


cdef struct DeferredRead:
    # Owned; and the address at which the source keeps a pointer to this entry, NULL again once it has left.
    PyObject *source
    DeferredRead **kept_at
    DeferredRead *older
    DeferredRead *newer
    int64_t since_ns


cdef class DeferredReads:
    # Not used: it makes Cython make a type that the garbage collector looks into.
    cdef object collected
    cdef DeferredRead *newest
    cdef DeferredRead *oldest
    cdef DeferredRead *spare
    cdef size_t spare_count
    cdef readonly size_t count, most
    # Counts: ever deferred, and of these closed unread because the client had left.
    cdef readonly uint64_t total
    cdef public uint64_t abandoned

    cdef int add(self, object source, DeferredRead **kept_at, int64_t now_ns) except -1
    cdef int remove(self, DeferredRead *place) except -1
    cdef int clear(self) except -1
