from libc.stdint cimport int64_t, uint64_t


cdef class Lag:
    cdef readonly int64_t high_ns, low_ns, for_ns, defer_ns
    # The average wait of ready handles, in nanoseconds; idle time counts as no wait.
    cdef readonly double lag_ns
    # Whether reads are deferred; whether the loop is overloaded, of which `report` is notified.
    cdef readonly bint is_deferring, is_overloaded
    cdef readonly uint64_t overloaded_count
    # Called between two turns when `is_overloaded` has changed; None: no listener.
    cdef public object report
    # The start of the last turn seen; 0: the loop has stood still.
    cdef int64_t seen_ns
    # Since when it has been as overload begins or ends, and as holding ends; 0: it is not.
    cdef int64_t turning_since_ns, calm_since_ns
    cdef int64_t overloaded_since_ns, overloaded_ns
    # The wait at the start of the last observed turn, and the number of handles that it ran.
    cdef int64_t waited_ns
    cdef size_t ran
    # What one read costs, with all that it sets going; and what that is measured from: how long the loop has been busy
    # since nothing was ready, and how many were let in in that time.
    cdef double cost_ns
    # The same averaged, for what is predicted of many; and as it was last, before the average.
    cdef double usual_ns, last_ns
    cdef int64_t spent_ns
    cdef size_t admitted
    # The end of the longest recent stall, and its excess, which does not count as wait of entries from before it.
    cdef int64_t pardoned_ns, pardon_ns
    # When it last waited for the OS, or for the end of a stall.
    cdef int64_t rested_ns

    cdef int observe(self, int64_t now_ns, int64_t idle_ns, size_t ready, int64_t oldest_ns, size_t deferred) except -1
    cdef int update_deferring(self, int64_t now_ns, int64_t busy_ns, size_t deferred) noexcept
    cdef int average(self, int64_t busy_ns, int64_t idle_ns) noexcept
    cdef int decide(self, int64_t now_ns, size_t deferred) except -1
    cdef int change(self, int64_t now_ns) except -1
    cdef int notify(self) except -1
    cdef int64_t budget(self) noexcept
    cdef size_t share(self, size_t ready, size_t deferred) noexcept
    cdef bint is_late(self) noexcept
    cdef size_t backlog_limit(self, int64_t oldest_since_ns) noexcept
    cdef bint is_stale(self, int64_t oldest_since_ns) noexcept
    cdef bint is_expired(self, int64_t oldest_since_ns) noexcept
    cdef int pardon(self, int64_t now_ns, int64_t busy_ns) noexcept
    cdef int64_t waited_since(self, int64_t since_ns) noexcept
    cdef int measure(self) noexcept
