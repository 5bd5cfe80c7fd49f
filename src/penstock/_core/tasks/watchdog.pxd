from libc.stdint cimport int64_t, uint64_t

from penstock._core.tasks.heartbeat cimport WakeEvent, SchedulerStats, Span, Heartbeat


cdef struct Totals:
    # Totals at one moment; what lies between two of them is their difference. cpu_ns and runnable_ns are -1 where they are
    # not known.
    int64_t at_ns, cpu_ns, gc_ns, runnable_ns, late_ns


cdef struct HeartbeatWords:
    # Pointers into the heartbeat to which a loop writes.
    const int64_t *turn_since_ns
    const int64_t *callback_since_ns
    const uint64_t *turn_number
    const uint64_t *callbacks_done
    const unsigned long *thread_id
    const int *native_id
    const int *cpu_clock
    const int *schedule_fd
    const int *schedule_thread
    const Span *stalled_callback
    const Span *stalled_turn
    # The word that the watchdog writes.
    int *rings


cdef struct HeartbeatReading:
    # The words as they were at one observation.
    int64_t turn_since_ns, callback_since_ns
    uint64_t turn_number, callbacks_done


cdef struct Observation:
    HeartbeatWords words
    int64_t stall_ns
    # The totals at the last observation; at the first one in this turn, and in this callback.
    Totals last, turn, callback
    HeartbeatReading then
    # Reports of the present turn and callback: 0 none, 1 at stall_ns, 2 at ten times that.
    int turn_reported, callback_reported
    # The beginning of the turn and the callback whose stall is reported, and whose end is not; 0: none.
    int64_t turn_open_ns, callback_open_ns
    # When the loop was asked to signal the end of its present rest; 0: it was not.
    int64_t rest_ns


cdef class WatchedLoop:
    cdef readonly Heartbeat heartbeat
    cdef SchedulerStats schedule
    cdef Observation observation


cdef enum:
    # The newest collections that are kept; a power of two.
    KEPT = 1024


cdef struct Collection:
    int64_t at_ns, took_ns
    int generation


cdef class CollectionTimes:
    cdef int64_t since_ns, spent_ns
    cdef uint64_t done
    cdef Collection[KEPT] kept


cdef class Watchdog:
    cdef readonly CollectionTimes collections
    cdef WakeEvent wake_event
    # The thread that may wait, as `threading.get_ident()` has it; 0: there is none.
    cdef unsigned long waits
    cdef bint stopping, changed
    cdef list watched
    # The observations of this round; borrowed from the list that the thread holds meanwhile.
    cdef Observation **observations
    cdef Py_ssize_t observation_count
    # The total lateness of this thread's wake-ups.
    cdef int64_t late_ns
    # When it was woken, until it has seen that.
    cdef int64_t woken_ns
    # The last finding.
    cdef Py_ssize_t found
    cdef bint found_turn, found_gone, found_end
    cdef int found_level
    cdef int64_t asked_ns
    # The beginning and the end of a stall that has ended.
    cdef Span ended

    cdef int notify_change(self) except -1
    cdef int take_observations(self, list held) except -1
    cdef bint watch(self) noexcept nogil
    cdef bint has_ended(self, Observation *observation, int64_t at_ns) noexcept nogil
    cdef bint inspect(self, Observation *observation, int64_t at_ns) noexcept nogil
    cdef Totals totals(self, Observation *observation, int64_t at_ns) noexcept nogil
    cdef object stall_report(self, WatchedLoop watched)
    cdef void note_reported(self, Observation *observation, int64_t lasted_ns) noexcept
