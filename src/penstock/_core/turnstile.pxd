cimport cython


@cython.final
cdef class Done:
    pass


cdef class Turnstile:
    cdef public Py_ssize_t _value, _bound_value, _granted
    cdef public object _line

    cdef int give(self) except -1
    cdef bint wake_next(self) except -1
