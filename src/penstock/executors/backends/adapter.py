"""A lane over somebody else's executor: admission, fairness, times and counts of ours in front of any that there is.

`Backend` is the seam: what takes a job and gives a `concurrent.futures` future. Interpreters and clusters are other
backends of the same lane. Knows no loop but the jobs' own, which get their results by `call_soon_threadsafe`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from penstock.errors import Overloaded, PenstockError, WorkerLost
from penstock.executors.admission import Admission, Verdict
from penstock.executors.counters import LaneCounters
from penstock.executors.deadlines import Deadlines, DeadlineThread
from penstock.executors.lane import Lane
from penstock.executors.remote_errors import without_frames

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from penstock.config import LaneConfig
    from penstock.executors.counters import LaneStatistics
    from penstock.executors.job import Job

__all__ = ["Backend", "BackendLane", "ExecutorBackend", "ExecutorLane", "NotRunnableHere"]

# An executor that says how many workers it has is given twice as many jobs, so that none waits for the next one.
AHEAD = 2


class NotRunnableHere(PenstockError):
    """A backend's answer for a job that it has not begun and cannot run: the lane has it run elsewhere."""


class Backend(ABC):
    """What runs the jobs of a lane. Any thread may call it, and the futures it gives may end in any thread."""

    kind: str

    def open(self) -> None:  # noqa: B027 (most have nothing to refuse)
        """Called before a job is admitted; what it raises is the caller's. It must not block."""

    @abstractmethod
    def submit(self, job: Job) -> Future[Any]:
        """Begin the job. What it raises is the job's outcome. Cancelling the future cancels the job, if possible."""

    def read(self, value: Any) -> Any:
        """Make the job's result of what a future gave; raises the job's exception, or NotHere to run it elsewhere."""
        return value

    def failure(self, problem: BaseException) -> BaseException:
        """Make the job's exception of what a future raises."""
        return problem

    def workers(self) -> int | None:
        """How many jobs it runs at once; None if it does not say."""
        return None

    def warm(self) -> None:  # noqa: B027
        """Get ready for the first job; it must not block."""

    @abstractmethod
    def close(self, wait: bool) -> None:
        """No job will come any more, and none is left."""


class ExecutorBackend(Backend):
    """Any `concurrent.futures` executor. Ownership: it is shut by `close`, whoever made it."""

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
        """As Backend's. An executor that broke is made anew, if what makes it makes another."""
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
        if job.context is not None:
            return executor.submit(job.context.run, job.fn, *job.args, **(job.kwargs or {}))
        # a keyword of the job's may be one of submit's own; the standard library's are positional only, others' not
        fn = partial(job.fn, **job.kwargs) if job.kwargs else job.fn
        return executor.submit(fn, *job.args)

    def workers(self) -> int | None:
        """As the standard library's executors, and those made like them, keep it."""
        count = getattr(self._executor, "_max_workers", None)
        return count if isinstance(count, int) and count > 0 else None

    def close(self, wait: bool) -> None:
        """As Backend's."""
        with self._lock:
            executor = self._executor
        if executor is not None:
            executor.shutdown(wait=wait)


# Every job ends once, in one of three threads that may all come at the same moment: its own (cancelled), the alarm's
# (late), the backend's (done). Whoever settles it first under the lock, by `mark`, counts the outcome and tells the
# caller; to the others it is over. A job that the backend goes on with after that keeps its place until it ends there.
SETTLED = "settled"


class BackendLane(Lane):
    """The lane over a backend. At most `workers` jobs are with it at once, or what it says, or `queue_jobs`; and, in
    bytes of arguments, one job or `queue_bytes`. All others are queued here, under the lane's bounds."""

    def __init__(self, name: str, config: LaneConfig, backend: Backend) -> None:
        super().__init__(name, config)
        self._backend = backend
        self._admission = Admission(name, config)
        self._counters = LaneCounters(name, backend.kind)
        self._lock = threading.Lock()
        self._deadlines = Deadlines()
        self._deadline_thread = DeadlineThread(f"penstock-{name}-deadlines", self._look)
        self._empty = threading.Condition(self._lock)
        # with the backend; None while it is being given
        self._with: dict[Job, Future[Any] | None] = {}
        self._with_bytes = 0
        # one thread at a time gives jobs to the backend, and sees what others bring: an end within is no recursion
        self._is_giving = False
        self._is_closed = False
        self._here = threading.local()

    # --- in ----------------------------------------------------------------------------------------------------------

    def _offer(self, job: Job) -> None:
        self._backend.open()
        with self._lock:
            self._check_open()
            verdict, displaced = self._admitted(job)
            if verdict is Verdict.CALLER_RUNS:
                lost = []
            else:
                lost = self._enter(job, verdict, displaced)
        if verdict is Verdict.CALLER_RUNS:
            self._run_in_caller(job)
            del job  # see Lane.call
            return
        for other in lost:
            other.fail_from_thread(self._admission.displaced(other))
            other.forget_arguments()
        self._give()
        if isinstance(job.payload, threading.Event):
            self._wait_for_place(job, job.payload)

    def _wait_for_place(self, job: Job, door: threading.Event) -> None:
        try:
            door.wait()
        except BaseException:
            # interrupted: nobody will ever hold this job's future
            _cancel_from_thread(job)
            raise

    def _admitted(self, job: Job) -> tuple[Verdict, Job | None]:
        try:
            return self._admission.offer(job)
        except Overloaded:
            self._counters.shed("full")
            raise

    def _enter(self, job: Job, verdict: Verdict, displaced: Job | None) -> list[Job]:
        """Note the job; those that lose their places to it, which are settled."""
        job.on_cancel = self._cancelled
        if verdict is Verdict.QUEUED:
            self._admission.set_size(job, _weight_bytes(job))
        elif job.loop is None and not getattr(self._here, "is_telling", False):
            # a thread waits for its place; but not the one whose next result may have to make it
            job.payload = threading.Event()
        if job.expires_ns is not None:
            self._deadline_thread.wake_by(self._deadlines.add(job), daemon=True)
        lost = [] if displaced is None else [displaced]
        while (heavy := self._admission.excess()) is not None:
            lost.append(heavy)
        for other in lost:
            self._settle(other)
            self._counters.shed("displaced")
        return lost

    def _count_in_caller(self, job: Job, outcome: str) -> None:
        ended_ns = monotonic_ns()
        with self._lock:
            self._counters.waited(job.started_ns - job.offered_ns)
            self._counters.ran(ended_ns - job.started_ns)
            self._counters.ended(outcome)

    # --- to the backend ----------------------------------------------------------------------------------------------

    def _limit(self) -> int:
        known = self._backend.workers()
        return self.config.workers or (known and known * AHEAD) or self.config.queue_jobs

    def _give(self) -> None:
        """Give the backend what it has room for."""
        with self._lock:
            if self._is_giving:
                return
            self._is_giving = True
        while (job := self._next()) is not None:
            self._begin(job)

    def _next(self) -> Job | None:
        with self._lock:
            job = self._taken()
            if job is None:
                self._is_giving = False
                self._end_if_over()
            return job

    def _taken(self) -> Job | None:
        if len(self._with) >= self._limit() or (self._with and self._with_bytes >= self.config.queue_bytes):
            return None
        job = self._admission.take()
        if job is not None:
            self._with[job] = None
            self._with_bytes += job.size_bytes
            job.started_ns = monotonic_ns()
            self._counters.waited(job.started_ns - job.offered_ns)
            self._admit()
        return job

    def _admit(self) -> None:
        """There may be room: let in who waits."""
        while (job := self._admission.admit()) is not None:
            self._admission.set_size(job, _weight_bytes(job))
            _let_in(job)

    def _begin(self, job: Job) -> None:
        future = self._submitted(job)
        with self._lock:
            self._with[job] = future
            is_over = job.mark is SETTLED
        future.add_done_callback(partial(self._ended, job))
        if is_over:
            future.cancel()

    def _submitted(self, job: Job) -> Future[Any]:
        try:
            return self._backend.submit(job)
        except BaseException as problem:  # the job's outcome, like any that comes later
            failed: Future[Any] = Future()
            failed.set_exception(without_frames(problem))
            return failed

    # --- out ---------------------------------------------------------------------------------------------------------

    def _settle(self, job: Job) -> bool:
        """Make this the job's end, if it has none yet. The lock is held."""
        if job.mark is SETTLED:
            return False
        job.mark = SETTLED
        if job.expires_ns is not None:
            self._deadlines.discard(job)
        _let_in(job)
        return True

    def _ended(self, job: Job, future: Future[Any]) -> None:
        """The backend is through with the job."""
        outcome, value = self._read(future)
        if isinstance(value, NotRunnableHere) and self._leave(job):
            self._send_elsewhere(job, value)
        else:
            with self._lock:
                self._forget(job)
                is_ours = self._settle(job)
                if is_ours:
                    self._counters.ran(monotonic_ns() - job.started_ns)
                    self._counters.ended(outcome)
            job.forget_arguments()
            if is_ours:
                self._tell(job, outcome, value)
        self._give()

    def _read(self, future: Future[Any]) -> tuple[str, Any]:
        """Return what became of a job. Nothing is raised on the way: an exception's traceback holds the frames that it
        has passed and all that called them, here those of a done callback, which hold the job. The job holds the
        exception, and its arguments would stay until the garbage collector comes."""
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
        """Whether the job, which is this lane's no more, has still a caller."""
        with self._lock:
            self._forget(job)
            is_wanted = self._settle(job)
        job.on_cancel = job.mark = job.payload = None
        job.started_ns = job.size_bytes = 0
        return is_wanted

    def _send_elsewhere(self, job: Job, reason: NotRunnableHere) -> None:
        job.fail_from_thread(reason)

    def _tell(self, job: Job, outcome: str, value: Any) -> None:
        self._here.is_telling = True
        try:
            if outcome == "ok":
                job.finish_from_thread(value)
            elif outcome == "cancelled":
                _cancel_from_thread(job)
            else:
                job.fail_from_thread(value)
        finally:
            self._here.is_telling = False

    def _cancelled(self, job: Job) -> None:
        """The caller has given up: in its thread."""
        self._withdraw(job, "cancelled")

    def _look(self) -> None:
        """Expire the jobs whose time is up, in the deadline thread."""
        with self._lock:
            late = self._deadlines.expired(monotonic_ns())
            self._deadline_thread.rest(self._deadlines.next_ns(), may_linger=not self._is_shut)
        while late:
            self._expire(late.pop())

    def _expire(self, job: Job) -> None:
        problem = job.late(f"{job.name} has not ended within {job.allowed} in lane {self.name!r}")
        if self._withdraw(job, "timeout"):
            job.fail_from_thread(problem)

    def _withdraw(self, job: Job, outcome: str) -> bool:
        """Settle a job before its result; False if there is one already."""
        with self._lock:
            if not self._settle(job):
                return False
            self._counters.ended(outcome)
            future = self._with.get(job)
            is_queued = self._admission.discard(job)
            if is_queued:
                self._admit()
        if is_queued:
            job.forget_arguments()
        if future is not None:
            # ends in `_ended` at once if the backend had not begun; else the place is taken until it has done
            future.cancel()
        self._give()
        return True

    # --- the end -----------------------------------------------------------------------------------------------------

    def start(self, loop: Any) -> None:
        """As Lane's."""
        if self.config.min_workers:
            self._backend.warm()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As Lane's. With `cancel_futures` a cluster's jobs are all cancelled: which have begun is its secret."""
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
            is_settled = job.mark is SETTLED
        if future is not None and not future.cancel():
            return
        if future is None and not is_settled and self._withdraw(job, "cancelled"):
            _cancel_from_thread(job)

    def _end_if_over(self) -> None:
        """Once it is shut and the last job has ended: close what it stands on. The lock is held."""
        is_over = not (self._with or self._is_giving or self._admission.queued or self._admission.waiting)
        if self._is_shut and is_over and not self._is_closed:
            self._is_closed = True
            self._deadline_thread.wake()
            self._backend.close(wait=False)
            self._empty.notify_all()

    def statistics(self) -> LaneStatistics:
        """As Lane's. `workers` is what the backend says; else as many as have jobs."""
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
    """The lane over an executor that `make_executor` gives; made at the first job, shut with the lane."""

    def __init__(self, name: str, config: LaneConfig, make_executor: Callable[[], Executor]) -> None:
        super().__init__(name, config, ExecutorBackend(make_executor))


def _let_in(job: Job) -> None:
    """Let the thread go on that waits for this job's place, if one does."""
    if isinstance(job.payload, threading.Event):
        job.payload.set()


def _cancel_from_thread(job: Job) -> None:
    if job.loop is None:
        job.cancel()
        return
    try:
        job.loop.call_soon_threadsafe(job.cancel)
    except RuntimeError:
        pass  # the loop is closed: nobody waits any more


def _weight_bytes(job: Job) -> int:
    """What the arguments weigh, as far as they say so: their text, their buffers, not what they refer to."""
    total = sum(map(_one_weight_bytes, job.args))
    return total + sum(map(_one_weight_bytes, job.kwargs.values())) if job.kwargs else total


def _one_weight_bytes(item: Any) -> int:
    if isinstance(item, bytes | bytearray | str):
        return len(item)
    try:
        size = item.nbytes
    except Exception:  # it says nothing; or it computes it, and fails
        return 0
    return size if isinstance(size, int) else 0
