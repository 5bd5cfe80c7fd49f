from cpython.object cimport PyObject

from penstock._core.events.poller cimport Source


cdef struct ClientLink:
    ClientLink *before
    ClientLink *after
    # The source that it is part of.
    PyObject *source
    # The `Clients` that it is in, borrowed; NULL: none.
    PyObject *clients


cdef class ServedSource(Source):
    cdef ClientLink link

    cdef int join(self, Clients clients) noexcept
    cdef Clients part(self)


cdef class Clients:
    # The ring of links begins and ends here.
    cdef ClientLink ring
    cdef readonly Py_ssize_t count
    # Sources of other kinds, in a WeakSet; None: there were none.
    cdef object others
    # Called when a client has come or gone; None: nothing is.
    cdef public object on_change

    cdef int notify(self) except -1
    cdef list sources(self)
