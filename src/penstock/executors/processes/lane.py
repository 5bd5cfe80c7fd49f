"""The lane of processes: jobs run in worker processes, whose sockets the event loop itself writes and reads.

Its state is confined to the thread of one loop, its home loop. An idle worker is sent a job at once. Short jobs are
also sent ahead, to busy workers, while more workers start; they are revoked when another worker becomes idle.
"""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import suppress
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from penstock.errors import Overloaded, PoisonJob, WorkerLost, WorkerStartError
from penstock.executors.admission import Admission, Verdict
from penstock.executors.cores import current_cores
from penstock.executors.counters import LaneCounters, LaneStatistics
from penstock.executors.job import FINISHED
from penstock.executors.notebook_pickling import portable
from penstock.executors.processes.claims import SLOTS, SPIN_NS, AdaptiveSpin
from penstock.executors.processes.context import ContextCapture
from penstock.executors.processes.home import HomeLoopLane
from penstock.executors.processes.pickling import Pickled, call_fault, dump, dump_function, small_pickle
from penstock.executors.processes.pool import WorkerPool
from penstock.executors.processes.protocol import Status
from penstock.executors.processes.worker import WorkerOptions
from penstock.executors.remote_errors import rebuild_error, without_frames
from penstock.loop.native import native_core

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.config import LaneConfig
    from penstock.executors.job import Job
    from penstock.executors.processes.connection import WorkerConnection

__all__ = ["ProcessLane"]

# A worker is sent as many jobs ahead as it runs in this time, which is that of a round trip through the socket.
AHEAD_NS = 500_000
MOST_AHEAD = max(1, SLOTS // 2)
RESULT_STATUS = int(Status.RESULT)
# For shorter jobs the loop may spin for the reply before it sleeps.
SHORT_NS = 50_000


class ProcessLane(HomeLoopLane):
    """A lane of worker processes. `LaneConfig` documents its options."""

    exits_are_errors = True

    def __init__(self, name: str, config: LaneConfig) -> None:
        self._may_spin = current_cores().chosen > 1
        self._context_capture = ContextCapture(config.context)
        self._counters = LaneCounters(name, "processes")
        self._initializer = portable(config.initializer, f"lane {name!r}: its initializer")
        super().__init__(name, config)

    def _begin(self) -> None:
        """Start without workers and jobs, on no loop yet."""
        super()._begin()
        config = self.config
        options = WorkerOptions(config.preload, self._initializer, config.nice, self._may_spin)
        self._admission = Admission(self.name, self.config)
        self._pool = WorkerPool(self.name, self.config, self._counters, options)
        # the moving average of how long jobs run, over about eight jobs
        self._run_ns = AHEAD_NS
        # the number of jobs that one worker may have
        self._depth = 1
        self._expect_event: Callable[[int], None] | None = None
        self._spin = AdaptiveSpin()
        self._spun_for: Job | None = None

    def _live_on(self, home: asyncio.AbstractEventLoop) -> None:
        super()._live_on(home)
        # only penstock's own loop can spin before it sleeps
        core = native_core(home) if self._may_spin else None
        self._expect_event = None if core is None else core.expect_event

    # --- taking jobs

    def _enter(self, job: Job, is_posted: bool = False) -> None:
        job.on_cancel = self._on_cancel
        if job.expires_ns is not None:
            assert self._home is not None
            wait_s = (job.expires_ns - monotonic_ns()) / 1e9
            job.timer = self._home.call_later(max(wait_s, 0.0), self._expire, job)
        if not self._admission.queued:
            connection = self._connection_for_one()
            if connection is not None:
                self._send(connection, job)
                return
        self._queue(job, is_posted)

    def _queue(self, job: Job, is_posted: bool) -> None:
        try:
            verdict, displaced = self._admission.offer(job)
        except Overloaded as problem:
            self._detach(job)
            self._counters.shed(problem.reason)
            raise
        if displaced is not None:
            self._displace(displaced)
        if verdict is Verdict.CALLER_RUNS and not is_posted:
            self._run_in_caller(job)
            return
        if verdict is Verdict.CALLER_RUNS:
            # the caller is another thread, which has not waited for the verdict
            self._admission.put_back(job)
            verdict = Verdict.QUEUED
        if verdict is Verdict.QUEUED:
            self._build_queued(job)
        self.on_room()

    def _displace(self, job: Job) -> None:
        self._counters.shed("displaced")
        self._fail(job, self._admission.displaced(job))

    def _build_queued(self, job: Job) -> None:
        if not self._build(job):
            self._admission.discard(job)
            return
        self._admission.set_size(job, job.payload.size_bytes)
        while (heaviest := self._admission.excess()) is not None:
            self._displace(heaviest)

    def _run_in_caller(self, job: Job) -> None:
        self._detach(job)
        super()._run_in_caller(job)
        del job

    def _caller_context(self) -> contextvars.Context:
        return contextvars.copy_context()

    def _count_in_caller(self, job: Job, outcome: str) -> None:
        waited_ns, ran_ns = job.started_ns - job.offered_ns, monotonic_ns() - job.started_ns
        self._count(partial(self._count_run, waited_ns, ran_ns, outcome))

    def _count_run(self, waited_ns: int, ran_ns: int, outcome: str) -> None:
        self._counters.waited(waited_ns)
        self._counters.ran(ran_ns)
        self._counters.ended(outcome)

    def _build(self, job: Job) -> bool:
        """Pickle the call. Return False if that fails, and with it the job."""
        if job.payload is not None:
            return True
        try:
            job.payload = _pickle_call(job)
        except Exception as problem:
            error = _call_error(job, problem)
            self._counters.ended("error")
            self._fail(job, error)
            return False
        # the payload has the arguments now
        job.call.forget_arguments()
        job.carried = None
        return True

    # --- handing jobs out

    def _connection_for_one(self) -> WorkerConnection | None:
        """Return the connection for one more job: of an idle worker, else of the least busy one with room for a job
        ahead."""
        connection, depth = self._pool.next_resting(), self._depth
        if connection is not None or depth == 1:
            return connection
        # a job sent ahead may wait behind a long one: a new worker takes it over
        pool = self._pool
        if len(pool.connections) + pool.starting < pool.limit_seen:
            pool.grow(1)
        best, fewest = None, depth
        for other in pool.connections:
            count = len(other.jobs)
            if 0 < count < fewest and other.has_room(depth):
                best, fewest = other, count
        return best

    def _send(self, connection: WorkerConnection, job: Job) -> None:
        if not self._build(job):
            if not connection.jobs:
                self.on_free(connection)
            return
        was_idle = not connection.jobs
        job.started_ns = monotonic_ns()
        connection.send(job)
        if was_idle and self._expect_event is not None and self._run_ns < SHORT_NS and self._spin.should_spin():
            self._spun_for = job
            self._expect_event(SPIN_NS)

    def on_free(self, connection: WorkerConnection) -> None:
        """Send queued jobs to a worker that has replied or is new."""
        admission = self._admission
        if admission.queued:
            self._send_queued(connection)
        if admission.waiting or self._blocked_count:
            self._admit()
        if not connection.jobs and connection.has_room(1) and not self._take_over(connection):
            self._pool.rest(connection)
        if self._is_shut or self._heir is not None:
            self._after_jobs()

    def _send_queued(self, connection: WorkerConnection) -> None:
        depth = self._depth
        while connection.has_room(depth):
            job = self._admission.take()
            if job is None:
                return
            if self._build(job):
                job.started_ns = monotonic_ns()
                connection.send(job)

    def _take_over(self, connection: WorkerConnection) -> bool:
        """Move half of the jobs that the busiest worker has not begun to an idle one. Return False if there are
        none."""
        busiest = max(self._pool.connections, key=lambda other: len(other.jobs), default=connection)
        count = min(len(busiest.jobs) // 2, connection.places) if len(busiest.jobs) > 1 else 0
        jobs = busiest.take_back_unbegun(count) if count else []
        for job in jobs:
            connection.send(job)
        return bool(jobs)

    def _admit(self) -> None:
        """Move waiting jobs into free places of the queue."""
        while (job := self._admission.admit()) is not None:
            self._build_queued(job)
        with self._room:
            self._room.notify_all()

    def on_room(self) -> None:
        """Start workers for the queued jobs, or the `min_workers`."""
        if self._admission.queued:
            self._pool.grow(self._admission.queued)
        elif not self._is_shut:
            self._pool.keep()
        if self._is_shut:
            self._end_if_done()

    # --- answers

    def on_reply(
        self, connection: WorkerConnection, job: Job, status: int, value: Any, began_ns: int, ran_ns: int
    ) -> None:
        """Account for a worker's reply of this `status`, and deliver the outcome."""
        self._run_ns = run_ns = self._run_ns + ((ran_ns - self._run_ns) >> 3)
        self._depth = min(max(AHEAD_NS // max(run_ns, 1), 1), MOST_AHEAD)
        if job is self._spun_for:
            self._spun_for = None
            self._spin.found(monotonic_ns() - job.started_ns < SPIN_NS)
        counters, loop = self._counters, job.loop
        counters.replied(ran_ns, began_ns - job.offered_ns if began_ns > job.offered_ns else 0)
        if job.done():
            return  # cancelled or expired, and counted then
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        job.on_cancel = job.payload = job.carried = None
        job.call = FINISHED
        if status == RESULT_STATUS:
            counters.ended("ok")
            if loop is self._home:
                job.set_result(value)  # type: ignore[attr-defined]
            elif loop is None:
                self._deliver_to_thread(job.finish, value)
            else:
                job.finish_from_thread(value)
        elif status == Status.ERROR:
            counters.ended("error")
            self._deliver_failure(job, rebuild_error(*value))
        else:
            job.cancel()

    def _detach(self, job: Job) -> None:
        """Stop the job's timer and its notification of a cancellation: only its outcome is left."""
        job.on_cancel = None
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        job.payload = job.carried = None

    def _fail(self, job: Job, problem: BaseException) -> None:
        self._detach(job)
        self._deliver_failure(job, problem)

    def _deliver_failure(self, job: Job, problem: BaseException) -> None:
        if job.loop is None:
            self._deliver_to_thread(job.fail, problem)
        elif job.loop is self._home:
            job.fail(problem)
        else:
            job.fail_from_thread(problem)

    # --- cancelled and expired jobs, lost workers

    def _on_cancel(self, job: Job) -> None:
        if asyncio._get_running_loop() is self._home:
            self._give_up(job, "cancelled")
            return
        with suppress(RuntimeError):  # the home is closed
            assert self._home is not None
            self._home.call_soon_threadsafe(self._give_up, job, "cancelled")

    def _expire(self, job: Job) -> None:
        job.timer = None
        if not job.done():
            self._give_up(job, "timeout")

    def _give_up(self, job: Job, cause: str) -> None:
        """End a cancelled or expired job: remove it from the queue, or revoke or interrupt it at its worker."""
        number, connection = job.number, self._pool.connection_of(job)
        has_begun = connection is not None and not connection.take_back(job)
        self._detach(job)
        self._counters.ended(cause)
        if cause == "timeout":
            self._deliver_failure(job, self._timeout_error(job, has_begun))
        if connection is None:
            self._admission.discard(job)
            self._admit()
            self._after_jobs()
        elif has_begun:
            if connection.interrupted != number:
                self._interrupt(connection, job, cause)
        elif not connection.jobs:
            self.on_free(connection)

    def _timeout_error(self, job: Job, has_begun: bool) -> TimeoutError:
        if has_begun:
            return job.timeout_error(f"{job.name} has not ended within {job.allowed}")
        is_ready = any(connection.is_ready for connection in self._pool.connections)
        why = "its workers are busy; there may be too few" if is_ready else "no worker of it is ready yet"
        return job.timeout_error(f"{job.name} has not begun within {job.allowed} in lane {self.name!r}: {why}")

    def _interrupt(self, connection: WorkerConnection, job: Job, cause: str) -> None:
        assert self._home is not None
        connection.interrupt(job)
        connection.grace = self._home.call_later(self.config.grace_s, self._pool.kill, connection, cause)
        self._put_back(connection.take_back_unbegun())

    def _put_back(self, jobs: list[Job]) -> None:
        for job in reversed(jobs):
            self._admission.put_back(job)
        for _ in jobs:
            connection = self._connection_for_one()
            found = self._admission.take() if connection is not None else None
            if connection is None or found is None:
                break
            self._send(connection, found)
        self.on_room()

    def on_lost(self, connection: WorkerConnection, unbegun: list[Job], code: int | None) -> None:
        """Account for a worker that ended with this exit `code`: the job that it had begun is lost, no other."""
        for job in connection.jobs.values():
            job.number = 0
            if not job.done():
                self._lost(job, connection.pid, code)
        connection.jobs.clear()
        self._put_back(unbegun)

    def _lost(self, job: Job, pid: int, code: int | None) -> None:
        job.kills += 1
        may_retry = job.kills <= job.call.retries
        if may_retry and job.kills < self.config.poison_kills:
            self._admission.put_back(job)
            return
        signal_number = -code if code is not None and code < 0 else None
        exit_code = code if signal_number is None else None
        self._counters.ended("worker_lost")
        if may_retry:
            kills = job.kills
            problem: WorkerLost = PoisonJob(job.name, kills=kills, pid=pid, signal=signal_number, exit_code=exit_code)
        else:
            problem = WorkerLost(job.name, pid=pid, signal=signal_number, exit_code=exit_code)
        self._fail(job, problem)

    def on_no_worker(self, text: str, problem: BaseException | None) -> None:
        """Fail every queued job: no worker is alive, and none can be started."""
        for job in self._admission.drain():
            self._counters.ended("worker_lost")
            error = WorkerStartError(text)
            error.__cause__ = problem
            self._fail(job, error)
        self._admit()
        self._after_jobs()

    def statistics(self) -> LaneStatistics:
        """Return counts and gauges. Read in another thread, the gauges may be of slightly different moments."""
        pool, admission = self._pool, self._admission
        connections = list(pool.connections)
        return self._counters.snapshot(
            workers=len(connections),
            workers_busy=sum(bool(connection.jobs) for connection in connections),
            workers_limit=pool.limit,
            queued=admission.queued,
            waiting=admission.waiting,
            running=sum(len(connection.jobs) for connection in connections),
            queue_limit=admission.limit,
        )


def _pickle_call(job: Job) -> Pickled:
    call = job.call
    fn, args = call.fn, call.args
    function = dump_function(fn)
    if function is None or call.kwargs or job.carried is not None:
        return dump((fn, args, call.kwargs, job.carried))
    pickled = small_pickle(args) or dump(args)
    pickled.function = function
    return pickled


def _call_error(job: Job, problem: Exception) -> Exception:
    """Make the error for a call that cannot be sent, which names the object at fault."""
    error = call_fault(job.call, problem, job.carried[0] if job.carried else None)
    error.__cause__ = without_frames(problem)
    return error
