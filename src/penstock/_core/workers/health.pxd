from libc.stdint cimport int64_t, uint64_t


cdef struct FollowedWords:
    # Pointers into the heartbeat that is followed.
    const int64_t *turn_since_ns
    const int64_t *callback_since_ns
    const uint64_t *turn_number
    const uint64_t *callbacks_done
    # The one before; its heartbeat is kept too.
    FollowedWords *earlier


cdef class HealthSampler:
    cdef Py_buffer page
    cdef int64_t *words
    # NULL: no heartbeat is followed. Written with the GIL, read without it.
    cdef FollowedWords *followed
    # All of them, also former ones.
    cdef FollowedWords *newest
    cdef list heartbeats
    # Its own descriptors, -1: there is none.
    cdef int stop_fd, lifeline_fd
    # What poll() is to report of the lifeline, besides its hang-up.
    cdef short lifeline_events
    # The process that made it.
    cdef int pid
    cdef bint running

    cdef void sample(self) noexcept nogil
