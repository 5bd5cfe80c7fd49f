"""The watchdog: one thread that reads the heartbeat of every loop without the GIL, and finds a turn that does not end.

`wait` is the body of that thread, which is Python's. It sleeps in poll(), checks the heartbeats, and returns with the
GIL when a turn or callback has lasted too long. The caller says which code is the cause; here are the measurements
for that. A loop that rests is not checked: its next turn signals the watchdog. So a process with idle loops is not
woken. There is one such thread at a time, the one to which `claim` has returned True, for the state of the checks is
its own.

Ownership: the thread holds the heartbeats that it checks in a list of its own while it checks them. So `remove` only
takes a loop off the list for the next round. A `WatchedLoop` and the heartbeat that it watches own the loop's
scheduler statistics; the watchdog and those heartbeats own its wake event.
"""

import gc

from penstock._core.tasks.rows import StallEnd, StallSighting

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport int64_t, uint64_t
from penstock._core._sys.epoll cimport eventfd_t
from penstock._core._sys.poll cimport wait_readable
from penstock._core._sys.python cimport row
from penstock._core._sys.threads cimport cpu_ns, runnable_ns
from penstock._core.events.clock cimport now_ns
from penstock._core.tasks.heartbeat cimport WakeEvent, SchedulerStats, Span, Heartbeat

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() noexcept

# The threads of this interpreter alone: sys._current_frames() makes frames for those of other interpreters as well, which
# they free as their own, with an allocator of their own. The GIL keeps the list and the frames as they are.
cdef extern from *:
    """
    static PyObject *penstock_frame_of(unsigned long thread)
    {
        PyThreadState *state = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
        for (; state != NULL; state = PyThreadState_Next(state))
            if (state->thread_id == thread)
                return (PyObject *)PyThreadState_GetFrame(state);
        return NULL;
    }
    """
    # a new reference, or NULL without an exception
    PyObject *find_frame "penstock_frame_of"(unsigned long thread) noexcept

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd_read(int fd, eventfd_t *value)

# Words that another thread writes: each is read once, in this order.
cdef extern from *:
    """
    #define penstock_word(pointer) __atomic_load_n(pointer, __ATOMIC_ACQUIRE)
    """
    int64_t word "penstock_word"(const int64_t *word) noexcept nogil
    uint64_t count_word "penstock_word"(const uint64_t *word) noexcept nogil
    unsigned long thread_word "penstock_word"(const unsigned long *word) noexcept nogil
    int small_word "penstock_word"(const int *word) noexcept nogil
    void set_word "__atomic_store_n"(int *word, int value, int order) noexcept nogil
    int SEQ_CST "__ATOMIC_SEQ_CST"

cdef enum:
    # A stall is reported at stall_ns, and again at so many times that.
    AGAIN = 10
    # A loop that rests is asked to signal its next turn. It is not checked any more once it has rested for so long after
    # that: longer than any processor takes to show another what it has written.
    SETTLED_NS = 1_000_000

cdef int64_t NEVER_NS = (<int64_t>1 << 62)


def frame_of(unsigned long thread):
    """Return the frame that a thread of this interpreter runs now; None if it runs none."""
    cdef PyObject *frame = find_frame(thread)
    try:
        return None if frame == NULL else <object>frame
    finally:
        Py_XDECREF(frame)


cdef class CollectionTimes:
    """The times of this process's garbage collections: a callable for `gc.callbacks`, in native code, so that it does
    not lengthen a collection. A collection anywhere holds the GIL, so it stalls every loop."""

    def __call__(self, str phase, dict info):
        cdef Collection *one
        if phase == "start":
            self.since_ns = now_ns()
        elif self.since_ns:
            one = &self.kept[self.done & (KEPT - 1)]
            one.at_ns, one.took_ns, one.generation = self.since_ns, now_ns() - self.since_ns, info["generation"]
            self.spent_ns += one.took_ns
            self.since_ns = 0
            self.done += 1

    def install(self):
        """Count from now on."""
        if self not in gc.callbacks:
            self.since_ns = 0
            gc.callbacks.append(self)

    def uninstall(self):
        """Stop counting."""
        if self in gc.callbacks:
            gc.callbacks.remove(self)

    @property
    def count(self):
        """The number of collections that have ended."""
        return self.done

    def recent(self, int64_t since_ns):
        """Return (at_ns, took_ns, generation) of the newest collections that ended at `since_ns` or later, oldest first."""
        cdef uint64_t at, first = 0 if self.done <= KEPT else self.done - KEPT
        found = []
        for at in range(first, self.done):
            one = self.kept[at & (KEPT - 1)]
            if one.at_ns + one.took_ns >= since_ns:
                found.append((one.at_ns, one.took_ns, one.generation))
        return found

    @property
    def total_s(self):
        """The total time of the ended collections, in seconds."""
        return <double>self.spent_ns / 1e9


cdef class WatchedLoop:
    """A loop under watch."""

    def __cinit__(self, Heartbeat heartbeat not None, int64_t stall_ns):
        self.heartbeat, self.schedule = heartbeat, SchedulerStats()
        # ten times that is still a time
        self.observation.stall_ns = min(stall_ns, NEVER_NS // AGAIN)
        self.observation.words.turn_since_ns = &heartbeat.turn_since_ns
        self.observation.words.callback_since_ns = &heartbeat.callback_since_ns
        self.observation.words.turn_number = &heartbeat.turn_number
        self.observation.words.callbacks_done = &heartbeat.callbacks_done
        self.observation.words.thread_id = &heartbeat.thread_id
        self.observation.words.native_id = &heartbeat.native_id
        self.observation.words.cpu_clock = &heartbeat.cpu_clock
        self.observation.words.stalled_callback = &heartbeat.stalled_callback
        self.observation.words.stalled_turn = &heartbeat.stalled_turn
        self.observation.words.rings = &heartbeat.rings
        self.observation.words.schedule_fd = &self.schedule.fd
        self.observation.words.schedule_thread = &self.schedule.thread


cdef class Watchdog:
    """The state of the watching thread. Any thread may call a method other than `wait`."""

    def __cinit__(self):
        self.watched = []
        self.collections = CollectionTimes()
        self.wake_event = WakeEvent()

    def __dealloc__(self):
        PyMem_Free(self.observations)

    def add(self, Heartbeat heartbeat not None, int64_t stall_ns):
        """Watch a loop by its heartbeat for stalls of `stall_ns` nanoseconds. Return the argument for `remove`."""
        if stall_ns <= 0:
            raise ValueError(f"a stall lasts more than {stall_ns} ns: give a positive stall_ns")
        watched = WatchedLoop(heartbeat, stall_ns)
        heartbeat.wake_event, heartbeat.schedule = self.wake_event, watched.schedule
        # of a loop that runs already
        watched.schedule.follow(heartbeat.native_id)
        heartbeat.stall_ns = watched.observation.stall_ns
        if not self.watched:
            self.collections.install()
        self.watched.append(watched)
        self.notify_change()
        return watched

    def remove(self, WatchedLoop watched not None):
        """Stop watching a loop; a second call does nothing."""
        if watched in self.watched:
            self.watched.remove(watched)
            if watched.heartbeat.schedule is watched.schedule:
                watched.heartbeat.schedule = None
                watched.heartbeat.stall_ns = NEVER_NS
            if not self.watched:
                self.collections.uninstall()
            self.notify_change()

    cdef int notify_change(self) except -1:
        self.changed = True
        self.wake()
        return 0

    def wake(self):
        """Check again: a loop has begun to run."""
        if self.woken_ns == 0:
            self.woken_ns = now_ns()
        self.wake_event.ring()

    def stop(self):
        """Have `wait` return None, now and until `resume`."""
        self.stopping = True
        self.notify_change()

    def resume(self):
        """Have `wait` wait again, after `stop`."""
        self.stopping = False

    @property
    def is_stopping(self):
        """Whether `wait` is to return."""
        return self.stopping

    def __len__(self):
        """Return how many loops are watched."""
        return len(self.watched)

    def claim(self):
        """Make the calling thread the one that waits; False if another one is."""
        cdef unsigned long own = PyThread_get_thread_ident()
        if self.waits and self.waits != own:
            return False
        self.waits = own
        return True

    def release(self):
        """Give up the claim of the calling thread, so that another may `claim`. Do nothing in any other thread."""
        if self.waits == PyThread_get_thread_ident():
            self.waits = 0

    def is_needed(self):
        """Return whether a loop that is watched runs."""
        cdef WatchedLoop watched
        for watched in self.watched:
            if watched.heartbeat.thread_id:
                return True
        return False

    def forked(self):
        """Start anew in a forked child: the eventfd is shared with the parent, and no loop runs here."""
        cdef WatchedLoop watched
        self.wake_event.reopen()
        self.stopping = False
        self.waits = 0
        self.woken_ns = self.collections.since_ns = 0
        for watched in self.watched:
            watched.observation.turn_open_ns = watched.observation.callback_open_ns = 0
            watched.heartbeat.leave()

    def wait(self):
        """Wait for a stall. Return its `StallSighting`, or the `StallEnd` of a reported one; None without loops or after `stop`.

        For the watching thread alone: RuntimeError in any other.
        """
        cdef list held
        cdef bint found
        if self.waits != PyThread_get_thread_ident():
            raise RuntimeError("wait() is for the thread that has claimed the watchdog")
        while self.watched and not self.stopping:
            # cleared before the list is taken: a change from here on is seen in the next round
            self.changed = False
            held = list(self.watched)
            self.take_observations(held)
            with nogil:
                found = self.watch()
                self.asked_ns = now_ns()
            if found and self.found_end:
                return row(StallEnd, (
                    held[self.found], bool(self.found_turn), self.ended.since_ns, self.ended.until_ns,
                ))
            if found:
                return self.stall_report(<WatchedLoop>held[self.found])
        return None

    cdef int take_observations(self, list held) except -1:
        cdef Py_ssize_t i
        cdef void *memory = PyMem_Realloc(self.observations, len(held) * sizeof(Observation *))
        if memory is NULL:
            raise MemoryError
        self.observations, self.observation_count = <Observation **>memory, len(held)
        for i in range(self.observation_count):
            self.observations[i] = &(<WatchedLoop>held[i]).observation
        return 0

    cdef bint watch(self) noexcept nogil:
        """Check and sleep until there is a stall, True, or the list of loops has changed, False."""
        cdef int64_t at_ns = now_ns(), wake_ns, slept_ns, looked_ns
        cdef eventfd_t ignored
        cdef int ready
        while True:
            wake_ns = NEVER_NS
            for self.found in range(self.observation_count):
                if self.inspect(self.observations[self.found], at_ns):
                    return True
                wake_ns = min(wake_ns, next_check_ns(self.observations[self.found], at_ns))
            if self.changed:
                return False
            slept_ns = now_ns()
            ready = wait_readable(self.wake_event.fd, -1 if wake_ns == NEVER_NS else max(<int64_t>0, wake_ns - slept_ns))
            if ready > 0:
                wake_ns = min(wake_ns, self.woken_ns if self.woken_ns else now_ns())
                eventfd_read(self.wake_event.fd, &ignored)
                self.woken_ns = 0
            # Lateness is oversleep, and the time of the few instructions around the sleep: the process may be stopped at
            # any of them, so no time lies between one check's account and the next one's.
            looked_ns, at_ns = at_ns, now_ns()
            self.late_ns += max(<int64_t>0, at_ns - max(wake_ns, slept_ns)) + slept_ns - looked_ns

    cdef bint has_ended(self, Observation *observation, int64_t at_ns) noexcept nogil:
        """Return whether a reported stall has ended."""
        if observation.callback_open_ns and observation.callback_open_ns != word(observation.words.callback_since_ns):
            self.found_turn = False
            self.ended.since_ns, observation.callback_open_ns = observation.callback_open_ns, 0
            self.ended.until_ns = end_of(observation.words.stalled_callback, self.ended.since_ns, at_ns)
            return True
        if observation.turn_open_ns and observation.turn_open_ns != word(observation.words.turn_since_ns):
            self.found_turn = True
            self.ended.since_ns, observation.turn_open_ns = observation.turn_open_ns, 0
            self.ended.until_ns = end_of(observation.words.stalled_turn, self.ended.since_ns, at_ns)
            return True
        return False

    cdef bint inspect(self, Observation *observation, int64_t at_ns) noexcept nogil:
        """Check one loop. Return whether there is something to report."""
        cdef HeartbeatReading now
        cdef Totals totals
        cdef bint is_new_turn, is_new_callback, found = False
        cdef int turn_level, callback_level
        self.found_end = self.has_ended(observation, at_ns)
        if self.found_end:
            return True
        if thread_word(observation.words.thread_id) == 0:
            observation.then.turn_since_ns = observation.last.at_ns = 0
            observation.last.late_ns = self.late_ns
            observation.rest_ns = 0
            return False
        if not read_words(observation, &now):
            observation.rest_ns = 0
            return False
        turn_level = level(now.turn_since_ns, at_ns, observation.stall_ns)
        callback_level = level(now.callback_since_ns, at_ns, observation.stall_ns)
        totals = self.totals(observation, at_ns)
        is_new_turn = now.turn_number != observation.then.turn_number or now.turn_since_ns != observation.then.turn_since_ns
        is_new_callback = is_new_turn or now.callbacks_done != observation.then.callbacks_done
        if now.turn_since_ns or is_new_turn:
            observation.rest_ns = 0
        elif observation.rest_ns == 0:
            observation.rest_ns = at_ns
            set_word(observation.words.rings, 1, SEQ_CST)
        # Of a past turn, unless it was reported, or the present one was stopped as well and is reported itself.
        self.found_gone = is_new_turn and not turn_level and observation.last.at_ns and observation.then.turn_since_ns != 0
        self.found_gone = self.found_gone and not observation.turn_reported
        self.found_gone = self.found_gone and was_stopped(observation, &totals)
        if self.found_gone:
            found = self.found_turn = True
        # A turn that is too long when it is first seen began after the last observation: its totals count from there.
        if is_new_turn:
            observation.turn_reported = 0
            observation.turn = before(observation, totals) if turn_level else totals
        if is_new_callback:
            observation.callback_reported = 0
            observation.callback = before(observation, totals) if callback_level else totals
        observation.then = now
        if found:
            return True
        observation.last = totals
        self.found_level = max(turn_level, callback_level)
        if callback_level > observation.callback_reported:
            self.found_turn = False
            return True
        if turn_level > observation.turn_reported:
            # One callback that is most of the turn is its fault, though it was not the first.
            self.found_turn = (at_ns - now.callback_since_ns) * 2 < at_ns - now.turn_since_ns or (
                now.callback_since_ns == 0
            )
            return True
        return False

    cdef Totals totals(self, Observation *observation, int64_t at_ns) noexcept nogil:
        cdef Totals totals
        cdef int thread = small_word(observation.words.native_id)
        cdef int64_t gc_since_ns = word(&self.collections.since_ns)
        cdef bint has_schedule = thread != 0 and small_word(observation.words.schedule_thread) == thread
        totals.at_ns = at_ns
        totals.gc_ns = word(&self.collections.spent_ns) + (at_ns - gc_since_ns if gc_since_ns else 0)
        totals.cpu_ns = cpu_ns(small_word(observation.words.cpu_clock))
        totals.runnable_ns = runnable_ns(small_word(observation.words.schedule_fd)) if has_schedule else -1
        totals.late_ns = self.late_ns
        return totals

    cdef object stall_report(self, WatchedLoop watched):
        """Return the stall as it is now, with the GIL: the loop's thread may have gone on meanwhile."""
        cdef Observation *observation = &watched.observation
        cdef HeartbeatReading *then = &observation.then
        cdef int64_t at_ns = now_ns(), since_ns, lasted_ns
        cdef Totals end = self.totals(observation, at_ns)
        cdef Totals *begin = &observation.turn if self.found_turn else &observation.callback
        cdef Heartbeat heartbeat = watched.heartbeat
        cdef const Span *span
        cdef bint again, is_over
        if self.found_gone:
            # The turn of the last observation is over; all that is known is that no thread ran for so long.
            begin, since_ns, is_over = &observation.last, observation.last.at_ns, True
            lasted_ns = end.at_ns - begin.at_ns
            again = False
        else:
            is_over = heartbeat.turn_number != then.turn_number or heartbeat.turn_since_ns != then.turn_since_ns or (
                not self.found_turn and heartbeat.callbacks_done != then.callbacks_done
            )
            # A turn or a callback that is most of one; the latter from its own beginning.
            since_ns = then.turn_since_ns if self.found_turn else then.callback_since_ns
            lasted_ns = at_ns - since_ns
            if is_over:
                span = observation.words.stalled_turn if self.found_turn else observation.words.stalled_callback
                lasted_ns = end_of(span, since_ns, self.asked_ns) - since_ns
            elif self.found_turn:
                observation.turn_open_ns = since_ns
            else:
                observation.callback_open_ns = since_ns
            again = observation.turn_reported > 0 if self.found_turn else observation.callback_reported > 0
        result = row(StallSighting, (
            watched, since_ns, lasted_ns, end.at_ns - self.asked_ns, end.at_ns - begin.at_ns,
            -1 if begin.cpu_ns < 0 or end.cpu_ns < 0 else end.cpu_ns - begin.cpu_ns,
            -1 if observation.last.cpu_ns < 0 or end.cpu_ns < 0 else end.cpu_ns - observation.last.cpu_ns,
            max(<int64_t>0, end.gc_ns - begin.gc_ns),
            0 if begin.runnable_ns < 0 else max(<int64_t>0, end.runnable_ns - begin.runnable_ns),
            end.late_ns - begin.late_ns, then.turn_number, then.callbacks_done,
            bool(self.found_turn), bool(again), bool(is_over),
        ))
        if self.found_gone:
            observation.last = end
        else:
            self.note_reported(observation, lasted_ns)
        return result

    cdef void note_reported(self, Observation *observation, int64_t lasted_ns) noexcept:
        """Note what was reported, by the final length: a long wait for the GIL may have made ten times of one.

        A callback that is most of a turn is reported when the turn is due, and stands for both.
        """
        cdef int now_told = 2 if lasted_ns >= AGAIN * observation.stall_ns else self.found_level
        observation.turn_reported = max(observation.turn_reported, now_told)
        if not self.found_turn:
            observation.callback_reported = max(observation.callback_reported, now_told)


cdef bint read_words(Observation *observation, HeartbeatReading *now) noexcept nogil:
    """Read the words. Return False when the loop wrote meanwhile, so that they are of two turns."""
    now.turn_number = count_word(observation.words.turn_number)
    now.turn_since_ns = word(observation.words.turn_since_ns)
    now.callbacks_done = count_word(observation.words.callbacks_done)
    now.callback_since_ns = word(observation.words.callback_since_ns)
    return (
        now.turn_number == count_word(observation.words.turn_number)
        and now.turn_since_ns == word(observation.words.turn_since_ns)
        and now.callbacks_done == count_word(observation.words.callbacks_done)
    )


cdef inline int64_t end_of(const Span *stalled, int64_t since_ns, int64_t at_ns) noexcept nogil:
    """When the stall ended, as the loop has noted it; where it has not, by the time of the observation."""
    cdef int64_t until_ns
    if word(&stalled.since_ns) != since_ns:
        return at_ns
    until_ns = word(&stalled.until_ns)
    return until_ns if word(&stalled.since_ns) == since_ns else at_ns


cdef inline Totals before(Observation *observation, Totals totals) noexcept nogil:
    """The totals at the last observation; of a loop that did not run then, only how late this thread has been."""
    if observation.last.at_ns:
        return observation.last
    totals.late_ns = observation.last.late_ns
    return totals


cdef bint was_stopped(Observation *observation, Totals *totals) noexcept nogil:
    """Return whether neither this thread nor the loop's ran between two observations: a stopped process or machine."""
    cdef int64_t late_ns = totals.late_ns - observation.last.late_ns
    return (
        late_ns >= observation.stall_ns
        and observation.last.cpu_ns >= 0
        and totals.cpu_ns >= 0
        and (totals.cpu_ns - observation.last.cpu_ns) * 4 < late_ns
    )


cdef inline int level(int64_t since_ns, int64_t at_ns, int64_t stall_ns) noexcept nogil:
    if since_ns == 0 or at_ns - since_ns < stall_ns:
        return 0
    return 2 if at_ns - since_ns >= AGAIN * stall_ns else 1


cdef int64_t next_check_ns(Observation *observation, int64_t at_ns) noexcept nogil:
    """Return the time of the next check: twice in each stall's length, to know the totals of its first half, and when due.

    A loop that does not run or that rests is not checked: it wakes the watchdog when it begins.
    """
    cdef int64_t next_ns = at_ns + observation.stall_ns // 2
    if thread_word(observation.words.thread_id) == 0 or (
        observation.rest_ns and at_ns - observation.rest_ns >= SETTLED_NS
    ):
        return NEVER_NS
    if observation.then.turn_since_ns:
        next_ns = sooner(next_ns, observation.then.turn_since_ns, observation.turn_reported, observation.stall_ns, at_ns)
        if observation.then.callback_since_ns:
            next_ns = sooner(next_ns, observation.then.callback_since_ns, observation.callback_reported, observation.stall_ns, at_ns)
    return next_ns


cdef inline int64_t sooner(int64_t next_ns, int64_t since_ns, int told, int64_t stall_ns, int64_t at_ns) noexcept nogil:
    cdef int64_t due_ns
    if told > 1:
        return next_ns
    due_ns = since_ns + (AGAIN * stall_ns if told else stall_ns)
    return min(next_ns, due_ns) if due_ns > at_ns else next_ns
