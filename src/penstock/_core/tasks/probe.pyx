"""The probe: records each birth, each step and the end of a loop's tasks, from inside the loop.

No wrapper, no done callback, no task factory: the reactor knows the task of the handle that it is about to run, and
after the run the task's state says whether that was its last step. It reads the clock once a callback: the end of one
is the start of the next.

Levels: COUNT counts births and ends. TIME adds sites, times, the heartbeat for the watchdog and the flight recorder's
births, ends and long steps. TRACE adds every step, and creation stacks more often.

The probe never ends the code that it observes. The edges at which the reactor calls it, `born`, `begin_callback`,
`end_callback`, `end_turn` and `run_check`, raise nothing but KeyboardInterrupt and SystemExit: any other exception is
counted in `errors` and logged, once a minute at most. The edges around a callback raise nothing at all, for the
callback has still to run and its handle to be released: their errors are reported at the turn's end.
"""

import logging

from penstock._core.tasks.rows import LostRow

from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport strcmp

from penstock._core._sys.python cimport row
from penstock._core.events.clock cimport now_ns
from penstock._core.events.handle cimport Handle, Runnable, ThreadSafeHandle, TimerHandle
from penstock._core.events.ready cimport Ready
from penstock._core.tasks.flight cimport BIRTH, CALLBACK, END, STEP, FlightRecorder, note
from penstock._core.tasks.histogram cimport Histogram, record as add_time
from penstock._core.tasks.layout cimport CANCELLED, PENDING, Py_TYPE, has_failed, is_c_task, layout, state_of
from penstock._core.tasks.ledger cimport CANCELED, LOST, RAISED, READY, RETURNED, RUNNING, WAITING, Ledger, Record, find, find_live, is_gone
from penstock._core.tasks.sites cimport UNKNOWN, TaskSites, raw_stack
from penstock._core.tasks.heartbeat cimport (
    Heartbeat,
    begin_callback as stamp_callback,
    end_callback as stamp_end_of_callback,
    end_turn as stamp_end_of_turn,
)

cdef extern from *:
    """
    #define penstock_is_c_function(object) PyCFunction_CheckExact(object)
    #define penstock_function_self(object) PyCFunction_GET_SELF(object)
    #define penstock_function_name(object) (((PyCFunctionObject *)(object))->m_ml->ml_name)
    #define penstock_is_method(object) PyMethod_Check(object)
    #define penstock_method_self(object) PyMethod_GET_SELF(object)
    """
    bint is_c_function "penstock_is_c_function"(PyObject *object) noexcept
    PyObject *function_self "penstock_function_self"(PyObject *object) noexcept
    const char *function_name "penstock_function_name"(PyObject *object) noexcept
    bint is_method "penstock_is_method"(PyObject *object) noexcept
    PyObject *method_self "penstock_method_self"(PyObject *object) noexcept

cdef enum:
    FLIGHT_ENTRIES = 65536
    SITES = 1024

# One number for each task of the process, in the order of birth; one table of sites.
cdef uint64_t last_number = 0
cdef TaskSites shared_sites = TaskSites(SITES)
# asyncio's name for the callback by which a future wakes a task: compared by address once it has been met.
cdef const char *wakeup_name = NULL
NEVER_NS = <int64_t>1 << 62
cdef int64_t LOG_EVERY_NS = 60_000_000_000

logger = logging.getLogger("penstock.tasks")

# `except -1`, but not looked at by Cython: a try block around each callback would cost more than the rest of an edge.
ctypedef int (*Birth)(Probe probe, object task, object coro, int64_t born_ns, bint is_eager) noexcept
ctypedef int (*Begin)(Probe probe, PyObject *entry) noexcept
ctypedef int (*End)(Probe probe) noexcept
ctypedef int (*Step)(Ledger ledger, uint32_t site, int64_t took_ns, int64_t waited_ns) noexcept


cdef inline int raise_pending() except -1:
    """The exception that is set already."""
    return -1


cdef PyObject *task_of_callback(Ledger ledger, PyObject *callback) noexcept:
    """Return the task of which the callback is a step; NULL for any other callback."""
    global wakeup_name
    cdef PyObject *owner
    if is_c_function(callback):
        owner = function_self(callback)
        if owner is NULL or not is_c_task(owner):
            return NULL
        if function_name(callback) is not wakeup_name:
            if strcmp(function_name(callback), b"task_wakeup") != 0:
                return NULL
            wakeup_name = function_name(callback)
        return owner
    if Py_TYPE(callback) is layout.step_type and layout.step_task:
        return (<PyObject **>(<char *>callback + layout.step_task))[0]
    if is_method(callback):
        # a task written in Python: its step is a bound method, and it was seen at its birth
        owner = method_self(callback)
        return owner if find_live(ledger, owner) is not NULL and not is_c_task(owner) else NULL
    return NULL


cdef class Probe:
    """The probe of one loop. It does nothing until `set_level`."""

    def __cinit__(self):
        self.heartbeat = Heartbeat()
        self.ledger = Ledger()
        self.sites = shared_sites
        self.took0, self.took1, self.took2, self.took3 = Histogram(), Histogram(), Histogram(), Histogram()
        self.delay, self.start_delay = Histogram(), Histogram()
        self.turn, self.poll, self.wake = Histogram(), Histogram(), Histogram()
        self.stack_every = self.stack_left = 128
        self.long_step_ns = 1_000_000
        self.check_at_ns = NEVER_NS
        # without it a task's last step cannot be seen
        self.asks_for_ends = layout.step_task == 0

    def set_level(self, int level):
        """OFF, COUNT, TIME or TRACE, as 0 to 3; from the loop's own thread, or while the loop stands still."""
        if not OFF <= level <= TRACE:
            raise ValueError(level)
        level = max(level, self.least_level)
        if level == OFF:
            self.ledger.forget()
            self.running = NULL
        if level < TIME:
            # from now on nothing notes the end of the running callback
            stamp_end_of_turn(self.heartbeat, 0)
        if level >= TIME and self.flight is None:
            self.flight = FlightRecorder(FLIGHT_ENTRIES)
        self.stack_every = self.stack_left = 8 if level == TRACE else 128
        # it may be set from within a callback, whose beginning is then not of this level
        self.waited_ns = -1
        self.start_ns = self.turn_start_ns = now_ns()
        self.level = level

    # --- a task's life

    cdef int born(self, object task, object coro, int64_t born_ns, bint is_eager) except -1:
        """Record a new task, which may have run already or have ended."""
        if (<Birth>see_birth)(self, task, coro, born_ns, is_eager) != 0:
            self.take_error()
            return self.report_error()
        return 0

    cdef Record *adopt(self, PyObject *task) except NULL:
        """Record a task that was made without `create_task`, or before the level was raised: its life begins here."""
        global last_number
        last_number += 1
        return self.ledger.add(<object>task, UNKNOWN, self.start_ns, last_number)

    cdef inline PyObject *took_of_kind(self) noexcept:
        if self.kind == CALLBACK_KIND:
            return <PyObject *>self.took1
        return <PyObject *>self.took2 if self.kind == TIMER else <PyObject *>self.took3

    cdef Record *adopt_anew(self, PyObject *task, Record *former) except NULL:
        """Record a task whose address has no record, or the one of a former task."""
        if former is not NULL:
            self.ledger.end(former, LOST, self.start_ns)
        return self.adopt(task)

    cdef int note_run(self, Record *record, int64_t took_ns) noexcept:
        """Note the run that ends now in the flight recorder: a step of a task, or another callback."""
        if record is not NULL:
            note(self.flight, STEP, self.start_ns, took_ns, record.number, record.site, 0)
            if self.level == TRACE and self.waited_ns >= 0:
                if (<Step>see_step)(self.ledger, record.site, took_ns, self.waited_ns) != 0:
                    self.take_error()
        else:
            note(self.flight, CALLBACK, self.start_ns, took_ns, 0, UNKNOWN, self.kind)
        return 0

    cdef int end_task(self, Record *record, int outcome, int64_t now_ns) except -1:
        cdef PyObject *flight = <PyObject *>self.flight
        if self.level >= TIME and record.born_ns:
            note(<FlightRecorder>flight, END, record.born_ns, now_ns - record.born_ns, record.number, record.site, outcome)
        return self.ledger.end(record, outcome, now_ns)

    def ask_for_ends(self):
        """Add a done callback to every task, live ones first: steps cannot be distinguished from other callbacks."""
        self.asks_for_ends = True
        for _, weak, *_ in list(self.ledger.snapshot(0)):
            task = weak()
            if task is not None:
                task.add_done_callback(self.task_done)

    def task_done(self, task):
        """Record the end of a task, unless its last step was seen."""
        cdef int outcome = outcome_of(<PyObject *>task)
        cdef Record *record = find_live(self.ledger, <PyObject *>task)
        if record is not NULL and outcome >= 0:
            self.end_task(record, outcome, now_ns() if self.level >= TIME else 0)

    cdef int first_eager_step(self, Record *record) noexcept:
        record.steps = 1
        record.state = WAITING
        if self.level >= TIME:
            record.since_ns = now_ns()
            record.running_ns = record.since_ns - record.born_ns
        self.ledger.steps += 1
        return 0

    cdef object sampled_stack(self):
        """Return the creation stack of one birth in `stack_every`, else None."""
        if self.level < TIME:
            return None
        self.stack_left -= 1
        if self.stack_left:
            return None
        self.stack_left = self.stack_every
        return raw_stack()

    # --- what goes wrong here

    cdef int take_error(self) noexcept:
        """Keep the exception that is set until it can be reported; runs no code."""
        self.errors += 1
        try:
            raise_pending()
        except (KeyboardInterrupt, SystemExit) as problem:
            self.error = problem
        except BaseException as problem:
            if self.error is None:
                self.error = problem
        return 0

    cdef int report_error(self) except -1:
        """Log the kept exception. KeyboardInterrupt and SystemExit are raised again."""
        problem, self.error = self.error, None
        if isinstance(problem, (KeyboardInterrupt, SystemExit)):
            self.errors -= 1
            raise problem
        if now_ns() < self.log_from_ns:
            return 0
        self.log_from_ns = now_ns() + LOG_EVERY_NS
        try:
            logger.error("the telemetry of tasks failed, and goes on (%d so far)", self.errors, exc_info=problem)
        except Exception:
            # a handler of the program's that raises is its own affair, and no reason to end the loop
            pass
        return 0

    # --- a turn

    cdef int begin_callback(self, PyObject *entry) noexcept:
        if self.level != OFF and (<Begin>see_begin)(self, entry) != 0:
            self.take_error()
        return 0

    cdef int end_callback(self) noexcept:
        cdef PyObject *task = self.running_task
        if self.level != OFF and (<End>see_end)(self) != 0:
            self.take_error()
        self.running = NULL
        if task is not NULL:
            self.running_task = NULL
            Py_DECREF(<object>task)
        return 0

    cdef int polled(self, int64_t waited_ns, int events) except -1:
        """Record a poll that has waited, in nanoseconds, and the number of its events."""
        self.polls += 1
        if events > 0:
            self.events += events
        self.idle_ns += waited_ns
        add_time(self.poll, waited_ns)
        return 0

    # --- from time to time

    def set_check(self, check, int64_t every_ns):
        """Call `check()` in the loop's thread, between two turns, each `every_ns`; None: never. The loop wakes for it."""
        self.check = check
        self.check_every_ns = every_ns
        self.check_at_ns = NEVER_NS if check is None else now_ns() + every_ns

    cdef int run_check(self, int64_t now_ns) except -1:
        self.check_at_ns = now_ns + self.check_every_ns
        if (<End>call_check)(self) != 0:
            self.take_error()
            return self.report_error()
        return 0

    cdef int mark_ready(self, Ready ready) except -1:
        """Mark the tasks whose next step is in the ready queue as ready: until now they are recorded as waiting."""
        cdef size_t i
        cdef PyObject *entry
        cdef PyObject *task
        cdef Record *record
        for i in range(ready.count):
            entry = ready.slots[(ready.head + i) & ready.mask]
            if Py_TYPE(entry) is not <PyTypeObject *>Handle or (<Handle>entry).is_cancelled:
                continue
            task = task_of_callback(self.ledger, <PyObject *>(<Handle>entry).callback)
            record = NULL if task is NULL else find_live(self.ledger, task)
            if record is not NULL and record.state == WAITING:
                record.state = READY
                record.since_ns = max(record.since_ns, (<Runnable>entry).ready_ns)
        return 0

    # --- to be read

    def callbacks(self):
        """Return the numbers of runs: (tasks' steps, other callbacks, timers, I/O)."""
        return self.ran[TASK], self.ran[CALLBACK_KIND], self.ran[TIMER], self.ran[IO]

    def took(self):
        """Return the histograms of run times, in the same order."""
        return self.took0, self.took1, self.took2, self.took3

    def task_of(self, handle):
        """Return the task of which the handle is a step, or None."""
        if not isinstance(handle, Handle) or (<Handle>handle).is_cancelled:
            return None
        cdef PyObject *task = task_of_callback(self.ledger, <PyObject *>(<Handle>handle).callback)
        return None if task is NULL else <object>task

    # A task may be looked up while it is collected, when its weak references are empty already. Its record is found by its
    # address alone, and only numbers are read.

    def number_of(self, task):
        """Return the number of a task with a record, or 0."""
        cdef Record *record = find(self.ledger, <PyObject *>task)
        return 0 if record is NULL else record.number

    def site_of(self, task):
        """Return the site number of a task with a record, else that of unknown sites."""
        cdef Record *record = find(self.ledger, <PyObject *>task)
        return UNKNOWN if record is NULL else record.site

    def born_ns(self, task):
        """Return the birth time of a task with a record, in nanoseconds, else 0."""
        cdef Record *record = find(self.ledger, <PyObject *>task)
        return 0 if record is NULL else record.born_ns

    def stack_of(self, task):
        """Return the creation stack of a task with a record, None if it has none."""
        cdef Record *record = find(self.ledger, <PyObject *>task)
        return None if record is NULL or record.stack is NULL else <object>record.stack

    def lose(self, task):
        """End the record of a task that is being collected, and return its `LostRow`; None for a task without record."""
        cdef Record *record = find(self.ledger, <PyObject *>task)
        if record is NULL:
            return None
        stack = None if record.stack is NULL else <object>record.stack
        lost = row(LostRow, (record.number, record.site, record.born_ns, record.steps, stack, None))
        self.ledger.end(record, LOST, now_ns())
        return lost

    def stop(self):
        """Forget the running callback: the loop is about to clear its ready queue."""
        self.running = NULL
        stamp_end_of_turn(self.heartbeat, 0)


cdef int see_birth(Probe self, object task, object coro, int64_t born_ns, bint is_eager) except -1:
    global last_number
    cdef PyObject *key = <PyObject *>task
    # calls that may run code come first: code may change the level, or end records
    cdef uint32_t site = self.sites.current(coro) if self.level >= TIME else UNKNOWN
    cdef bint is_begun
    cdef Record *record
    cdef PyObject *flight
    cdef PyObject *ledger = <PyObject *>self.ledger
    cdef int outcome
    if not is_c_task(key) and not hasattr(task, "get_coro"):
        return 0  # a factory may give any future
    outcome = outcome_of(key) if is_eager else -1
    is_begun = is_eager and outcome < 0 and getattr(coro, "cr_suspended", False)
    stack = self.sampled_stack()
    record = find(<Ledger>ledger, key)
    if record is not NULL:
        if not is_gone(record):
            return 0  # a factory that has made it by create_task
        self.ledger.end(record, LOST, born_ns)
    last_number += 1
    if outcome >= 0:
        self.ledger.count_birth(site)
        self.ledger.eager += 1
        return self.ledger.count_end(site, outcome, now_ns() - born_ns if self.level >= TIME else -1)
    record = self.ledger.add(task, site, born_ns, last_number)
    if stack is not None:
        Py_INCREF(stack)
        record.stack = <PyObject *>stack
    if is_begun:
        self.first_eager_step(record)
    if self.level >= TIME:
        flight = <PyObject *>self.flight
        note(<FlightRecorder>flight, BIRTH, born_ns, 0, last_number, site, 0)
    if self.asks_for_ends:
        task.add_done_callback(self.task_done)
    return 0


cdef inline int64_t wait_of(Record *record, int64_t start_ns, int64_t ready_ns) noexcept:
    """Return how long a step was ready: since the task's birth for its first one."""
    if record is not NULL and record.steps == 0 and record.born_ns:
        ready_ns = record.born_ns
    return max(start_ns - ready_ns, <int64_t>0) if ready_ns else 0


cdef int see_step(Ledger ledger, uint32_t site, int64_t took_ns, int64_t waited_ns) except -1:
    return ledger.add_step(site, took_ns, waited_ns)


cdef int see_begin(Probe self, PyObject *entry) except -1:
    cdef Record *record = NULL
    cdef PyObject *task = NULL
    cdef PyTypeObject *type_ = Py_TYPE(entry)
    cdef int64_t ready_ns = (<Runnable>entry).ready_ns, waited_ns
    cdef PyObject *ledger = <PyObject *>self.ledger
    cdef PyObject *delay = <PyObject *>self.delay
    cdef PyObject *heartbeat = <PyObject *>self.heartbeat
    cdef PyObject *start_delay
    if type_ is <PyTypeObject *>Handle or type_ is <PyTypeObject *>ThreadSafeHandle:
        self.kind = CALLBACK_KIND
        if not (<Handle>entry).is_cancelled:
            task = task_of_callback(<Ledger>ledger, <PyObject *>(<Handle>entry).callback)
    else:
        self.kind = TIMER if type_ is <PyTypeObject *>TimerHandle else IO
    if task is not NULL:
        self.kind = TASK
        # a handle that is cancelled as it runs lets go of the task before its step is over
        Py_INCREF(<object>task)
        self.running_task = task
        record = find(<Ledger>ledger, task)
        if record is NULL or is_gone(record):
            record = self.adopt_anew(task, record)
        self.running = record
    # one test at level TIME, the usual one
    if self.level != TIME:
        if self.level < TIME:
            return 0
        self.waited_ns = wait_of(record, self.start_ns, ready_ns)
    waited_ns = self.start_ns - ready_ns if ready_ns else 0
    add_time(<Histogram>delay, waited_ns)
    if record is not NULL:
        record.state = RUNNING
        record.since_ns = self.start_ns
        if record.steps == 0 and record.born_ns:
            waited_ns = self.start_ns - record.born_ns
            start_delay = <PyObject *>self.start_delay
            add_time(<Histogram>start_delay, waited_ns)
        record.ready_ns += waited_ns if waited_ns > 0 else 0
    stamp_callback(<Heartbeat>heartbeat, entry, self.start_ns)
    return 0


cdef int see_end(Probe self) except -1:
    cdef Record *record = self.running
    cdef PyObject *task = self.running_task
    cdef PyObject *heartbeat
    cdef PyObject *took
    cdef int64_t end_ns = 0, took_ns
    cdef int outcome
    self.ran[self.kind] += 1
    if self.level >= TIME:
        end_ns = now_ns()
        took_ns = end_ns - self.start_ns
        heartbeat = <PyObject *>self.heartbeat
        stamp_end_of_callback(<Heartbeat>heartbeat, end_ns)
        if record is not NULL:
            took = <PyObject *>self.took0
            record.running_ns += took_ns
        else:
            took = self.took_of_kind()
        add_time(<Histogram>took, took_ns)
        if self.level == TRACE or took_ns >= self.long_step_ns:
            self.note_run(record, took_ns)
        self.start_ns = end_ns
    if record is NULL:
        return 0
    self.ledger.steps += 1
    record.steps += 1
    record.state = WAITING
    record.since_ns = end_ns
    outcome = outcome_of(task)
    if outcome < 0:
        return 0
    # to ask a task that is not C may run code, which may end the record
    if not is_c_task(task) and find_live(self.ledger, task) is not record:
        return 0
    return self.end_task(record, outcome, end_ns)


cdef int call_check(Probe self) except -1:
    self.check()
    return 0


cdef inline int outcome_of(PyObject *task) except -2:
    """Return the outcome of a task; -1: it has not ended."""
    cdef int state = state_of(task)
    if state == PENDING:
        return -1
    if state == CANCELLED:
        return CANCELED
    return RAISED if has_failed(task) else RETURNED
