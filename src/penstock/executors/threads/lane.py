"""The lane of threads: for `run_in_executor(None, ...)`, name look-ups, and calls that block without computing.

A job goes straight to an idle thread, or else into the queue, from which threads take their next job. A running call
cannot be stopped. When its job is cancelled or expires, the caller gets its outcome at once, and the thread counts as
busy until the call returns.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from penstock.executors.admission import Verdict
from penstock.executors.cores import current_cores
from penstock.executors.job import NEVER_NS, span_ns
from penstock.executors.lane import LiveLanes, LockedLane, cancel_job
from penstock.executors.threads.growth import Growth, computing_cores, threads_cpu_ns

if TYPE_CHECKING:
    import asyncio

    from penstock.config import LaneConfig
    from penstock.executors.counters import LaneStatistics
    from penstock.executors.job import Job

__all__ = ["ThreadLane"]

logger = logging.getLogger("penstock")

# The standard library's rule for threads that mostly wait; here it counts usable cores only.
EXTRA_THREADS = 4
# The limit of threads, if the config sets none.
MOST_THREADS = 64

# all lanes of threads, for the interpreter's exit and for a forked child
_lanes: LiveLanes[ThreadLane] = LiveLanes()
# Whether the interpreter is exiting: a new lane takes no jobs then, for nothing would end its threads.
_is_exiting = False


class _Worker:
    """A thread and its mailbox. `bell` delivers the lane, with the next job in `job`, or None, which ends the
    thread."""

    __slots__ = ("bell", "idle_ns", "job", "thread")

    def __init__(self, job: Job | None) -> None:
        self.bell: SimpleQueue[ThreadLane | None] = SimpleQueue()
        self.job = job
        # when it became idle
        self.idle_ns = 0
        self.thread: threading.Thread = threading.current_thread()


class ThreadLane(LockedLane):
    """Threads that run jobs, as many as the load needs. Up to four more than the usable cores start as soon as there is
    work. More start, up to `config.workers` (default 64), while jobs wait and the threads are blocked.

    Invariant: while a thread is idle, nothing is queued.
    """

    _kind = "threads"
    # as asyncio's own executor: the caller gets the coroutine, in the same process
    takes_coroutine_functions = True
    takes_context = True

    def __init__(self, name: str, config: LaneConfig) -> None:
        super().__init__(name, config)
        idle_ns = span_ns(config.idle_s)
        self._idle_limit_ns = NEVER_NS if idle_ns is None else idle_ns
        self._limit = config.workers or MOST_THREADS
        self._base = self._sized()
        self._begin()
        _lanes.add(self)
        # in this order: the exit handler finds this lane, or this lane sees that the exit has begun
        self._is_shut = _is_exiting

    def _sized(self) -> int:
        """Return how many threads start without regard to what the others do."""
        return min(self._limit, max(current_cores().chosen + EXTRA_THREADS, self.config.min_workers))

    def _begin(self) -> None:
        """Start without threads and jobs; also in a forked child."""
        super()._begin()
        self._workers: dict[threading.Thread, _Worker] = {}
        # threads that have left the lane, and may not have ended yet
        self._leaving: list[threading.Thread] = []
        # the thread that became idle last gets the next job, so that under less load the others stay idle and end
        self._idle: list[_Worker] = []
        self._started_count = 0
        self._growth = Growth(computing_cores(current_cores().chosen))
        self._cancelled: deque[Job] = deque()

    def __del__(self) -> None:
        # dropped without a shutdown: all threads are idle, for a busy thread holds the lane
        for worker in getattr(self, "_idle", ()):
            worker.bell.put(None)
        super().__del__()

    def _offer(self, job: Job) -> None:
        job.on_cancel = self._on_cancel
        place, verdict = None, Verdict.QUEUED
        displaced: list[Job] = []
        try:
            with self._lock:
                self._check_open()
                if not self._hand_over(job):
                    verdict, displaced = self._queue(job)
                    if verdict is Verdict.WAITING:
                        verdict, place = self._await_place(job)
                if job.expires_ns is not None and verdict is not Verdict.CALLER_RUNS:
                    self._deadline_thread.wake_by(self._deadlines.add(job), DAEMON)
        finally:
            if self._cancelled:
                self._clear_cancelled()
        if displaced:
            self._fail_displaced(displaced)
        if verdict is Verdict.CALLER_RUNS:
            self._run_in_caller(job)
        elif place is not None:
            self._wait_for_place(job, place)
        # see Lane.begin
        del job

    def _hand_over(self, job: Job) -> bool:
        """Give the job to an idle thread, or to a new thread below the base. Return False if there is neither."""
        if self._idle:
            worker = self._idle.pop()
            worker.job = job
            worker.bell.put(self)
            return True
        if len(self._workers) >= self._base or self._admission.queued:
            return False
        try:
            self._start_worker(job)
        except RuntimeError:
            # the system gives no more threads: the existing ones will take the job from the queue
            if not self._workers:
                raise
            return False
        return True

    def _start_worker(self, job: Job | None) -> _Worker:
        worker = _Worker(job)
        name = f"penstock-{self.name}-{self._started_count}"
        worker.thread = threading.Thread(target=_serve, args=(worker, weakref.ref(self)), name=name, daemon=DAEMON)
        if job is not None:
            worker.bell.put(self)
        worker.thread.start()
        self._workers[worker.thread] = worker
        self._started_count += 1
        return worker

    def _queue(self, job: Job) -> tuple[Verdict, list[Job]]:
        verdict, displaced = self._admit(job)
        if len(self._workers) < self._limit:
            now_ns = time.monotonic_ns()
            if self._growth.arm(now_ns):
                self._deadline_thread.wake_by(now_ns, DAEMON)
        return verdict, displaced

    def _await_place(self, job: Job) -> tuple[Verdict, threading.Lock | None]:
        """Make the place of a waiting job. A thread of this lane would wait for itself: it runs the job."""
        place = self._make_place(job)
        if place is not None and threading.current_thread() in self._workers:
            self._admission.discard(job)
            job.place = None
            return Verdict.CALLER_RUNS, None
        return Verdict.WAITING, place

    def _work(self, worker: _Worker) -> bool:
        """Run the worker's job, and others until none is queued, in its thread. Return False if the thread is to
        end."""
        job, worker.job = worker.job, None
        while job is not None:
            now_ns = time.monotonic_ns()
            if job.is_ended:
                outcome, value = "cancelled", None
            elif job.expires_ns is not None and now_ns >= job.expires_ns:
                outcome, value = "timeout", self._timeout_error(job, begun=False)
            else:
                job.started_ns = now_ns
                outcome, value = job.run()
            ended, job = job, None
            if ended.loop is None:
                # the delivery runs the callbacks of a ThreadJob: this thread is busy until they return
                with self._lock:
                    is_first = self._account(ended, outcome)
                self._clear_cancelled()
                _deliver(ended, outcome, value, is_first)
                with self._lock:
                    job = self._next_job(worker)
            else:
                with self._lock:
                    is_first = self._account(ended, outcome)
                    job = self._next_job(worker)
                _deliver(ended, outcome, value, is_first)
            del ended, value
            if self._cancelled:
                self._clear_cancelled()
        return worker.thread in self._workers

    def _count_in_caller(self, job: Job, outcome: str) -> None:
        with self._lock:
            self._account(job, outcome)
        self._clear_cancelled()

    def _account(self, job: Job, outcome: str) -> bool:
        """Count a job whose call has returned. Return False if its outcome was decided before."""
        if job.started_ns:
            self._counters.waited(job.started_ns - job.offered_ns)
            self._counters.ran(time.monotonic_ns() - job.started_ns)
        return self._end(job, outcome)

    def _next_job(self, worker: _Worker) -> Job | None:
        if worker.thread not in self._workers:
            return None  # a job has forked and returns in the child, whose lane does not have this thread
        job: Job | None = self._admission.take()
        if job is not None:
            self._admit_waiting()
        elif self._is_shut:
            self._remove(worker)
        else:
            worker.idle_ns = time.monotonic_ns()
            self._idle.append(worker)
            if len(self._workers) > self._base:
                self._deadline_thread.wake_by(self._idle[0].idle_ns + self._idle_limit_ns, DAEMON)
        return job

    def _on_cancel(self, job: Job) -> None:
        """End a cancelled job without a wait for the lock: a signal handler (asyncio's, for Ctrl-C) may cancel in a
        thread that holds it. Therefore every method that has held the lock clears cancelled jobs afterwards."""
        self._cancelled.append(job)
        self._clear_cancelled()

    def _clear_cancelled(self) -> None:
        while self._cancelled and self._lock.acquire(blocking=False):
            try:
                while self._cancelled:
                    job = self._cancelled.popleft()
                    self._end(job, "cancelled")
                    self._withdraw(job)
                self._admit_waiting()
            finally:
                self._lock.release()

    def _withdraw(self, job: Job) -> None:
        # a job outside the queue may be running: it needs its arguments
        if self._admission.discard(job):
            job.forget_arguments()

    def _timeout_error(self, job: Job, begun: bool) -> TimeoutError:
        name, allowed = job.name, job.allowed
        if begun:
            return job.timeout_error(f"{name} has not ended within {allowed}; its thread in lane {self.name!r} runs on")
        why = "its workers are busy; there may be too few"
        return job.timeout_error(f"{name} has not begun within {allowed} in lane {self.name!r}: {why}")

    def _look(self) -> None:
        """Expire jobs, start and end threads, in the deadline thread."""
        with self._lock:
            now_ns = time.monotonic_ns()
            late = self._expire(now_ns)
            self._grow(now_ns)
            dues = (self._deadlines.next_ns(), self._growth.due_ns, self._shrink(now_ns))
            due_ns = min((due_ns for due_ns in dues if due_ns is not None), default=None)
            self._deadline_thread.rest(due_ns, may_linger=not self._is_shut)
        if self._cancelled:
            self._clear_cancelled()
        for job, problem in late:
            _deliver(job, "timeout", problem, is_first=True)

    def _expire(self, now_ns: int) -> list[tuple[Job, TimeoutError]]:
        late = []
        for job in self._deadlines.expired(now_ns):
            if self._end(job, "timeout"):
                late.append((job, self._timeout_error(job, begun=job.started_ns != 0)))
                self._withdraw(job)
        self._admit_waiting()
        return late

    def _grow(self, now_ns: int) -> None:
        if self._growth.due_ns is None or now_ns < self._growth.due_ns:
            return
        following = self._admission.peek()
        if following is None or len(self._workers) >= self._limit:
            self._growth.disarm()
            return
        self._base = self._sized()
        cpu_ns = threads_cpu_ns(self._workers)
        more = self._growth.look(now_ns, cpu_ns, now_ns - following.offered_ns, len(self._workers))
        for _ in range(min(more, self._limit - len(self._workers))):
            if not self._grow_by_one():
                return

    def _grow_by_one(self) -> bool:
        job = self._admission.take()
        if job is None:
            return False
        try:
            self._start_worker(job)
        except RuntimeError:
            self._admission.put_back(job)
            return False
        self._admit_waiting()
        return True

    def _shrink(self, now_ns: int) -> int | None:
        """End threads beyond the base that were idle for `idle_s`. Return when the next thread is due, in ns."""
        while self._idle and len(self._workers) > self._base:
            longest = self._idle[0]
            end_ns = longest.idle_ns + self._idle_limit_ns
            if end_ns > now_ns:
                return end_ns
            del self._idle[0]
            self._remove(longest)
            longest.bell.put(None)
            self._counters.restarted("idle")
        return None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the `min_workers` of the config."""
        with self._lock:
            while not self._is_shut and len(self._workers) < min(self.config.min_workers, self._limit):
                self._idle.append(self._start_worker(None))
        self._clear_cancelled()

    def statistics(self) -> LaneStatistics:
        """Return counts and gauges. A cancelled or expired job counts as running until its thread is free."""
        self._clear_cancelled()
        with self._lock:
            busy = len(self._workers) - len(self._idle)
            taken = self._counters.snapshot(
                workers=len(self._workers),
                workers_busy=busy,
                workers_limit=self._limit,
                queued=self._admission.queued,
                waiting=self._admission.waiting,
                running=busy,
                queue_limit=self._admission.limit,
            )
        self._clear_cancelled()
        return taken

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the lane, as in `concurrent.futures`. A thread of the lane itself waits for all other threads."""
        with self._lock:
            self._is_shut = True
            dropped = self._admission.drain() if cancel_futures else []
            dropped = [job for job in dropped if self._end(job, "cancelled")]
            for worker in self._idle:
                worker.bell.put(None)
            self._idle.clear()
            self._deadline_thread.wake()
        self._clear_cancelled()
        for job in dropped:
            job.forget_arguments()
            cancel_job(job)
        if wait:
            self._join()

    def _join(self) -> None:
        while threads := self._other_threads():
            for thread in threads:
                thread.join()

    def _other_threads(self) -> list[threading.Thread]:
        with self._lock:
            threads = [*self._workers, *filter(threading.Thread.is_alive, self._leaving), self._deadline_thread.thread]
        self._clear_cancelled()
        return [thread for thread in threads if thread not in (None, threading.current_thread())]

    def _remove(self, worker: _Worker) -> None:
        self._workers.pop(worker.thread, None)
        # a shutdown with `wait` waits for the last steps of this thread too
        self._leaving = [*filter(threading.Thread.is_alive, self._leaving), worker.thread]
        if not self._workers:
            # nothing can expire any more
            self._deadline_thread.wake()

    def _leave(self, worker: _Worker) -> None:
        with self._lock:
            self._remove(worker)
        self._clear_cancelled()


def _serve(worker: _Worker, lane_reference: weakref.ref[ThreadLane]) -> None:
    """Run a thread. While it is idle it does not keep the lane alive."""
    try:
        # without a timeout, which costs a kernel timer for each wait: the deadline thread ends idle threads
        while (lane := worker.bell.get()) is not None and lane._work(worker):
            del lane
    finally:
        lane = lane_reference()
        if lane is not None:
            lane._leave(worker)


def _deliver(job: Job, outcome: str, value: Any, is_first: bool) -> None:
    """Release the job's call, and deliver its outcome if `is_first`."""
    job.forget_arguments()
    if not is_first:
        return
    try:
        if outcome == "ok":
            job.finish_from_thread(value)
        else:
            job.fail_from_thread(value)
    except BaseException:
        # a callback that raises SystemExit, or a foreign loop that fails: the thread has other jobs to run
        logger.exception("%s: its result could not be delivered", job.name)


def _finish_all() -> None:
    """Run all queued jobs at the interpreter's exit, as the standard library's executors do."""
    global _is_exiting
    _is_exiting = True
    lanes = _lanes.all()
    for lane in lanes:
        lane.shutdown(wait=False)
    for lane in lanes:
        lane.shutdown(wait=True)


def _begin_in_child() -> None:
    for lane in _lanes.all():
        lane._begin()


# The only hook that runs before the interpreter joins its threads is the one that the standard library made for its own
# executors; atexit's hooks come after. Without that hook idle threads would keep the process alive: they are daemons.
_at_exit = getattr(threading, "_register_atexit", None)
DAEMON = _at_exit is None
if _at_exit is not None:
    _at_exit(_finish_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
