cdef class Waker:
    cdef readonly int fd
    # Set by the loop's thread before it blocks, cleared by the thread that wakes it: a busy loop costs its callers no system call.
    cdef bint is_asleep

    cdef void interrupt(self) noexcept


cdef inline void fall_asleep(Waker waker) noexcept:
    waker.is_asleep = True


cdef inline void stay_awake(Waker waker) noexcept:
    waker.is_asleep = False


cdef inline void wake(Waker waker) noexcept:
    """From any thread. A plain look first: an awake loop costs its callers no locked instruction either."""
    if waker.is_asleep:
        waker.interrupt()
