cimport cython

cdef object SMALL_TYPES


@cython.final
@cython.freelist(64)
cdef class Pickled:
    cdef readonly object text, bytes_like, lent
    cdef public bytes function


cpdef Pickled small_pickle(object item)
cdef bint _is_small(tuple items) except -1
