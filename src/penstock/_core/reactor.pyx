"""The reactor: runs turns. One turn drains the inbox, polls if it is due, fires timers, runs what is ready.

It is the first base of the loop that users see; asyncio's selector loop is the second, and gives everything that is
rare. The underscored names here are asyncio's own: its code, above us, reads and sets them.

The GIL is held from one blocking poll to the next: a poll that does not wait keeps it, and while the ready queue is
busy most turns do not poll at all, bounded by `poll_every_turns` and `poll_every_us`. When the last blocking poll had
nothing to wait for, the next turn looks first without blocking: under load the GIL is not handed over at all.

Ownership: the reactor owns its I/O context, timers, inbox and waker until `dispose`.
"""

import sys
from asyncio import base_events, format_helpers, futures, tasks

from cpython.object cimport PyObject, PyObject_Call, PyObject_GenericSetAttr
from cpython.ref cimport Py_DECREF
from libc.math cimport INFINITY, nextafter
from libc.stdint cimport int64_t, uint32_t

from penstock._core cimport backlog
from penstock._core._sys.epoll cimport EPOLLET, EPOLLIN
from penstock._core._sys.python cimport PyErr_CheckSignals, PySequence_Fast_ITEMS
from penstock._core.events.clock cimport now_ns, now_s
from penstock._core.events.handle cimport Handle, Runnable, let_go, new_handle, relax_pools
from penstock._core.events.inbox cimport Inbox, has_post
from penstock._core.events.poller cimport Source
from penstock._core.events.ready cimport pop, push, relax
from penstock._core.events.timers cimport Timers
from penstock._core.events.waker cimport Waker, fall_asleep, stay_awake, wake
from penstock._core.net.gathered cimport flush_gathered, forget_gathered, has_gathered
from penstock._core.net.io_context cimport IOContext
from penstock._core.net.stream cimport expire
from penstock._core.net.watch cimport fileno_of, keep_file, set_reader, set_writer, watched_fileno
from penstock._core.overload.lag cimport Lag
from penstock._core.runs cimport RunLifecycle
from penstock._core.sheds cimport ShedCounts
from penstock._core.tasks.histogram cimport record as add_time
from penstock._core.tasks.layout cimport layout
from penstock._core.tasks.probe cimport NEVER_NS, OFF, TIME, Probe, begin_turn, end_turn

# asyncio.futures, whose `Future` a program may replace.
cdef dict of_futures = vars(futures)

# The clock's resolution: a timer this close to due is due, as asyncio's.
cdef double RESOLUTION_S = 1e-9
# Of asyncio's module, for what a program may have put there.
cdef dict task_names = vars(tasks)
cdef int64_t LONGEST_WAIT_NS = 24 * 3600 * 1000000000
# A longer turn accepts connections in its middle.
cdef int64_t ACCEPT_EVERY_NS = 1_000_000
# A blocking poll that took less has not waited: the event was there.
cdef int64_t NO_WAIT_NS = 3000


cdef class WakerSource(Source):
    cdef int on_events(self, uint32_t events) except -1:
        return 0


cdef class Reactor(RunLifecycle):
    """The native half of `penstock.EventLoop`."""

    def __cinit__(self, *args, **kwargs):
        self.io = IOContext()
        self.timers = Timers()
        self.inbox = Inbox()
        self.waker = Waker()
        self.waker_source = WakerSource()
        self.probe = Probe()
        self.sheds = ShedCounts(self.io)
        self.watch_waker()
        self.poll_every_turns, self.poll_every_ns = 64, 100_000
        self.owns_clock = type(self).time is Reactor.time
        if type(self).call_soon is not Reactor.call_soon:
            self.probe.asks_for_ends = True

    def watch_waker(self):
        self.waker_source.fd = self.waker.fd
        self.io.poller.add(self.waker_source, EPOLLIN | EPOLLET)

    # --- running

    def run_forever(self):
        """Run until `stop` is called."""
        cdef bint is_nested = self._thread_id is not None
        try:
            self._run_forever_setup()
            self.probe.heartbeat.enter()
            self.prepare()
            while True:
                self.turn()
                if self._stopping:
                    break
        finally:
            if not is_nested and self._thread_id is not None:
                self.end_run()

    cdef int end_run(self) except -1:
        self.io.ready.stamp_ns = 0
        self.task_keywords = None
        try:
            self.probe.heartbeat.leave()
        finally:
            try:
                self._run_forever_cleanup()
            finally:
                # A subclass's own, in Python, may have been cut short.
                if self._thread_id is not None:
                    RunLifecycle._run_forever_cleanup(self)
        return 0

    def prepare(self):
        """Adapt to changes since the last run: a fork, another clock, writes that were made meanwhile."""
        if self.io.poller.is_inherited():
            self.after_fork()
        self.owns_clock = type(self).time is Reactor.time and "time" not in self.__dict__
        self.ended_ns = 0
        # The first turn polls, as each of asyncio's does.
        self.turns_unpolled = self.poll_every_turns
        if self.lag is not None:
            self.lag.stand_still()

    def after_fork(self):
        """Take new kernel objects: the old ones are shared with the parent."""
        self.io.poller.forget(self.waker_source)
        self.io.lingering.forget()
        self.waker = Waker()
        self.io.poller.reopen()
        self.watch_waker()

    def stop(self):
        """Stop after the current turn."""
        self._stopping = True

    cdef int turn(self) except -1:
        self.io.turn += 1
        if has_post(self.inbox):
            self.drain_inbox()
        self.is_derived = self.ended_ns != 0
        self.turn_ns = self.io.ready.stamp_ns = self.ended_ns if self.is_derived else now_ns()
        self.ended_ns = 0
        if self.observes_lag:
            self.observe_lag()
        if self.io.ready.count == 0 or self.poll_is_due():
            self.poll()
        else:
            self.turns_unpolled += 1
        if self.turn_ns >= self.probe.check_at_ns:
            self.probe.run_check(self.turn_ns)
        if self.turn_ns >= min(self.io.wheel.next_ns, self.io.lingering.next_ns):
            expire(self.io, self.turn_ns)
        if self.timers.count:
            self.timers.fire(
                just_after(<double>self.turn_ns / 1e9 if self.owns_clock else self.now()), self.io.ready
            )
        if self.observes_lag:
            self.admit_backlog()
        if self._debug:
            self.run_batch_watched()
        elif self.probe.level == OFF:
            self.run_batch()
        elif self.io.ready.count:
            self.run_batch_probed()
        return 0

    cdef bint poll_is_due(self) noexcept:
        return self.turns_unpolled >= self.poll_every_turns or self.turn_ns - self.last_poll_ns >= self.poll_every_ns

    cdef int poll(self) except -1:
        cdef int64_t timeout_ns
        cdef int count = 0
        self.turns_unpolled = 0
        # A signal's handler may make something ready or stop the loop: run it before the wait is chosen.
        PyErr_CheckSignals()
        if has_gathered(&self.io.gathered):
            # by what runs outside of callbacks, as that handler
            flush_gathered(&self.io.gathered)
        timeout_ns = self.poll_timeout_ns()
        if timeout_ns == 0 or self.is_busy:
            count = self.io.poller.poll_now()
            self.io.poller.dispatch(count)
        if timeout_ns != 0 and count <= 0 and self.io.ready.count == 0:
            self.block(timeout_ns)
        self.last_poll_ns = self.turn_ns
        return 0

    cdef int64_t poll_timeout_ns(self) except? -2:
        """Return how long the poll may wait, in nanoseconds: 0 not at all, -1 without end."""
        cdef double wait_s, now_s
        cdef int64_t wait_ns
        cdef int64_t expiry_ns = min(self.io.wheel.next_ns, self.io.lingering.next_ns)
        cdef int64_t check_at_ns = min(self.probe.check_at_ns, expiry_ns)
        if self._stopping or self.io.ready.count or backlog.count(self.io):
            return 0
        self.timers.drop_cancelled_head()
        if self.is_derived and (self.timers.count or expiry_ns != NEVER_NS):
            # what the last callback has let go of may have run code of any length
            self.is_derived = False
            self.turn_ns = self.io.ready.stamp_ns = now_ns()
        if self.timers.count == 0:
            return -1 if check_at_ns == NEVER_NS else max(check_at_ns - self.turn_ns, 0)
        now_s = <double>self.turn_ns / 1e9 if self.owns_clock else self.now()
        wait_s = self.timers.wake_s(now_s) - now_s
        if wait_s <= 0:
            return 0
        wait_ns = <int64_t>(wait_s * 1e9) + 1 if wait_s * 1e9 < LONGEST_WAIT_NS else LONGEST_WAIT_NS
        return wait_ns if self.turn_ns + wait_ns < check_at_ns else max(check_at_ns - self.turn_ns, 0)

    cdef int block(self, int64_t timeout_ns) except -1:
        """Wait without the GIL for an event, a post or a signal."""
        cdef int count
        cdef int64_t began_ns = self.turn_ns
        self.io.wait_began_ns, self.io.wait_turn = began_ns, self.io.turn
        fall_asleep(self.waker)
        if has_post(self.inbox):
            timeout_ns = 0
        relax(self.io.ready)
        relax_pools()
        count = self.io.poller.wait(timeout_ns, max(self.spin_ns, self.soon_ns))
        self.soon_ns = 0
        stay_awake(self.waker)
        if count < 0:
            PyErr_CheckSignals()
        self.turn_ns = self.io.ready.stamp_ns = now_ns()
        self.slept_ns = self.turn_ns - began_ns
        if self.probe.level >= TIME:
            self.has_waited = True
            self.probe.polled(self.turn_ns - began_ns, count)
        self.is_busy = count > 1 or (count == 1 and self.turn_ns - began_ns < NO_WAIT_NS)
        self.io.poller.dispatch(count)
        return self.drain_inbox()

    cdef int drain_inbox(self) except -1:
        return self.inbox.drain(self.io.ready)

    cdef int run_batch(self) except -1:
        """Run the handles that are ready now. Handles that they make ready run in the next turn."""
        cdef size_t left = self.io.ready.count
        cdef PyObject *entry
        while left and self.io.ready.count:
            left -= 1
            entry = pop(self.io.ready)
            try:
                (<Runnable>entry).run()
            finally:
                let_go(entry)
                if has_gathered(&self.io.gathered):
                    flush_gathered(&self.io.gathered)
            if self.accepts_in_turn:
                self.accept_in_turn()
        return 0

    cdef int run_batch_probed(self) except -1:
        """Run the batch with the probe."""
        cdef size_t left = self.io.ready.count
        cdef Probe probe = self.probe
        cdef PyObject *entry
        cdef bint is_end_known = False
        if self.has_waited:
            self.note_wake()
        begin_turn(probe, self.turn_ns)
        try:
            while left and self.io.ready.count:
                left -= 1
                entry = pop(self.io.ready)
                try:
                    probe.begin_callback(entry)
                    (<Runnable>entry).run()
                finally:
                    probe.end_callback()
                    self.io.ready.stamp_ns = probe.start_ns
                    let_go(entry)
                    is_end_known = not has_gathered(&self.io.gathered)
                    if not is_end_known:
                        flush_gathered(&self.io.gathered)
                if self.accepts_in_turn:
                    is_end_known = False
                    self.accept_in_turn()
        finally:
            end_turn(probe)
        if is_end_known and probe.level >= TIME:
            self.ended_ns = probe.start_ns
        return 0

    cdef int note_wake(self) noexcept:
        """Note the time from the end of the wait to the first callback; 0 where one callback is ready.

        Then nothing lies between the two that would take as long as to read the clock.
        """
        cdef int64_t waited_ns = self.turn_ns
        self.has_waited = False
        if self.io.ready.count > 1 or self.observes_lag:
            self.turn_ns = now_ns()
        add_time(self.probe.wake, self.turn_ns - waited_ns)
        return 0

    cdef int run_batch_watched(self) except -1:
        """Run the batch in debug mode: slow callbacks are logged."""
        cdef size_t left = self.io.ready.count
        cdef double start_s
        if self.has_waited:
            self.note_wake()
        begin_turn(self.probe, self.turn_ns)
        try:
            while left and self.io.ready.count:
                left -= 1
                start_s = self.now()
                entry = self.io.ready.popleft()
                self._current_handle = entry if isinstance(entry, Handle) else None
                try:
                    self.probe.begin_callback(<PyObject *>entry)
                    (<Runnable>entry).run()
                finally:
                    self.probe.end_callback()
                    self._current_handle = None
                    if has_gathered(&self.io.gathered):
                        flush_gathered(&self.io.gathered)
                self.report_slow(entry, self.now() - start_s)
                if self.accepts_in_turn:
                    self.accept_in_turn()
        finally:
            end_turn(self.probe)
        return 0

    def report_slow(self, entry, double took_s):
        if took_s >= self.slow_callback_duration and not (isinstance(entry, Handle) and entry.cancelled()):
            shown = base_events._format_handle(entry) if isinstance(entry, Handle) else repr(entry)
            base_events.logger.warning("Executing %s took %.3f seconds", shown, took_s)

    # --- keeping up

    cdef int observe_lag(self) except -1:
        """Before the poll: observe the lag, and set the turn's budget of reads and accepts."""
        if self.on_room is not None and self.probe.ledger.count < self.most_tasks:
            self.on_room()
        if self.lag is None:
            return 0
        # entries since then wait for their first turn, and are no sign of lag
        cdef size_t deferred = min(self.deferred_before, backlog.count(self.io))
        self.lag.observe(self.turn_ns, self.slept_ns, self.io.ready.count, self.io.ready.oldest_ns(), deferred)
        self.slept_ns = 0
        self.io.reads_left = self.read_budget = self.lag.budget()
        self.io.backlog_limit = self.lag.backlog_limit(backlog.oldest_since(self.io))
        self.io.accept_now = 0 if self.lag.is_late() else self.io.accept_batch
        self.io.defer_now = -1
        if self.lag.is_deferring:
            self.io.defer_now = self.io.accept_batch if self.io.deferred_accepts.has_room() else 0
        return 0

    cdef int admit_backlog(self) except -1:
        """After the poll: admit a part of the backlog, and shed its expired entries."""
        if self.lag is None:
            return 0
        self.io.deferred_accepts.check(self.turn_ns, self.io.closes_abandoned, self.io.is_backlog_full())
        self.lag.admitted += self.read_budget - max(self.io.reads_left, 0)
        backlog.expire(self.io, self.lag)
        cdef size_t share = self.lag.share(self.io.ready.count, backlog.count(self.io))
        cdef size_t lacking = backlog.admit(self.io, self.lag, share)
        self.lag.admitted -= lacking
        self.deferred_before = backlog.count(self.io)
        self.accepts_in_turn, self.accepted_ns = self.lag.is_deferring, self.turn_ns
        self.lag.ran = self.io.ready.count
        return self.sheds.notify(self) if self.sheds.on_shed is not None else 0

    cdef int accept_in_turn(self) except -1:
        """Accept connections after a callback of a loop that is behind: the next turn may be far."""
        cdef int64_t called_ns = now_ns()
        if called_ns - self.accepted_ns >= ACCEPT_EVERY_NS:
            self.accepted_ns = self.io.ready.stamp_ns = called_ns
            self.io.poller.dispatch(self.io.poller.poll_now())
            backlog.accept_all(self.io)
        return 0

    # --- the clock

    def time(self):
        """The loop's clock, in seconds: `time.monotonic()`."""
        return now_s()

    cdef double now(self) except? -1.0:
        return now_s() if self.owns_clock else self.time()

    def __setattr__(self, name, value):
        PyObject_GenericSetAttr(self, name, value)
        if name == "time":
            self.owns_clock = False
        elif name == "call_soon":  # what a wrapper queues is no longer known for a task's step
            self.probe.ask_for_ends()

    # --- scheduling

    cdef int check_open(self) except -1:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        return 0

    cdef int inspect(self, Handle handle, str method, bint same_thread) except -1:
        """Debug mode's checks of a new handle, and the stack it was made on."""
        if same_thread:
            self._check_thread()
        self._check_callback(handle.callback, method)
        handle.debug_info = (format_helpers.extract_stack(sys._getframe(0)), None)
        return 0

    def get_debug(self):
        """Return whether debug mode is on. asyncio asks for each new future and task."""
        return self._debug

    def create_future(self):
        """A future of this loop."""
        if self.future_keywords is None:
            if self._closed:
                return futures.Future(loop=self)
            self.future_keywords = {"loop": self}
        return PyObject_Call(of_futures["Future"], (), self.future_keywords)

    def create_task(self, coro, **kwargs):
        """Run a coroutine as a task of this loop: only the keyword arguments that were given reach Task or factory."""
        cdef int64_t born_ns = now_ns() if self.probe.level >= TIME else 0
        cdef bint is_eager = True
        if self.most_tasks and self.probe.ledger.count >= self.most_tasks:
            self.on_full(coro)
        if self._task_factory is not None or self._debug:
            task = self.make_by_factory(coro, kwargs)
        else:
            if self._closed:
                self.check_open()
            if kwargs:
                is_eager = "eager_start" in kwargs
                kwargs["loop"] = self
                task = tasks.Task(coro, **kwargs)
            else:
                is_eager = False
                task = self.make_task(coro)
        if self.probe.level != OFF:
            self.probe.born(task, coro, born_ns, is_eager)
        return task

    cdef object make_by_factory(self, object coro, dict kwargs):
        """Make a task by a factory, or in debug mode."""
        if self._task_maker is None or self._task_factory is not self._task_maker:
            return base_events.BaseEventLoop.create_task(self, coro, **kwargs)
        if self._closed:
            self.check_open()
        # not by asyncio's method: Python 3.13.0 names a task of a factory "None"
        return self._task_maker(self, coro, **kwargs)

    cdef object make_task(self, object coro):
        """Make a task without a name and a context of its own."""
        cdef object kind = task_names["Task"]
        if <PyObject *>kind is not <PyObject *>layout.task_type:
            return kind(coro, loop=self)
        if self.probe.heartbeat.thread_id == 0:
            # a loop that refers to itself while it does not run would have to wait for the garbage collector
            return kind(coro, loop=self)
        if self.task_keywords is None:
            # for all tasks: asyncio's own class, which is C, only reads it
            self.task_keywords = {"loop": self}
        return PyObject_Call(kind, (coro,), self.task_keywords)

    # --- the seam: what asyncio's own loop code calls

    def _add_callback(self, handle):
        if isinstance(handle, Handle):
            push(self.io.ready, handle)
        elif not handle._cancelled:
            self.call_soon(handle._run)

    def _write_to_self(self):
        wake(self.waker)

    def _add_reader(self, fd, callback, *args, context=None):
        self.check_open()
        handle = self.io_handle(callback, args, context)
        number = fileno_of(fd)
        set_reader(self.io, number, handle)
        keep_file(self.io, number, fd)
        return handle

    def _add_writer(self, fd, callback, *args, context=None):
        self.check_open()
        handle = self.io_handle(callback, args, context)
        number = fileno_of(fd)
        set_writer(self.io, number, handle)
        keep_file(self.io, number, fd)
        return handle

    def _remove_reader(self, fd):
        return not self._closed and bool(set_reader(self.io, watched_fileno(self.io, fd), None))

    def _remove_writer(self, fd):
        return not self._closed and bool(set_writer(self.io, watched_fileno(self.io, fd), None))

    def io_handle(self, callback, tuple args, context):
        cdef Handle handle = new_handle(self, callback, PySequence_Fast_ITEMS(args), len(args), context)
        if self._debug:
            handle.debug_info = (format_helpers.extract_stack(sys._getframe(0)), None)
        return handle

    @property
    def _ready(self):
        return self.io.ready.snapshot()

    @_ready.setter
    def _ready(self, value):
        """asyncio's constructor sets its own queue: it has none here."""

    @property
    def _scheduled(self):
        return self.timers.snapshot()

    @_scheduled.setter
    def _scheduled(self, value):
        """As `_ready`."""

    cdef int dispose(self) except -1:
        """Release every kernel object and reference: the loop is closed."""
        self.probe.stop()
        self.io.ready.clear()
        forget_gathered(&self.io.gathered)
        self.io.deferred_accepts.close_of(None)
        self.io.lingering.forget()
        self.io.deferred_reads.clear()
        self.inbox.drain(self.io.ready)
        self.io.ready.clear()
        self.timers.clear()
        self.waker.close()
        self.io.poller.close()
        self.future_keywords = None
        return 0


cdef inline double just_after(double now_s) noexcept:
    """The end of the instant `now_s`: one resolution later, or the next number when numbers are farther apart."""
    cdef double end_s = now_s + RESOLUTION_S
    return end_s if end_s > now_s else nextafter(now_s, INFINITY)
