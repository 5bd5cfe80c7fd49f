from penstock._core.handle cimport Handle
from penstock._core.poller cimport Source
from penstock._core.wiring cimport Wiring


cdef class Watch(Source):
    cdef Wiring wiring
    cdef readonly Handle reader, writer


cdef Watch watch_at(Wiring wiring, int fd)
cdef int set_reader(Wiring wiring, object fd, Handle handle) except -1
cdef int set_writer(Wiring wiring, object fd, Handle handle) except -1
cdef object fileno_of(object fd)
