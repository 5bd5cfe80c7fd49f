cimport cython


@cython.final
cdef class FrameReader:
    cdef object _head
    cdef list _parts
    cdef Py_ssize_t _have_bytes, _size_bytes
    # a frame may be larger than memory: what a stream says is no promise
    cdef readonly object need_bytes

    @cython.locals(position=Py_ssize_t, end=Py_ssize_t, size=Py_ssize_t, after=object, frames=list)
    cpdef list feed(self, bytes data)
