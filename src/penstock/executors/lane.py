"""What every lane of an event loop is: a `concurrent.futures.Executor` that a loop can also call directly.

A lane admits a call before anything is built for it, then runs it; how it runs it is the subclass's part: threads,
processes, somebody else's executor.
"""

from __future__ import annotations

from abc import abstractmethod
from contextvars import Context
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from penstock.executors.call import check_plain
from penstock.executors.job import Job, LoopJob, ThreadJob
from penstock.executors.remote_errors import describe_error
from penstock.loop.lanes import CallableExecutor

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    import contextvars
    from collections.abc import Callable, Hashable

    from penstock.config import LaneConfig
    from penstock.executors.counters import LaneCounters, LaneStatistics

__all__ = ["Lane", "LaneWithOptions", "LiveLanes"]

P = ParamSpec("P")
T = TypeVar("T")


class Lane(CallableExecutor):
    """A named executor with a bounded queue. `name` and `config` are as declared."""

    _counters: LaneCounters
    # A call of a coroutine function gives a coroutine, which stays where it was made.
    takes_coroutine_functions = False
    # Whether a job's SystemExit ends its worker's work on it and comes as RemoteError, or comes as itself.
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
        """Run `fn(*args, **kwargs)` for a caller in `loop`'s own thread.

        Raises Overloaded at once if the lane refuses, RuntimeError once it is shut, TypeError for a coroutine function.
        `timeout_s` (the config's when None) counts from now, and a `penstock.pressure.deadline` around the call holds
        too: TimeoutError, and the job is interrupted. `retries` is for idempotent jobs: how often one may be run again
        after a lost worker. Callers with the same `key` share one place in the rotation.
        """
        timeout_s = self.config.timeout_s if timeout_s is None else timeout_s
        job = LoopJob(loop, fn, args, kwargs, timeout_s, key, priority, retries, context)
        try:
            self._take(job)
            return job
        finally:
            # the traceback of a job that its caller runs ends in this frame: it must not hold the job
            del job

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """As `concurrent.futures`', from any thread; a full lane acts as its config says, and may raise Overloaded."""
        return self._submit(fn, args, kwargs, self.config.timeout_s)

    def options(
        self, *, timeout: float | None = None, key: Hashable = None, priority: int = 0, retries: int = 0
    ) -> LaneWithOptions:
        """Return an executor that offers its calls to this lane, each with these options, as `offload` has them."""
        return LaneWithOptions(self, timeout, key, priority, retries)

    def _submit(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *how: Any) -> ThreadJob:
        job = ThreadJob(fn, args, kwargs or None, *how)
        try:
            self._take(job)
            return job
        finally:
            del job

    def _take(self, job: Job) -> None:
        """Refuse what cannot run, and offer the rest."""
        self._check_open()
        if not self.takes_coroutine_functions:
            check_plain(job.fn)
        if job.expires_ns is not None and job.expires_ns <= job.offered_ns:
            job.fail(job.late(f"{job.name}: its time was up before it was offered to lane {self.name!r}"))
            return
        self._offer(job)
        del job

    def tell(self, listener: Callable[[str, str, int], None] | None) -> None:
        """Have `listener(kind, text, took_ns)` hear of each job that has run and each that was refused."""
        self._counters.listener = listener

    def _check_open(self) -> None:
        if self._is_shut:
            raise RuntimeError(f"lane {self.name!r} is shut down: it takes no new jobs")

    @abstractmethod
    def _offer(self, job: Job) -> None:
        """Admit the job and see to it that it runs; raises Overloaded when it is refused."""

    def _run_in_caller(self, job: Job) -> None:
        """Run the job in the thread that offers it, apart from the caller's context variables. A KeyboardInterrupt is
        raised there, at once: it may be the caller's own Ctrl-C. So is a SystemExit where it would come as itself."""
        job.on_cancel, job.started_ns = None, monotonic_ns()
        if job.context is None:
            job.context = Context()
        outcome, value = job.run()
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
            del job, value

    def _count_in_caller(self, job: Job, outcome: str) -> None:
        """Count a job that its caller has run; any thread may come."""

    @abstractmethod
    def statistics(self) -> LaneStatistics:
        """Counts, times and bytes so far, frozen."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called when `loop` begins to run: start what the config wants ready before the first job."""

    @abstractmethod
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `concurrent.futures`': no new jobs; admitted ones run to their end, or are cancelled if not begun."""


class LaneWithOptions(CallableExecutor):
    """A lane whose calls have options. To shut it shuts the lane."""

    def __init__(self, lane: Lane, timeout: float | None, key: Hashable, priority: int, retries: int) -> None:
        self._lane = lane
        self._timeout_s = lane.config.timeout_s if timeout is None else timeout
        self._how: tuple[Hashable, int, int] = (key, priority, retries)

    def call(
        self, loop: asyncio.AbstractEventLoop, fn: Callable[..., Any], args: tuple[Any, ...]
    ) -> asyncio.Future[Any]:
        """As the lane's."""
        key, priority, retries = self._how
        return self._lane.call(loop, fn, args, timeout_s=self._timeout_s, key=key, priority=priority, retries=retries)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """As the lane's."""
        return self._lane._submit(fn, args, kwargs, self._timeout_s, *self._how)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As the lane's."""
        self._lane.shutdown(wait, cancel_futures=cancel_futures)


class LiveLanes(Generic[T]):
    """Lanes, weakly held. Iterating a WeakSet raises RuntimeError when another thread adds to it; this does not."""

    def __init__(self) -> None:
        self._lanes: WeakValueDictionary[int, T] = WeakValueDictionary()

    def add(self, lane: T) -> None:
        """Keep the lane for as long as it lives."""
        self._lanes[id(lane)] = lane

    def all(self) -> list[T]:
        """Return the lanes that live now. The table is copied in one step of C code."""
        return [lane for reference in self._lanes.valuerefs() if (lane := reference()) is not None]
