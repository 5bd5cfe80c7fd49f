cimport cython

cdef int MEMORY
cdef double GAP_HOLDS_S, MARGIN_SERVICES, LARGEST_MARGIN, STANDING_S, SHORTEST_TIMEOUT_S, LONGEST_TIMEOUT_S
cdef double MOSTLY, LATE_WEIGHT


@cython.final
cdef class ServiceEstimator:
    cdef readonly double service_s
    cdef readonly Py_ssize_t service_count
    cdef double gap_s, departed_s, late_share, overloaded_until_s
    cdef Py_ssize_t gap_count

    cdef void reset(self) noexcept
    cdef void add_service(self, double rtt_s, Py_ssize_t bound) noexcept
    @cython.locals(weight=double)
    cdef void add_departure(self, double now_s, double backlog_since_s, Py_ssize_t bound) noexcept
    cdef double departure_gap_s(self, double now_s, Py_ssize_t bound) noexcept
    cdef void rescale(self, Py_ssize_t before, Py_ssize_t bound) noexcept
    cdef double retry_s(self, Py_ssize_t queued) noexcept
    @cython.locals(margin_s=double)
    cdef bint is_too_late(self, double waited_s, double deadline_s) noexcept
    cdef bint is_overloaded(self, double now_s) noexcept
    cdef void add_outcome(self, bint is_late, double now_s, double max_wait_s) noexcept
    @cython.locals(longest_s=double)
    cdef double timeout_s(self, double now_s, double longest_wait_s) noexcept
