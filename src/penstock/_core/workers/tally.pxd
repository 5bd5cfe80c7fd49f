cimport cython


cdef class Tally:
    cdef readonly object name
    cdef public object listener
    cdef readonly object _waited, _ran
    cdef readonly dict _completed, _shed, _moved, _restarts

    cdef void add_moved(self, str path, Py_ssize_t size_bytes) except *
