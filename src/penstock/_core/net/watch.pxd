from libc.stdint cimport uint32_t

from penstock._core._sys.python cimport flag
from penstock._core.events.handle cimport Handle, Runnable
from penstock._core.events.poller cimport Source
from penstock._core.net.io_context cimport IOContext


cdef class WaitingCall(Runnable):
    """A call that waits for one side of a socket, in the place of a handle."""
    # A watch has queued it, and it has not run since.
    cdef flag is_queued
    # Whether one event for each change is enough: then the registration outlives the call.
    cdef bint takes_edges
    cdef object sock
    # Where it waits; None: nowhere.
    cdef Watch watch


cdef class Watch(Source):
    cdef IOContext io
    # A handle or a waiter for each side, or None.
    cdef readonly Runnable reader, writer
    # What was given in place of the number, or None; found again when it is closed.
    cdef object file
    # A weak reference to the socket for which the kernel keeps the registration, while nothing waits too; or None.
    cdef object kept_for
    # Events in a row that nothing waited for.
    cdef int idle_events

    cdef int drop_idle(self, uint32_t events) except -1
    cdef bint is_kept_for(self, object sock) except -1


cdef Watch watch_at(IOContext io, int fd)
cdef bint is_idle(object source)
cdef int set_reader(IOContext io, object fd, Handle handle) except -1
cdef int set_writer(IOContext io, object fd, Handle handle) except -1
cdef object fileno_of(object fd)
cdef int keep_file(IOContext io, object number, object file) except -1
cdef object watched_fileno(IOContext io, object fd)

cdef int enter(IOContext io, WaitingCall waiter, int fd, bint writes) except -1
cdef int leave(WaitingCall waiter) except -1
