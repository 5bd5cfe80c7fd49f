from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t


cdef struct DeferredRead:
    # Owned; and where its owner keeps the address of this place, NULL again once it has abandoned.
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
    # How many were ever held, and how many of them were closed unread, their client gone.
    cdef readonly uint64_t total
    cdef public uint64_t abandoned

    cdef int add(self, object source, DeferredRead **kept_at, int64_t now_ns) except -1
    cdef int remove(self, DeferredRead *place) except -1
    cdef int clear(self) except -1
