"""A lane over another executor: bounded queue, fairness, times and counts in front of any `concurrent.futures`
executor.

A `Backend` takes a job and returns a `concurrent.futures` future. Interpreters and clusters are other backends of the
same lane. Results reach a job's own loop by `call_soon_threadsafe`; no other loop is involved.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from penstock.errors import PenstockError, WorkerLost
from penstock.executors.admission import Verdict
from penstock.executors.lane import LockedLane, cancel_job
from penstock.executors.remote_errors import without_frames

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from penstock.config import LaneConfig
    from penstock.executors.counters import LaneStatistics
    from penstock.executors.job import Job

__all__ = ["Backend", "BackendLane", "ExecutorBackend", "ExecutorLane", "NotRunnableHere"]

# An executor with a known number of workers gets twice as many jobs, so that no worker waits for its next job.
AHEAD = 2


class NotRunnableHere(PenstockError):
    """A job that its backend cannot run and has not begun. The lane runs it elsewhere."""


class Backend(ABC):
    """The executor under a lane. Any thread may call it, and its futures may end in any thread."""

    kind: str

    def open(self) -> None:  # noqa: B027 (most have nothing to check)
        """Prepare for a job, before it is admitted, without blocking. An exception is raised in the caller."""

    @abstractmethod
    def submit(self, job: Job) -> Future[Any]:
        """Begin the job. Return its future, whose cancellation cancels the job if possible. An exception is its
        outcome."""

    def read(self, value: Any) -> Any:
        """Convert the result of a future to the job's. Raises the job's exception, or NotRunnableHere."""
        return value

    def failure(self, problem: BaseException) -> BaseException:
        """Convert the exception of a future to the job's."""
        return problem

    def workers(self) -> int | None:
        """Return the number of jobs that run at once, None if it is not known."""
        return None

    def warm(self) -> None:  # noqa: B027
        """Prepare for the first job, without blocking."""

    @abstractmethod
    def close(self, wait: bool) -> None:
        """Close the executor. No job is left and none will come. `wait`: block until it is closed."""


class ExecutorBackend(Backend):
    """Any `concurrent.futures` executor. Ownership: `close` shuts the executor."""

    kind = "executor"

    def __init__(self, make_executor: Callable[[], Executor]) -> None:
        self._make = make_executor
        self._executor: Executor | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        """Make the executor."""
        self._made()

    def _made(self, broken: Executor | None = None) -> Executor:
        with self._lock:
            if self._executor is None or self._executor is broken:
                self._executor = self._make()
            return self._executor

    def submit(self, job: Job) -> Future[Any]:
        """Begin the job. Replace a broken executor by a new one, if `make_executor` returns another."""
        executor = self._made()
        try:
            return self._give(executor, job)
        except BrokenExecutor:
            another = self._made(broken=executor)
            if another is executor:
                raise
            executor.shutdown(wait=False)
            return self._give(another, job)

    def _give(self, executor: Executor, job: Job) -> Future[Any]:
        fn, args, kwargs, context = job.call.fn, job.call.args, job.call.kwargs, job.call.context
        if context is not None:
            return executor.submit(context.run, fn, *args, **(kwargs or {}))
        # a keyword may be a parameter of submit itself, which is positional only in the standard library alone
        return executor.submit(partial(fn, **kwargs) if kwargs else fn, *args)

    def workers(self) -> int | None:
        """Return the `_max_workers` of the standard library's executors and similar ones."""
        count = getattr(self._executor, "_max_workers", None)
        return count if isinstance(count, int) and count > 0 else None

    def close(self, wait: bool) -> None:
        """Implement Backend's method."""
        with self._lock:
            executor = self._executor
        if executor is not None:
            executor.shutdown(wait=wait)


class BackendLane(LockedLane):
    """The lane over a backend. The backend has at most `config.workers` jobs at once; if the config sets no number,
    twice the backend's workers; if it has no known number, `queue_jobs`. Together the arguments of its jobs have at
    most `queue_bytes`, or it has one job. All others are queued in the lane.

    An ended job that the backend still runs keeps its place there until it returns.
    """

    def __init__(self, name: str, config: LaneConfig, backend: Backend) -> None:
        super().__init__(name, config)
        self._backend = backend
        self._kind = backend.kind
        self._begin()
        self._empty = threading.Condition(self._lock)
        # the jobs of the backend; None while one is submitted
        self._with: dict[Job, Future[Any] | None] = {}
        self._with_bytes = 0
        # one thread at a time submits jobs, those of other threads too: a job that ends meanwhile is no recursion
        self._is_submitting = False
        self._is_closed = False
        # whether this thread is delivering a result
        self._delivery = threading.local()

    # --- offered jobs -------------------------------------------------------------------------------------------------

    def _offer(self, job: Job) -> None:
        self._backend.open()
        place = None
        with self._lock:
            self._check_open()
            verdict, displaced = self._admit(job)
            if verdict is not Verdict.CALLER_RUNS:
                place = self._enter(job, verdict)
                displaced += self._displace_excess()
        if verdict is Verdict.CALLER_RUNS:
            self._run_in_caller(job)
            del job  # see Lane.begin
            return
        self._fail_displaced(displaced)
        self._submit_queued()
        if place is not None:
            self._wait_for_place(job, place)

    def _enter(self, job: Job, verdict: Verdict) -> threading.Lock | None:
        """Account for an admitted job. Return the place that its caller waits for, if it waits."""
        job.on_cancel = self._on_cancel
        place = None
        if verdict is Verdict.QUEUED:
            self._on_admitted(job)
        elif not getattr(self._delivery, "is_delivering", False):
            # a thread that delivers results must not wait: its next result may free the place
            place = self._make_place(job)
        if job.expires_ns is not None:
            self._deadline_thread.wake_by(self._deadlines.add(job), daemon=True)
        return place

    def _displace_excess(self) -> list[Job]:
        displaced = []
        while (heavy := self._admission.excess()) is not None:
            displaced.append(self._displace(heavy))
        return displaced

    def _on_admitted(self, job: Job) -> None:
        self._admission.set_size(job, _size_bytes(job))

    def _count_in_caller(self, job: Job, outcome: str) -> None:
        ended_ns = monotonic_ns()
        with self._lock:
            self._counters.waited(job.started_ns - job.offered_ns)
            self._counters.ran(ended_ns - job.started_ns)
            self._counters.ended(outcome)

    # --- jobs for the backend -----------------------------------------------------------------------------------------

    def _limit(self) -> int:
        known = self._backend.workers()
        return self.config.workers or (known and known * AHEAD) or self.config.queue_jobs

    def _submit_queued(self) -> None:
        """Submit queued jobs, as many as the backend has room for."""
        with self._lock:
            if self._is_submitting:
                return
            self._is_submitting = True
        while (job := self._next()) is not None:
            self._begin_job(job)

    def _next(self) -> Job | None:
        with self._lock:
            job = self._take_queued()
            if job is None:
                self._is_submitting = False
                self._end_if_over()
            return job

    def _take_queued(self) -> Job | None:
        if len(self._with) >= self._limit() or (self._with and self._with_bytes >= self.config.queue_bytes):
            return None
        job: Job | None = self._admission.take()
        if job is not None:
            self._with[job] = None
            self._with_bytes += job.size_bytes
            job.started_ns = monotonic_ns()
            self._counters.waited(job.started_ns - job.offered_ns)
            self._admit_waiting()
        return job

    def _begin_job(self, job: Job) -> None:
        future = self._submitted(job)
        with self._lock:
            self._with[job] = future
            is_over = job.is_ended
        future.add_done_callback(partial(self._ended, job))
        if is_over:
            future.cancel()

    def _submitted(self, job: Job) -> Future[Any]:
        try:
            return self._backend.submit(job)
        except BaseException as problem:  # the job's outcome, as if its future had raised it
            failed: Future[Any] = Future()
            failed.set_exception(without_frames(problem))
            return failed

    # --- outcomes -----------------------------------------------------------------------------------------------------

    def _ended(self, job: Job, future: Future[Any]) -> None:
        """Account for a job whose future has ended, and deliver its outcome."""
        outcome, value = self._read(future)
        if isinstance(value, NotRunnableHere) and self._leave(job):
            self._send_elsewhere(job, value)
        else:
            with self._lock:
                self._forget(job)
                is_first = self._end(job, outcome)
                if is_first:
                    self._counters.ran(monotonic_ns() - job.started_ns)
            job.forget_arguments()
            if is_first:
                self._deliver(job, outcome, value)
        self._submit_queued()

    def _read(self, future: Future[Any]) -> tuple[str, Any]:
        """Return the outcome of a job and its value. Nothing may be raised through this frame: the traceback would hold
        the frames of a done callback, which hold the job, and the job holds the exception. Its arguments would stay
        until the garbage collector runs."""
        if future.cancelled():
            return "cancelled", None
        problem = future.exception()
        try:
            if problem is None:
                return "ok", self._backend.read(future.result())
            problem = self._backend.failure(problem)
        except BaseException as raised:
            problem = raised.with_traceback(None)
        return "worker_lost" if isinstance(problem, BrokenExecutor | WorkerLost) else "error", problem

    def _forget(self, job: Job) -> None:
        if self._with.pop(job, self) is not self:
            self._with_bytes -= job.size_bytes

    def _leave(self, job: Job) -> bool:
        """Give up a job that goes elsewhere. Return False if it has ended already."""
        with self._lock:
            self._forget(job)
            is_wanted = self._end(job)
            job.is_ended = False
        job.started_ns = job.size_bytes = 0
        return is_wanted

    def _send_elsewhere(self, job: Job, reason: NotRunnableHere) -> None:
        job.fail_from_thread(reason)

    def _deliver(self, job: Job, outcome: str, value: Any) -> None:
        self._delivery.is_delivering = True
        try:
            if outcome == "ok":
                job.finish_from_thread(value)
            elif outcome == "cancelled":
                cancel_job(job)
            else:
                job.fail_from_thread(value)
        finally:
            self._delivery.is_delivering = False

    def _on_cancel(self, job: Job) -> None:
        self._withdraw(job, "cancelled")

    def _look(self) -> None:
        """Expire the jobs whose time is up, in the deadline thread."""
        with self._lock:
            late = self._deadlines.expired(monotonic_ns())
            self._deadline_thread.rest(self._deadlines.next_ns(), may_linger=not self._is_shut)
        while late:
            self._expire(late.pop())

    def _expire(self, job: Job) -> None:
        problem = job.timeout_error(f"{job.name} has not ended within {job.allowed} in lane {self.name!r}")
        if self._withdraw(job, "timeout"):
            job.fail_from_thread(problem)

    def _withdraw(self, job: Job, outcome: str) -> bool:
        """End a job before its result. Return False if it has ended already."""
        with self._lock:
            if not self._end(job, outcome):
                return False
            future = self._with.get(job)
            is_queued = self._admission.discard(job)
            if is_queued:
                self._admit_waiting()
        if is_queued:
            job.forget_arguments()
        if future is not None:
            # calls `_ended` at once if the backend has not begun the job; else its place is taken until it returns
            future.cancel()
        self._submit_queued()
        return True

    # --- start and end ------------------------------------------------------------------------------------------------

    def start(self, loop: Any) -> None:
        """Prepare the backend if the config wants workers from the start."""
        if self.config.min_workers:
            self._backend.warm()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the lane. `cancel_futures` cancels all jobs of a cluster, for which of them have begun is not known."""
        with self._lock:
            self._is_shut = True
            given_up = [*self._admission.drain(), *self._with] if cancel_futures else []
        for job in given_up:
            self._abandon(job)
        with self._lock:
            self._end_if_over()
            while wait and not self._is_closed:
                self._empty.wait()
        if wait:
            self._backend.close(wait=True)

    def _abandon(self, job: Job) -> None:
        with self._lock:
            future = self._with.get(job)
            is_ended = job.is_ended
        if future is not None and not future.cancel():
            return
        if future is None and not is_ended and self._withdraw(job, "cancelled"):
            cancel_job(job)

    def _end_if_over(self) -> None:
        """Close the backend if the lane is shut and its last job has ended. Under the lock."""
        is_over = not (self._with or self._is_submitting or self._admission.queued or self._admission.waiting)
        if self._is_shut and is_over and not self._is_closed:
            self._is_closed = True
            self._deadline_thread.wake()
            self._backend.close(wait=False)
            self._empty.notify_all()

    def statistics(self) -> LaneStatistics:
        """Return counts and gauges. `workers` is the backend's number, or else the number of its jobs."""
        with self._lock:
            running, known = len(self._with), self._backend.workers()
            workers = running if known is None else known
            return self._counters.snapshot(
                workers=workers,
                workers_busy=min(running, workers),
                workers_limit=self._limit(),
                queued=self._admission.queued,
                waiting=self._admission.waiting,
                running=running,
                queue_limit=self._admission.limit,
            )


class ExecutorLane(BackendLane):
    """The lane over the executor that `make_executor` returns. It is made at the first job and shut with the lane."""

    def __init__(self, name: str, config: LaneConfig, make_executor: Callable[[], Executor]) -> None:
        super().__init__(name, config, ExecutorBackend(make_executor))


def _size_bytes(job: Job) -> int:
    """Return the size of the arguments as far as it is known: text and buffers, without the objects they refer to."""
    args, kwargs = job.call.args, job.call.kwargs
    total = sum(map(_argument_bytes, args))
    return total + sum(map(_argument_bytes, kwargs.values())) if kwargs else total


def _argument_bytes(item: Any) -> int:
    if isinstance(item, bytes | bytearray | str):
        return len(item)
    try:
        size = item.nbytes
    except Exception:  # it has no size, or fails to compute it
        return 0
    return size if isinstance(size, int) else 0
