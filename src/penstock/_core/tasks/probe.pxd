from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from penstock._core.events.handle cimport Runnable
from penstock._core.events.ready cimport Ready
from penstock._core.tasks.flight cimport FlightRecorder
from penstock._core.tasks.heartbeat cimport (
    Heartbeat,
    begin_turn as stamp_turn,
    end_turn as stamp_end_of_turn,
)
from penstock._core.tasks.histogram cimport Histogram, record as add_time
from penstock._core.tasks.ledger cimport Ledger, Record
from penstock._core.tasks.sites cimport TaskSites

cdef enum:
    OFF = 0
    COUNT = 1
    TIME = 2
    TRACE = 3

cdef enum:
    TASK = 0
    CALLBACK_KIND = 1
    TIMER = 2
    IO = 3


# A time that does not come.
cdef int64_t NEVER_NS


cdef class Probe:
    cdef readonly int level
    # The lowest level that can be set: the bound on tasks needs the count.
    cdef int least_level
    cdef readonly Heartbeat heartbeat
    cdef readonly Ledger ledger
    cdef readonly TaskSites sites
    # None below TIME
    cdef readonly FlightRecorder flight
    cdef uint64_t[4] ran
    cdef Histogram took0, took1, took2, took3
    cdef readonly Histogram delay, start_delay, turn, poll, wake
    cdef readonly uint64_t turns, polls, events
    cdef readonly int64_t active_ns, idle_ns
    # One creation in so many keeps its stack; a step that long goes into the flight recorder whatever the level.
    cdef uint32_t stack_every, stack_left
    cdef int64_t long_step_ns
    # The check for lost and stuck tasks, its next time, and its interval.
    cdef object check
    cdef int64_t check_at_ns, check_every_ns
    # Of the turn and the callback that run now.
    cdef int64_t turn_start_ns, start_ns
    # How long the running step was ready, at level TRACE; -1: not known.
    cdef int64_t waited_ns
    cdef Record *running
    cdef PyObject *running_task
    cdef int kind

    # Whether tasks get a done callback, because a program has replaced `call_soon`.
    cdef bint asks_for_ends
    # Exceptions of the probe and of the check; the one to report, and the time from which one may be logged.
    cdef readonly uint64_t errors
    cdef object error
    cdef int64_t log_from_ns

    cdef int born(self, object task, object coro, int64_t born_ns, bint is_eager) except -1
    cdef int begin_callback(self, PyObject *entry) noexcept
    cdef int end_callback(self) noexcept
    cdef int polled(self, int64_t waited_ns, int events) except -1
    cdef int end_task(self, Record *record, int outcome, int64_t now_ns) except -1
    cdef Record *adopt(self, PyObject *task) except NULL
    cdef Record *adopt_anew(self, PyObject *task, Record *former) except NULL
    cdef PyObject *took_of_kind(self) noexcept
    cdef int note_run(self, Record *record, int64_t took_ns) noexcept
    cdef int run_check(self, int64_t now_ns) except -1
    cdef int mark_ready(self, Ready ready) except -1
    cdef int first_eager_step(self, Record *record) noexcept
    cdef object sampled_stack(self)
    cdef int take_error(self) noexcept
    cdef int report_error(self) except -1


# Here and at the edges around a callback, attributes are taken as local pointers: Cython takes a reference to an attribute
# that is an argument, and gives it back after the call, which costs as much as all that the call does.
cdef inline void begin_turn(Probe probe, int64_t now_ns) noexcept:
    cdef PyObject *heartbeat = <PyObject *>probe.heartbeat
    probe.start_ns = probe.turn_start_ns = now_ns
    if probe.level >= TIME:
        stamp_turn(<Heartbeat>heartbeat, now_ns)


cdef inline int end_turn(Probe probe) except -1:
    """End the turn: every callback has run, or one of them has ended the loop."""
    cdef int64_t took_ns = probe.start_ns - probe.turn_start_ns
    cdef PyObject *heartbeat = <PyObject *>probe.heartbeat
    cdef PyObject *turn = <PyObject *>probe.turn
    stamp_end_of_turn(<Heartbeat>heartbeat, probe.start_ns)
    probe.turns += 1
    if probe.level >= TIME:
        add_time(<Histogram>turn, took_ns)
        probe.active_ns += took_ns
    return 0 if probe.error is None else probe.report_error()
