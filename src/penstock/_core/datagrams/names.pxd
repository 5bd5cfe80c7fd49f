from cpython.object cimport PyObject

cdef enum:
    KNOWN = 64


cdef class NameCache:
    # Both in pairs, owned: by the packed form's hash, and by the name's address in memory. NULL: none.
    cdef PyObject *by_bytes[KNOWN][2]
    cdef PyObject *by_object[KNOWN][2]

    cdef object name_of(self, const char *packed, Py_ssize_t size_bytes)
    cdef bytes packed_of(self, object name, int family)


cdef bytes pack(object name, int family)
