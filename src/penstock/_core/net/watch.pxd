from penstock._core.events.handle cimport Handle
from penstock._core.events.poller cimport Source
from penstock._core.net.io_context cimport IOContext


cdef class Watch(Source):
    cdef IOContext io
    cdef readonly Handle reader, writer
    # What was given in place of the number, or None; found again when it is closed.
    cdef object file


cdef Watch watch_at(IOContext io, int fd)
cdef int set_reader(IOContext io, object fd, Handle handle) except -1
cdef int set_writer(IOContext io, object fd, Handle handle) except -1
cdef object fileno_of(object fd)
cdef int keep_file(IOContext io, object number, object file) except -1
cdef object watched_fileno(IOContext io, object fd)
