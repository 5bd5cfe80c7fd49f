from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from penstock._core._sys.epoll cimport epoll_event
from penstock._core.events.handle cimport Runnable

cdef enum:
    BATCH = 512


cdef class Source(Runnable):
    """A file descriptor in the poller's table."""
    cdef readonly int fd
    # Takes the events that the kernel reported. Only queues: no Python code may run under it.
    cdef int on_events(self, uint32_t events) except -1


cdef struct Slot:
    PyObject *source
    uint32_t interest
    uint32_t serial


cdef class Poller:
    # Not used: it makes Cython make a type that the garbage collector looks into.
    cdef object collected
    cdef readonly int fd
    cdef Slot *slots
    cdef size_t size
    cdef uint32_t last_serial
    # How many polls have been dispatched.
    cdef uint64_t polls
    # The number of sources that leave before the table is fitted to the remaining ones.
    cdef int64_t forgets_left
    cdef int forks_seen
    # Events of registrations that have left the table since the epoll set was made.
    cdef size_t stale_events
    cdef epoll_event events[BATCH]

    cdef int add(self, Source source, uint32_t interest) except -1
    cdef int change(self, Source source, uint32_t interest) except -1
    cdef int renew(self, Source source, uint32_t interest) except -1
    cdef int remove(self, Source source) except -1
    cdef int forget(self, Source source) except -1
    cdef Source at(self, int fd)
    cdef int control(self, int operation, int fd, uint32_t interest, uint32_t serial) noexcept
    cdef int poll_now(self) noexcept
    cdef int wait(self, int64_t timeout_ns, int64_t spin_ns) noexcept
    cdef int dispatch(self, int count) except -1
    cdef int tell_from(self, int told, int count) except -1
    cdef int tell(self, epoll_event *event) except -1
    cdef int ask_again(self, epoll_event *event) except -1
    cdef Source source_of(self, epoll_event *event)
    cdef int shrink(self) noexcept
    cdef int resize(self, size_t size) noexcept
    cdef bint is_inherited(self) noexcept
    cdef int reopen(self) except -1
    cdef int drop_stale(self) except -1
    cdef int register_all(self) except -1
    cdef int close(self) except -1
