from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    # Site numbers that are no site of their own.
    UNKNOWN = 0
    OTHER = 1
    FIRST_SITE = 2


cdef struct SiteSlot:
    # Owned while it is in a table.
    PyObject *code
    int lasti
    uint32_t number


cdef class TaskSites:
    cdef SiteSlot *slots
    cdef size_t mask, count, inner_count
    cdef uint32_t limit
    # (code, lasti) of each site, by its number
    cdef readonly list sites
    # of a file's name: whether its code is passed over too; None: of none
    cdef public object skips

    cdef uint32_t current(self, object coro) except? 0
    cdef uint32_t innermost(self) except? 0
    cdef uint32_t innermost_of_python(self) except? 0
    cdef uint32_t find_number(self, PyObject *code, int lasti) noexcept
    cdef uint32_t number_of(self, PyObject *code, int lasti, bint is_site) except? 0
    cdef int insert(self, PyObject *code, int lasti, uint32_t number) except -1
    cdef int grow(self) except -1

cdef tuple raw_stack()
