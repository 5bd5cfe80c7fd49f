from libc.stdint cimport int64_t

from penstock._core.events.handle cimport Handle
from penstock._core.events.inbox cimport Inbox
from penstock._core.events.poller cimport Source
from penstock._core.events.timers cimport Timers
from penstock._core.events.waker cimport Waker
from penstock._core.net.io_context cimport IOContext
from penstock._core.overload.lag cimport Lag
from penstock._core.runs cimport RunLifecycle
from penstock._core.sheds cimport ShedCounts
from penstock._core.tasks.probe cimport Probe


cdef class WakerSource(Source):
    """The waker in the poller's table: waking is all it does."""
    pass


cdef class Reactor(RunLifecycle):
    cdef IOContext io
    cdef Timers timers
    cdef Inbox inbox
    cdef Waker waker
    cdef WakerSource waker_source
    cdef Probe probe
    # Poll policy: while handles are ready, at the latest after so many turns or so long.
    cdef int poll_every_turns
    cdef int64_t poll_every_ns, spin_ns
    # How long the next blocking poll looks before it sleeps, whatever `spin_ns` says: something is about to come.
    cdef int64_t soon_ns
    cdef int turns_unpolled
    cdef int64_t turn_ns, last_poll_ns
    # When the last callback of the turn before ended, which is when this turn begins; 0: the clock is read. And whether
    # `turn_ns` is such a time.
    cdef int64_t ended_ns
    cdef bint is_derived
    # Whether `time` is ours: then its value is read without calling it.
    cdef bint owns_clock
    # Whether events are expected to be there already.
    cdef bint is_busy
    # Whether this turn's poll has waited.
    cdef bint has_waited
    # Whether each turn observes the lag or the number of tasks; `lag` measures the lag, None: not measured.
    cdef bint observes_lag
    # Whether connections are accepted in the middle of a turn, and when they last were.
    cdef bint accepts_in_turn
    cdef int64_t accepted_ns
    cdef Lag lag
    cdef int64_t read_budget
    # How long the last poll waited, until `admit_backlog` has seen it.
    cdef int64_t slept_ns
    # How many reads and connections the last turn did not let in.
    cdef size_t deferred_before
    cdef ShedCounts sheds
    # The bound of live tasks, 0: none; the callbacks for one task more and for room again.
    cdef size_t most_tasks
    cdef object on_full, on_room
    cdef object __weakref__
    # {"loop": itself}, for new futures; None until the first one, and when closed.
    cdef dict future_keywords
    cdef public object _task_factory, _current_handle
    # What makes the tasks for which the program has set no factory; None: `make_task`.
    cdef public object _task_maker
    # The keyword arguments of a task without any of its own, kept during a run; None before the first of a run.
    cdef dict task_keywords

    cdef double now(self) except? -1.0
    cdef int turn(self) except -1
    cdef int end_run(self) except -1
    cdef bint poll_is_due(self) noexcept
    cdef int poll(self) except -1
    cdef int64_t poll_timeout_ns(self) except? -2
    cdef int block(self, int64_t timeout_ns) except -1
    cdef int run_batch(self) except -1
    cdef object make_task(self, object coro)
    cdef object make_by_factory(self, object coro, dict kwargs)
    cdef int run_batch_probed(self) except -1
    cdef int note_wake(self) noexcept
    cdef int run_batch_watched(self) except -1
    cdef int observe_lag(self) except -1
    cdef int admit_backlog(self) except -1
    cdef int accept_in_turn(self) except -1
    cdef int check_open(self) except -1
    cdef int inspect(self, Handle handle, str method, bint same_thread) except -1
    cdef int drain_inbox(self) except -1
    cdef int dispose(self) except -1
