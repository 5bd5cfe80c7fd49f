"""The base classes of lanes: `concurrent.futures` executors that a loop can also call without a future in between.

A lane admits a job before anything is built for it, then runs it. `Lane` has what all lanes share. `LockedLane` is the
core of those whose state a lock guards, because their jobs belong to several threads: threads and backends.
"""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from contextvars import Context
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from penstock.errors import Overloaded
from penstock.executors.admission import Admission, Verdict
from penstock.executors.call import Call, check_plain
from penstock.executors.counters import LaneCounters
from penstock.executors.deadlines import Deadlines, DeadlineThread
from penstock.executors.job import Job, LoopJob, ThreadJob
from penstock.executors.remote_errors import describe_error
from penstock.loop.lanes import CallableExecutor

if TYPE_CHECKING:
    import concurrent.futures
    import contextvars
    from collections.abc import Callable, Hashable

    from penstock.config import LaneConfig
    from penstock.executors.counters import LaneStatistics

__all__ = ["Lane", "LaneWithOptions", "LiveLanes", "LockedLane", "cancel_job"]

P = ParamSpec("P")
T = TypeVar("T")


class Lane(CallableExecutor):
    """A named executor with a bounded queue. `name` and `config` are as declared."""

    _counters: LaneCounters
    # whether a coroutine function is called like any other: its coroutine stays in this process
    takes_coroutine_functions = False
    # whether calls by `offload` come with a copy of the caller's context
    takes_context = False
    # whether a SystemExit of a job becomes a RemoteError, or is raised in the caller as it is
    exits_are_errors = False

    def __init__(self, name: str, config: LaneConfig) -> None:
        self.name = name
        self.config = config
        self._is_shut = False

    def call(
        self,
        loop: asyncio.AbstractEventLoop,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        key: Hashable = None,
        priority: int = 0,
        retries: int = 0,
        context: contextvars.Context | None = None,
    ) -> LoopJob:
        """Run `fn(*args, **kwargs)` for a caller in the thread of `loop`. Return its future.

        `timeout_s` is in seconds from now; None means the config's. A `penstock.pressure.deadline` around the call
        holds too. At the end of that time the future gets TimeoutError, and the job is interrupted. See `Call` for the
        other options. Raises Overloaded if the lane is full and its policy is `shed`, RuntimeError if the lane is shut,
        TypeError for a coroutine function.
        """
        timeout_s = self.config.timeout_s if timeout_s is None else timeout_s
        return self.begin(loop, Call(fn, args, kwargs, timeout_s, key, priority, retries, context))

    def begin(self, loop: asyncio.AbstractEventLoop, call: Call) -> LoopJob:
        """Run a call for a caller in the thread of `loop`. Return its future. Raises as `call` does."""
        job = LoopJob(loop, call)
        try:
            self._take(job)
            return job
        finally:
            # a traceback of `_run_in_caller` ends in this frame, which must not hold the job
            del job

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """Submit a call, as in `concurrent.futures`, from any thread. At a full lane the config's policy decides: it
        may block, or raise Overloaded. Raises RuntimeError if the lane is shut."""
        return self.submit_call(Call(fn, args, kwargs or None, self.config.timeout_s))

    def submit_call(self, call: Call) -> ThreadJob:
        """Run a call for a caller in any thread. Return its future. Raises as `submit` does."""
        job = ThreadJob(call)
        try:
            self._take(job)
            return job
        finally:
            del job

    def options(
        self, *, timeout: float | None = None, key: Hashable = None, priority: int = 0, retries: int = 0
    ) -> LaneWithOptions:
        """Return an executor whose calls run in this lane with these options. `timeout` is in seconds."""
        return LaneWithOptions(self, timeout, key, priority, retries)

    def _take(self, job: Job) -> None:
        """Refuse a job that cannot run; offer any other."""
        if self._is_shut:
            self._check_open()
        if not self.takes_coroutine_functions:
            check_plain(job.call.fn)
        if job.expires_ns is not None and job.expires_ns <= job.offered_ns:
            job.fail(job.timeout_error(f"{job.name}: its time was up before it was offered to lane {self.name!r}"))
            return
        self._offer(job)
        del job

    def set_listener(self, listener: Callable[[str, str, int], None] | None) -> None:
        """Have `listener(kind, text, took_ns)` called for each finished job ("job") and each shed one ("shed")."""
        self._counters.listener = listener

    def _check_open(self) -> None:
        if self._is_shut:
            raise RuntimeError(f"lane {self.name!r} is shut down: it takes no new jobs")

    @abstractmethod
    def _offer(self, job: Job) -> None:
        """Admit the job, and run it now or later. Raises Overloaded."""

    def _run_in_caller(self, job: Job) -> None:
        """Run the job in the thread that offers it, with the future done afterwards. Changes of context variables stay
        in the job. A KeyboardInterrupt is raised here as well: it may be the caller's own Ctrl-C. So is a SystemExit
        unless `exits_are_errors`."""
        job.on_cancel, job.started_ns = None, monotonic_ns()
        # not `or`: a context without variables is false
        context = job.call.context
        outcome, value = job.run(self._caller_context() if context is None else context)
        self._count_in_caller(job, outcome)
        job.forget_arguments()
        try:
            if outcome == "ok":
                job.finish(value)
            elif isinstance(value, Exception):
                job.fail(value)
            elif self.exits_are_errors and not isinstance(value, KeyboardInterrupt):
                job.fail(describe_error(value)[0])
            else:
                job.cancel()
                raise value
        finally:
            # the traceback of the exception holds this frame
            del job, value, context

    def _caller_context(self) -> Context:
        """Return the context for a job without one of its own: an empty one, as in a worker's thread."""
        return Context()

    def _count_in_caller(self, job: Job, outcome: str) -> None:
        """Count a job that its caller has run, from any thread."""

    @abstractmethod
    def statistics(self) -> LaneStatistics:
        """Return the lane's gauges, and its counts, times and bytes so far. Any thread may ask."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the `min_workers` of the config. Called when `loop` begins to run."""

    @abstractmethod
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the lane, as in `concurrent.futures`: it takes no new jobs. Admitted jobs run to their end, or are
        cancelled if none of their work has begun and `cancel_futures` is true."""


class LockedLane(Lane):
    """A lane whose lock guards its queue, its deadlines and its counters.

    Invariant: the first thread that ends a job, by `_end` under the lock, decides its outcome. Cancellation, timeout
    and result may come from three threads at the same moment.
    """

    _kind: str

    def _begin(self) -> None:
        """Start without jobs; also in a forked child, whatever thread held the lock."""
        self._lock = threading.Lock()
        self._admission = Admission(self.name, self.config)
        self._deadlines = Deadlines()
        self._deadline_thread = DeadlineThread(f"penstock-{self.name}-deadlines", self._look)
        self._counters = LaneCounters(self.name, self._kind)

    def __del__(self) -> None:
        if hasattr(self, "_deadline_thread"):
            self._deadline_thread.wake()

    @abstractmethod
    def _look(self) -> None:
        """Expire jobs, in the deadline thread."""

    # --- all below under the lock, unless a docstring says otherwise

    def _admit(self, job: Job) -> tuple[Verdict, list[Job]]:
        """Offer the job to the queue. Return the verdict and the jobs that it displaces, which are ended."""
        try:
            verdict, displaced = self._admission.offer(job)
        except Overloaded:
            self._counters.shed("full")
            raise
        return verdict, [] if displaced is None else [self._displace(displaced)]

    def _displace(self, job: Job) -> Job:
        self._end(job)
        self._counters.shed("displaced")
        return job

    def _fail_displaced(self, jobs: list[Job]) -> None:
        """Fail displaced jobs, without the lock."""
        for job in jobs:
            job.fail_from_thread(self._admission.displaced(job))
            job.forget_arguments()

    def _make_place(self, job: Job) -> threading.Lock | None:
        """Make the lock that the job's caller waits on for a place in the queue; None for a caller that must not block.
        A thread blocks. A thread that runs a loop never does, whichever method it calls."""
        if job.loop is not None or asyncio._get_running_loop() is not None:
            return None
        place = job.place = threading.Lock()
        place.acquire()
        return place

    def _wait_for_place(self, job: Job, place: threading.Lock) -> None:
        """Block until the job has a place in the queue, or has ended. Without the lane's lock."""
        try:
            place.acquire()
        except BaseException:
            # interrupted: the future is lost with this call
            job.cancel()
            raise

    def _admit_waiting(self) -> None:
        """Move waiting jobs into free places of the queue."""
        while (job := self._admission.admit()) is not None:
            self._on_admitted(job)
            _free_caller(job)

    def _on_admitted(self, job: Job) -> None:
        """Account for a waiting job that is in the queue now."""

    def _end(self, job: Job, outcome: str | None = None) -> bool:
        """Decide the outcome of the job. Return False if it is decided already."""
        if job.is_ended:
            return False
        job.is_ended, job.on_cancel = True, None
        if job.place is not None:
            _free_caller(job)
        if job.expires_ns is not None:
            self._deadlines.discard(job)
        if outcome is not None:
            self._counters.ended(outcome)
        return True


def _free_caller(job: Job) -> None:
    place, job.place = job.place, None
    if place is not None:
        place.release()


def cancel_job(job: Any) -> None:
    """Cancel a job in the thread that its future belongs to, from any thread."""
    if job.loop is None or job.loop is asyncio._get_running_loop():
        job.cancel()
        return
    try:
        job.loop.call_soon_threadsafe(job.cancel)
    except RuntimeError:
        pass  # the loop is closed: there is no caller any more


class LaneWithOptions(CallableExecutor):
    """An executor whose calls run in a lane with fixed options. Its shutdown shuts the lane."""

    def __init__(self, lane: Lane, timeout: float | None, key: Hashable, priority: int, retries: int) -> None:
        self._lane = lane
        self._timeout_s = lane.config.timeout_s if timeout is None else timeout
        self._options = (self._timeout_s, key, priority, retries)

    def call(
        self, loop: asyncio.AbstractEventLoop, fn: Callable[..., Any], args: tuple[Any, ...]
    ) -> asyncio.Future[Any]:
        """Call as the lane does."""
        return self._lane.begin(loop, Call(fn, args, None, *self._options))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """Submit as the lane does."""
        return self._lane.submit_call(Call(fn, args, kwargs or None, *self._options))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the lane."""
        self._lane.shutdown(wait, cancel_futures=cancel_futures)


class LiveLanes(Generic[T]):
    """The lanes of one kind that live now, weakly held.

    A thread may add a lane while another thread reads them: iteration of a WeakSet would raise RuntimeError.
    """

    def __init__(self) -> None:
        self._lanes: WeakValueDictionary[int, T] = WeakValueDictionary()

    def add(self, lane: T) -> None:
        """Keep a weak reference to the lane."""
        self._lanes[id(lane)] = lane

    def all(self) -> list[T]:
        """Return the lanes that live now. The table is copied in one step of C code."""
        return [lane for reference in self._lanes.valuerefs() if (lane := reference()) is not None]
