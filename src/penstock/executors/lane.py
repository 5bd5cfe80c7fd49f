"""What every lane of an event loop is: a `concurrent.futures.Executor` that a loop can also call directly.

A lane admits a call before anything is built for it, then runs it; how it runs it is the subclass's part: threads,
processes, somebody else's executor.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from penstock.executors.job import Job, LoopJob, ThreadJob
from penstock.loop.lanes import CallableExecutor

if TYPE_CHECKING:
    import asyncio
    import contextvars
    from collections.abc import Callable, Hashable

    from penstock.config import LaneConfig
    from penstock.executors.meter import LaneMeter, LaneStatistics

__all__ = ["Lane"]


class Lane(CallableExecutor):
    """A named executor with a bounded queue. `name` and `config` are as declared."""

    _meter: LaneMeter

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

        Raises Overloaded at once if the lane refuses, RuntimeError once it is shut. `timeout_s` (the config's when
        None) counts from now: TimeoutError, and the job is interrupted. `retries` is for idempotent jobs: how often
        one may be run again after a lost worker. Callers with the same `key` share one place in the rotation.
        """
        self._check_open()
        timeout_s = self.config.timeout_s if timeout_s is None else timeout_s
        job = LoopJob(loop, fn, args, kwargs, timeout_s, key, priority, retries, context)
        self._offer(job)
        return job

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> ThreadJob:
        """As `concurrent.futures`', from any thread; a full lane acts as its config says, and may raise Overloaded."""
        self._check_open()
        job = ThreadJob(fn, args, kwargs or None, self.config.timeout_s)
        self._offer(job)
        return job

    def tell(self, listener: Callable[[str, str, int], None] | None) -> None:
        """Have `listener(kind, text, took_ns)` hear of each job that has run and each that was refused."""
        self._meter.listener = listener

    def _check_open(self) -> None:
        if self._is_shut:
            raise RuntimeError(f"lane {self.name!r} is shut down: it takes no new jobs")

    @abstractmethod
    def _offer(self, job: Job) -> None:
        """Admit the job and see to it that it runs; raises Overloaded when it is refused."""

    @abstractmethod
    def statistics(self) -> LaneStatistics:
        """Counts, times and bytes so far, frozen."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called when `loop` begins to run: start what the config wants ready before the first job."""

    @abstractmethod
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `concurrent.futures`': no new jobs; admitted ones run to their end, or are cancelled if not begun."""
