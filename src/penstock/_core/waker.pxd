cdef class Waker:
    cdef readonly int fd
    # Set by the loop's thread before it blocks, taken by whoever wakes it: a busy loop costs its callers no system call.
    cdef bint is_asleep

    cdef int wake(self) except -1


cdef inline void fall_asleep(Waker waker) noexcept:
    waker.is_asleep = True


cdef inline void stay_awake(Waker waker) noexcept:
    waker.is_asleep = False
