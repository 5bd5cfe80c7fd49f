from libc.stdint cimport int64_t, uint64_t

from penstock._core.limits.wheel cimport WheelEntry, Wheel

cdef enum:
    # The result of a check.
    FINE = 0
    SLOW_READER = 1
    RECEIVE = 2
    IDLE = 3
    REASONS = 4

cdef enum:
    # The expectation: guessed; data by a deadline that the program has set; none; none to which `receive_s` applies; the
    # rest of a request.
    GUESSED = 0
    BY_DEADLINE = 1
    NOTHING = 2
    UNKNOWN_PROTOCOL = 3
    RECEIVING = 4


cdef class TimeoutBounds:
    # 0: off.
    cdef readonly Py_ssize_t slow_reader_bytes
    cdef readonly int64_t slow_reader_ns, receive_ns, idle_ns


cdef class PeerTimeouts:
    cdef WheelEntry due
    cdef Wheel wheel
    cdef TimeoutBounds bounds
    cdef int fd
    # Only of what a server has accepted are requests expected, and a long silence is its end.
    cdef bint is_accepted, is_over
    cdef int expectation
    # When anything was last read or written, and in which turn of the loop.
    cdef int64_t active_ns
    cdef uint64_t active_turn
    # Since when something is awaited or coming in that has not been answered, 0: nothing is.
    cdef int64_t begun_ns
    cdef int64_t received_ns
    cdef uint64_t received_bytes
    # All that has come in, and what had by the time that a request's time began anew.
    cdef uint64_t total_bytes, expected_from_bytes
    # Whether the wheel will see a request that is too long in coming.
    cdef bint is_watching, is_overdue
    cdef int64_t expected_from_ns, deadline_ns
    cdef uint64_t sent_bytes
    # Since when the peer takes too little, and what it had taken by then; 0: it does not.
    cdef int64_t slow_since_ns
    cdef uint64_t slow_from_bytes
    cdef int unsent_bytes

    cdef int begin(self, object owner, int64_t now_ns) except -1
    cdef int end(self) except -1
    cdef int watch_request(self) except -1
    cdef int queue_grew(self, size_t queued_bytes, size_t high_bytes, int64_t now_ns) except -1
    cdef int check(self, int64_t now_ns, size_t queued_bytes, size_t high_bytes, bint is_reading) except -1
    cdef int check_slow_reader(self, int64_t now_ns, size_t queued_bytes, size_t high_bytes, int64_t *next_ns) except -1
    cdef int check_request(self, int64_t now_ns, bint is_reading, int64_t *next_ns) except -1
    cdef int64_t until_ns(self) noexcept
    cdef uint64_t request_bytes(self) noexcept
    cdef bint is_expecting(self) noexcept
    cdef int restart(self, int64_t now_ns, bint is_busy) noexcept
    cdef int check_idle(self, int64_t now_ns, int64_t *next_ns) except -1
    cdef int expect(self, int expects, int64_t now_ns, int64_t deadline_ns) except -1
    cdef uint64_t taken_bytes(self) noexcept
    cdef int64_t since_ns(self, int reason, int64_t now_ns) noexcept
    cdef size_t counted(self, int reason, size_t waiting_bytes) noexcept
    cdef size_t slow_bytes(self, size_t high_bytes) noexcept


cdef inline int note_read(PeerTimeouts timeouts, int64_t now_ns, uint64_t turn, Py_ssize_t bytes) except -1:
    """Something has come in."""
    timeouts.active_ns = timeouts.received_ns = now_ns
    timeouts.active_turn = turn
    timeouts.received_bytes += bytes
    timeouts.total_bytes += bytes
    if timeouts.begun_ns == 0:
        timeouts.begun_ns = now_ns
    if not timeouts.is_watching:
        timeouts.watch_request()
    return 0


cdef inline int note_write(PeerTimeouts timeouts, int64_t now_ns, uint64_t turn) noexcept:
    """The program answers: whatever came in before was a request, and it was whole."""
    timeouts.active_ns = now_ns
    timeouts.active_turn = turn
    timeouts.begun_ns = 0
    timeouts.received_bytes = 0
    timeouts.is_overdue = False
    return 0


cdef inline int note_sent(PeerTimeouts timeouts, int64_t now_ns, uint64_t turn, Py_ssize_t bytes) noexcept:
    """The kernel has taken what was queued."""
    timeouts.active_ns = now_ns
    timeouts.active_turn = turn
    timeouts.sent_bytes += bytes
    return 0
