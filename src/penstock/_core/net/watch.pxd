from penstock._core.events.handle cimport Handle
from penstock._core.events.poller cimport Source
from penstock._core.net.io_context cimport Wiring


cdef class Watch(Source):
    cdef Wiring wiring
    cdef readonly Handle reader, writer
    # What was given in place of the number, or None; found again when it is closed.
    cdef object file


cdef Watch watch_at(Wiring wiring, int fd)
cdef int set_reader(Wiring wiring, object fd, Handle handle) except -1
cdef int set_writer(Wiring wiring, object fd, Handle handle) except -1
cdef object fileno_of(object fd)
cdef int keep_file(Wiring wiring, object number, object file) except -1
cdef object watched_fileno(Wiring wiring, object fd)
