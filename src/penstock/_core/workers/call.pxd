cimport cython

cdef object ASYNC_FLAGS


@cython.final
@cython.freelist(64)
cdef class Call:
    cdef readonly object fn, args, kwargs, timeout_s, key, priority, retries, context

    cpdef void forget_arguments(self) noexcept


cpdef void check_plain(object fn) except *
