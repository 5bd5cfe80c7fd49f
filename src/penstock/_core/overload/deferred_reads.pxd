from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t


cdef struct Place:
    # Owned; and where its owner keeps the address of this place, NULL again once it has left.
    PyObject *source
    Place **kept_at
    Place *older
    Place *newer
    int64_t since_ns


cdef class Held:
    # Not used: it makes Cython make a type that the garbage collector looks into.
    cdef object collected
    cdef Place *newest
    cdef Place *oldest
    cdef Place *spare
    cdef size_t spare_count
    cdef readonly size_t count, most
    # How many were ever held, and how many of them were closed unread, their client gone.
    cdef readonly uint64_t total
    cdef public uint64_t left

    cdef int add(self, object source, Place **kept_at, int64_t now_ns) except -1
    cdef int remove(self, Place *place) except -1
    cdef int clear(self) except -1
