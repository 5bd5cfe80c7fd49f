"""The process lane: jobs run in worker processes, which the event loop itself writes to and reads from.

It lives on one loop, its home, which has all its state. An idle worker is sent a job at once; short jobs are also sent
ahead, to busy workers, while more are started, and taken back when another worker runs dry.
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
from penstock.executors.notebook_pickling import portable
from penstock.executors.processes.claims import SLOTS, SPIN_NS, AdaptiveSpin
from penstock.executors.processes.context import ContextCapture
from penstock.executors.processes.home import HomeLoopLane
from penstock.executors.processes.pickling import Pickled, call_fault, dump, dump_function
from penstock.executors.processes.pool import WorkerPool
from penstock.executors.processes.protocol import Status
from penstock.executors.processes.worker import WorkerOptions
from penstock.executors.remote_errors import EXITS, describe_error, rebuild_error, without_frames
from penstock.loop.native import native_core

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.config import LaneConfig
    from penstock.executors.job import Job
    from penstock.executors.processes.connection import WorkerConnection

__all__ = ["ProcessLane"]

# As much work is sent ahead to a worker as it does in this time: the socket's way there and back.
AHEAD_NS = 500_000
MOST_AHEAD = max(1, SLOTS // 2)
# Where jobs are shorter, the loop may look for the answer before it sleeps.
SHORT_NS = 50_000


class ProcessLane(HomeLoopLane):
    """A lane of worker processes: see `LaneConfig` for what it can be told."""

    def __init__(self, name: str, config: LaneConfig) -> None:
        self._may_spin = current_cores().chosen > 1
        self._context_capture = ContextCapture(config.context)
        self._counters = LaneCounters(name, "processes")
        self._initializer = portable(config.initializer, f"lane {name!r}: its initializer")
        super().__init__(name, config)

    def _begin(self) -> None:
        """As HomedLane's."""
        super()._begin()
        config = self.config
        options = WorkerOptions(config.preload, self._initializer, config.nice, self._may_spin)
        self._admission = Admission(self.name, self.config)
        self._pool = WorkerPool(self.name, self.config, self._counters, options)
        # how long jobs run, a moving average over the last eight or so
        self._run_ns = AHEAD_NS
        # how many may be with one worker
        self._depth = 1
        self._expect_event: Callable[[int], None] | None = None
        self._spin = AdaptiveSpin()
        self._spun_for: Job | None = None

    def _live_on(self, home: asyncio.AbstractEventLoop) -> None:
        super()._live_on(home)
        # only penstock's own loop knows how to look before it sleeps
        core = native_core(home) if self._may_spin else None
        self._expect_event = None if core is None else core.expect_event

    # --- taking jobs

    def _enter(self, job: Job, is_posted: bool = False) -> None:
        assert self._home is not None
        job.on_cancel = self._on_cancel
        if job.expires_ns is not None:
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
            self._over(job)
            self._counters.shed(problem.reason)
            raise
        if displaced is not None:
            self._displace(displaced)
        if verdict is Verdict.CALLER_RUNS and not is_posted:
            self._run_here(job)
            return
        if verdict is Verdict.CALLER_RUNS:
            # its caller is another thread, where it was accepted
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

    def _run_here(self, job: Job) -> None:
        """In the caller's thread, as in a worker: what it sets in the context stays with it, and its SystemExit is an
        error. Only an interrupt is the caller's as well."""
        self._over(job)
        job.started_ns = monotonic_ns()
        job.context = job.context or contextvars.copy_context()
        outcome, value = job.run()
        self._count(
            partial(self._count_run_here, job.started_ns - job.offered_ns, monotonic_ns() - job.started_ns, outcome)
        )
        job.forget_arguments()
        try:
            if outcome == "ok":
                job.finish(value)
            else:
                job.fail(describe_error(value)[0] if isinstance(value, EXITS) else value)
            if outcome != "ok" and isinstance(value, KeyboardInterrupt):
                raise value
        finally:
            # the exception's traceback leads here
            del job, value

    def _count_run_here(self, waited_ns: int, ran_ns: int, outcome: str) -> None:
        self._counters.waited(waited_ns)
        self._counters.ran(ran_ns)
        self._counters.ended(outcome)

    def _build(self, job: Job) -> bool:
        """Make the payload; False when the job has failed for it."""
        carried = job.payload
        if type(carried) is Pickled:
            return True
        try:
            job.payload = _call(job, carried)
        except Exception as problem:
            error = _call_error(job, carried, problem)
            self._counters.ended("error")
            self._fail(job, error)
            return False
        # the payload has all of it now
        job.args, job.kwargs = (), None
        return True

    # --- handing jobs out

    def _connection_for_one(self) -> WorkerConnection | None:
        """Who is to have one more job: an idle worker, else the least busy of those that are sent ahead."""
        connection = self._pool.next_resting()
        depth = self._depth
        if connection is not None or depth == 1:
            return connection
        # a job that is sent ahead may come to wait behind a long one: the next worker takes it over
        if len(self._pool.connections) < self._pool.limit_seen:
            self._pool.grow(1)
        best, fewest = None, depth
        for other in self._pool.connections:
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
        """A worker has answered, or is new: fill it up."""
        depth = self._depth
        while connection.has_room(depth):
            job = self._admission.take()
            if job is None:
                break
            self._send_taken(connection, job)
        self._admit()
        if not connection.jobs and connection.has_room(1) and not self._take_over(connection):
            self._pool.rest(connection)
        self._after_jobs()

    def _send_taken(self, connection: WorkerConnection, job: Job) -> None:
        if self._build(job):
            job.started_ns = monotonic_ns()
            connection.send(job)

    def _take_over(self, connection: WorkerConnection) -> bool:
        """Give an idle worker half of what the busiest one has not begun."""
        busiest = max(self._pool.connections, key=lambda other: len(other.jobs), default=connection)
        count = min(len(busiest.jobs) // 2, connection.places) if len(busiest.jobs) > 1 else 0
        jobs = busiest.take_back_unbegun(count) if count else []
        for job in jobs:
            connection.send(job)
        return bool(jobs)

    def _admit(self) -> None:
        """There may be places: let in who waits for one."""
        while (job := self._admission.admit()) is not None:
            self._build_queued(job)
        with self._room:
            self._room.notify_all()

    def on_room(self) -> None:
        """More is queued, or a worker is gone: see that there are enough workers."""
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
        """A worker has answered a job."""
        self._run_ns = run_ns = self._run_ns + ((ran_ns - self._run_ns) >> 3)
        self._depth = min(max(AHEAD_NS // max(run_ns, 1), 1), MOST_AHEAD)
        if job is self._spun_for:
            self._spun_for = None
            self._spin.found(monotonic_ns() - job.started_ns < SPIN_NS)
        counters = self._counters
        counters.ran(ran_ns)
        counters.waited(began_ns - job.offered_ns if began_ns > job.offered_ns else 0)
        if job.done():
            return  # its caller has given it up; that was counted then
        self._over(job)
        job.forget_arguments()
        if status == Status.RESULT:
            counters.ended("ok")
            if job.loop is self._home:
                job.finish(value)
            elif job.loop is None:
                self._tell(job.finish, value)
            else:
                job.finish_from_thread(value)
        elif status == Status.ERROR:
            counters.ended("error")
            self._deliver_failure(job, rebuild_error(*value))
        else:
            job.cancel()

    def _over(self, job: Job) -> None:
        """Nothing is to happen to the job any more but its answer."""
        job.on_cancel = None
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        job.payload = None

    def _fail(self, job: Job, problem: BaseException) -> None:
        self._over(job)
        self._deliver_failure(job, problem)

    def _deliver_failure(self, job: Job, problem: BaseException) -> None:
        if job.loop is None:
            self._tell(job.fail, problem)
        elif job.loop is self._home:
            job.fail(problem)
        else:
            job.fail_from_thread(problem)

    # --- jobs given up, workers lost

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
        """Its caller is gone, or is told that its time is up: out of the queue with it, or out of its worker."""
        mark = job.mark
        has_begun = mark is not None and not mark[0].take_back(job)
        self._over(job)
        self._counters.ended(cause)
        if cause == "timeout":
            self._deliver_failure(job, self._late(job, has_begun))
        if mark is None:
            self._admission.discard(job)
            self._admit()
            self._after_jobs()
            return
        connection, number = mark
        if not has_begun:
            self._freed(connection)
        elif connection.interrupted != number:
            self._interrupt(connection, job, cause)

    def _freed(self, connection: WorkerConnection) -> None:
        if not connection.jobs:
            self.on_free(connection)

    def _late(self, job: Job, has_begun: bool) -> TimeoutError:
        if has_begun:
            return job.late(f"{job.name} has not ended within {job.allowed}")
        is_ready = any(connection.is_ready for connection in self._pool.connections)
        why = "its workers are busy; there may be too few" if is_ready else "no worker of it is ready yet"
        return job.late(f"{job.name} has not begun within {job.allowed} in lane {self.name!r}: {why}")

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
        """A worker has ended: what it had begun is lost, the rest goes to others."""
        for job in connection.jobs.values():
            job.mark = None
            if not job.done():
                self._lost(job, connection.pid, code)
        connection.jobs.clear()
        self._put_back(unbegun)

    def _lost(self, job: Job, pid: int, code: int | None) -> None:
        job.kills += 1
        if job.retries > 0 and job.kills < self.config.poison_kills:
            job.retries -= 1
            self._admission.put_back(job)
            return
        signal_number = -code if code is not None and code < 0 else None
        exit_code = code if signal_number is None else None
        self._counters.ended("worker_lost")
        if job.retries > 0:
            kills = job.kills
            problem: WorkerLost = PoisonJob(job.name, kills=kills, pid=pid, signal=signal_number, exit_code=exit_code)
        else:
            problem = WorkerLost(job.name, pid=pid, signal=signal_number, exit_code=exit_code)
        self._fail(job, problem)

    def on_no_worker(self, text: str, problem: BaseException | None) -> None:
        """Nobody is there to run what is queued, and nobody can be had."""
        for job in self._admission.drain():
            self._counters.ended("worker_lost")
            error = WorkerStartError(text)
            error.__cause__ = problem
            self._fail(job, error)
        self._admit()
        self._after_jobs()

    def statistics(self) -> LaneStatistics:
        """Counts, times and bytes so far, frozen. Read from another thread, the gauges may be a moment apart."""
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


def _call(job: Job, carried: Any) -> Pickled:
    function = dump_function(job.fn)
    if function is None or job.kwargs or carried is not None:
        return dump((job.fn, job.args, job.kwargs, carried))
    pickled = dump(job.args)
    pickled.function = function
    return pickled


def _call_error(job: Job, carried: Any, problem: Exception) -> Exception:
    """Why a call cannot be sent: which object is at fault; or the problem itself, where that says it all."""
    error = call_fault(job.fn, job.args, job.kwargs, problem, carried[0] if carried else None)
    error.__cause__ = without_frames(problem)
    return error
