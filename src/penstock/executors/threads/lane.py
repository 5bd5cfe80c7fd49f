"""A lane of threads: `run_in_executor(None, ...)`, name look-ups, and whatever blocks without computing.

One lock guards the lane. A job goes straight to an idle thread if there is one, else into the queue, where threads
take their next job themselves. A running call cannot be stopped: one that is cancelled or late answers its caller at
once, and its thread counts as busy until it returns.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from penstock.errors import Overloaded
from penstock.executors.admission import Admission, Verdict
from penstock.executors.cores import current_cores
from penstock.executors.counters import LaneCounters, LaneStatistics
from penstock.executors.deadlines import Deadlines, DeadlineThread
from penstock.executors.job import NEVER_NS, span_ns
from penstock.executors.lane import Lane, LiveLanes
from penstock.executors.threads.growth import Growth, computing_cores, threads_cpu_ns

if TYPE_CHECKING:
    from penstock.config import LaneConfig
    from penstock.executors.job import Job

__all__ = ["ThreadLane"]

logger = logging.getLogger("penstock")

# the standard library's own rule, for threads that mostly wait; ours counts the cores that may really be used
EXTRA_THREADS = 4
# where the config sets no other limit
MOST_THREADS = 64
# in a job's mark: its caller has its answer, or is about to
ENDED = object()

# every lane there is, for the interpreter's exit and for a child that was forked
_lanes: LiveLanes[ThreadLane] = LiveLanes()
# since the interpreter's exit has begun, a new lane takes no jobs: nothing would end its threads
_is_exiting = False


class _Worker:
    """A thread and what it waits on. The bell brings the lane, whose next job is in `job`, or None: end."""

    __slots__ = ("bell", "idle_ns", "job", "thread")

    def __init__(self, job: Job | None) -> None:
        self.bell: SimpleQueue[ThreadLane | None] = SimpleQueue()
        self.job = job
        # since when, if it is idle
        self.idle_ns = 0
        self.thread: threading.Thread = threading.current_thread()


class ThreadLane(Lane):
    """Threads that run jobs, as many as the load needs: up to four more than the usable cores as soon as there is
    work, and from there to `config.workers` (64 if it says none) while jobs wait and the threads are blocked.

    Invariant: while a thread is idle, nothing is queued.
    """

    # as asyncio's own executor does: the caller gets the coroutine, in the same process
    takes_coroutine_functions = True

    def __init__(self, name: str, config: LaneConfig) -> None:
        super().__init__(name, config)
        idle_ns = span_ns(config.idle_s)
        self._idle_limit_ns = NEVER_NS if idle_ns is None else idle_ns
        self._limit = config.workers or MOST_THREADS
        self._base = self._sized()
        self._begin()
        _lanes.add(self)
        # in this order: a lane that the exit does not find sees the exit
        self._is_shut = _is_exiting

    def _sized(self) -> int:
        """How many threads are started without asking whether they help."""
        return min(self._limit, max(current_cores().chosen + EXTRA_THREADS, self.config.min_workers))

    def _begin(self) -> None:
        """A lane without threads and jobs; also in a forked child, which has neither, whoever held the lock."""
        self._lock = threading.Lock()
        self._workers: dict[threading.Thread, _Worker] = {}
        # they have left the lane, and may not have ended yet
        self._leaving: list[threading.Thread] = []
        # the last to become idle is the first to get a job, so that under less load the others stay idle and end
        self._idle: list[_Worker] = []
        self._started_count = 0
        self._admission = Admission(self.name, self.config)
        self._deadlines = Deadlines()
        self._growth = Growth(computing_cores(current_cores().chosen))
        self._counters = LaneCounters(self.name, "threads")
        self._cancelled: deque[Job] = deque()
        self._deadline_thread = DeadlineThread(f"penstock-{self.name}-deadlines", self._look)

    def __del__(self) -> None:
        # dropped without a shutdown: all threads are idle, as a busy one holds the lane
        for worker in getattr(self, "_idle", ()):
            worker.bell.put(None)
        if hasattr(self, "_deadline_thread"):
            self._deadline_thread.wake()

    def _offer(self, job: Job) -> None:
        job.on_cancel = self._give_up
        displaced = place = None
        verdict = Verdict.QUEUED
        try:
            with self._lock:
                self._check_open()
                if not self._hand_over(job):
                    verdict, displaced = self._queue(job)
                    if verdict is Verdict.WAITING:
                        verdict, place = self._place_for(job)
                if job.expires_ns is not None and verdict is not Verdict.CALLER_RUNS:
                    self._deadline_thread.wake_by(self._deadlines.add(job), DAEMON)
        finally:
            if self._cancelled:
                self._clear_cancelled()
        if displaced is not None:
            displaced.fail_from_thread(self._admission.displaced(displaced))
            displaced.forget_arguments()
        if verdict is Verdict.CALLER_RUNS:
            self._run_in_caller(job)
        elif place is not None:
            self._wait_in_line(job, place)
        # see Lane.call
        del job

    def _hand_over(self, job: Job) -> bool:
        """Give the job to an idle thread, or to a new one below the base."""
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
            # the system gives no more threads: those there are will come to it
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

    def _queue(self, job: Job) -> tuple[Verdict, Job | None]:
        try:
            verdict, displaced = self._admission.offer(job)
        except Overloaded:
            self._counters.shed("full")
            raise
        if displaced is not None:
            self._settle(displaced)
            self._counters.shed("displaced")
        if len(self._workers) < self._limit:
            now_ns = time.monotonic_ns()
            if self._growth.arm(now_ns):
                self._deadline_thread.wake_by(now_ns, DAEMON)
        return verdict, displaced

    def _place_for(self, job: Job) -> tuple[Verdict, threading.Lock | None]:
        """How the caller of a waiting job waits: a thread blocks on the lock. A loop must not, called by whichever
        method; nor one of this lane's threads, which would wait for itself: it runs the job."""
        if job.loop is not None or asyncio._get_running_loop() is not None:
            return Verdict.WAITING, None
        if threading.current_thread() in self._workers:
            self._admission.discard(job)
            return Verdict.CALLER_RUNS, None
        place = job.mark = threading.Lock()
        place.acquire()
        return Verdict.WAITING, place

    def _wait_in_line(self, job: Job, place: threading.Lock) -> None:
        try:
            place.acquire()
        except BaseException:
            # interrupted: nobody will ever hold this job's future
            self._give_up(job)
            raise

    def _admit_waiting(self) -> None:
        while (job := self._admission.admit()) is not None:
            place, job.mark = job.mark, None
            if place is not None:
                place.release()

    def _work(self, worker: _Worker) -> bool:
        """In the worker's thread: its job, and others until none is queued; False when the thread is to end."""
        job, worker.job = worker.job, None
        while job is not None:
            now_ns = time.monotonic_ns()
            if job.mark is ENDED:
                outcome, value = "cancelled", None
            elif job.expires_ns is not None and now_ns >= job.expires_ns:
                outcome, value = "timeout", self._late(job, begun=False)
            else:
                job.started_ns = now_ns
                outcome, value = job.run()
            ended, job = job, None
            if ended.loop is None:
                # a thread's callbacks are run by the delivery: this thread is busy until they return
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
        """Count a job that its thread is done with; False if its caller had an answer already."""
        if job.started_ns:
            self._counters.waited(job.started_ns - job.offered_ns)
            self._counters.ran(time.monotonic_ns() - job.started_ns)
        return self._settle(job, outcome)

    def _settle(self, job: Job, outcome: str | None = None) -> bool:
        """Decide, once, what the caller is told; False if that is decided. Frees a caller that waits for a place."""
        place = job.mark
        if place is ENDED:
            return False
        job.mark, job.on_cancel = ENDED, None
        if place is not None:
            place.release()
        if job.expires_ns is not None:
            self._deadlines.discard(job)
        if outcome is not None:
            self._counters.ended(outcome)
        return True

    def _next_job(self, worker: _Worker) -> Job | None:
        if worker.thread not in self._workers:
            return None  # a job that forked has come back in the child, whose lane knows no such thread
        job = self._admission.take()
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

    def _give_up(self, job: Job) -> None:
        """The job is cancelled. Never waits for the lock: a signal's handler (asyncio's, for Ctrl-C) may cancel in a
        thread that holds it. So whoever has held it looks for cancelled jobs once it is released."""
        self._cancelled.append(job)
        self._clear_cancelled()

    def _clear_cancelled(self) -> None:
        while self._cancelled and self._lock.acquire(blocking=False):
            try:
                while self._cancelled:
                    job = self._cancelled.popleft()
                    self._settle(job, "cancelled")
                    self._withdraw(job)
                self._admit_waiting()
            finally:
                self._lock.release()

    def _withdraw(self, job: Job) -> None:
        # a job that is not queued may be running: it needs its arguments
        if self._admission.discard(job):
            job.forget_arguments()

    def _late(self, job: Job, begun: bool) -> TimeoutError:
        if begun:
            return job.late(f"{job.name} has not ended within {job.allowed}; its thread in lane {self.name!r} runs on")
        why = "its workers are busy; there may be too few"
        return job.late(f"{job.name} has not begun within {job.allowed} in lane {self.name!r}: {why}")

    def _look(self) -> None:
        """In the watch's thread."""
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
            if self._settle(job, "timeout"):
                late.append((job, self._late(job, begun=job.started_ns != 0)))
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
        """End threads beyond the base that have been idle for long; when the next one will have been."""
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
        """Start `config.min_workers` threads."""
        with self._lock:
            while not self._is_shut and len(self._workers) < min(self.config.min_workers, self._limit):
                self._idle.append(self._start_worker(None))
        self._clear_cancelled()

    def statistics(self) -> LaneStatistics:
        """As Lane's. A running job that is cancelled or late counts as running until its thread is free."""
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
        """As Lane's, from any thread: one of the lane's own waits for all the others."""
        with self._lock:
            self._is_shut = True
            dropped = self._admission.drain() if cancel_futures else []
            dropped = [job for job in dropped if self._settle(job, "cancelled")]
            for worker in self._idle:
                worker.bell.put(None)
            self._idle.clear()
            self._deadline_thread.wake()
        self._clear_cancelled()
        for job in dropped:
            job.forget_arguments()
            _cancel(job)
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
        # a shutdown that waits waits for its last steps too
        self._leaving = [*filter(threading.Thread.is_alive, self._leaving), worker.thread]
        if not self._workers:
            # nothing is left to watch
            self._deadline_thread.wake()

    def _leave(self, worker: _Worker) -> None:
        with self._lock:
            self._remove(worker)
        self._clear_cancelled()


def _serve(worker: _Worker, lane_reference: weakref.ref[ThreadLane]) -> None:
    """A thread's life. While it is idle it does not hold the lane, which may be dropped."""
    try:
        # without a timeout, which costs a timer of the kernel's for each wait: the watch ends whom nobody needs
        while (lane := worker.bell.get()) is not None and lane._work(worker):
            del lane
    finally:
        lane = lane_reference()
        if lane is not None:
            lane._leave(worker)


def _deliver(job: Job, outcome: str, value: Any, is_first: bool) -> None:
    """Let go of what the job needed, and tell its caller, if nobody has."""
    job.forget_arguments()
    if not is_first:
        return
    try:
        if outcome == "ok":
            job.finish_from_thread(value)
        else:
            job.fail_from_thread(value)
    except BaseException:
        # a callback that raises more than an Exception, or a loop of somebody's own: the thread has other jobs to run
        logger.exception("%s: its result could not be delivered", job.name)


def _cancel(job: Any) -> None:
    """Cancel in the thread the job's future belongs to."""
    if job.loop is None or job.loop is asyncio._get_running_loop():
        job.cancel()
        return
    try:
        job.loop.call_soon_threadsafe(job.cancel)
    except RuntimeError:
        pass  # the loop is closed: nobody waits any more


def _finish_all() -> None:
    """At the interpreter's exit: what is queued is run, as the standard library's executors do."""
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


# The only hook that runs before the interpreter joins its threads (atexit's come after) is the one that the standard
# library made for its own executors. Without it idle threads would keep the process: then they must be daemons.
_at_exit = getattr(threading, "_register_atexit", None)
DAEMON = _at_exit is None
if _at_exit is not None:
    _at_exit(_finish_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
