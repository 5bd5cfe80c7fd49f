"""The home loop of a lane of processes: the one loop whose thread owns the lane's state, and offers from other threads.

The home loop is the loop of the first caller. If threads call first, it is a loop of the lane itself, in a thread; the
lane moves to a loop that calls as soon as it has no jobs. At the end of a loop, of the lane or of the program, every
unfinished job is cancelled, so that no caller waits for ever.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
from abc import abstractmethod
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock.errors import Overloaded
from penstock.executors.job import Job, ThreadJob
from penstock.executors.lane import Lane, LiveLanes
from penstock.loop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.config import LaneConfig
    from penstock.executors.admission import Admission
    from penstock.executors.processes.context import ContextCapture
    from penstock.executors.processes.pool import WorkerPool

__all__ = ["HomeLoopLane", "LoopThread"]

logger = logging.getLogger("penstock")


class LoopThread:
    """A loop in a thread of its own. Ownership: the loop and the thread, until `stop`. The loop runs from the start."""

    def __init__(self, name: str) -> None:
        self.loop: asyncio.AbstractEventLoop = EventLoop()
        # a daemon: its lane finishes its jobs at the interpreter's exit
        self._is_to_stop = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        begun = threading.Event()
        self.loop.call_soon(begun.set)
        try:
            self._thread.start()
        except BaseException:
            self.loop.close()
            raise
        begun.wait()

    def _run(self) -> None:
        while not self._is_to_stop:
            try:
                self.loop.run_forever()
            except BaseException:
                # a callback of a future has raised SystemExit or the like: the loop goes on for other jobs
                logger.exception("a callback in %s", self._thread.name)
        self.loop.close()

    def stop(self) -> None:
        """Stop the loop, and wait for its thread unless this is it. A second call does nothing."""
        self._is_to_stop = True
        with suppress(RuntimeError):  # it is closed
            self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()


class HomeLoopLane(Lane):
    """A lane whose state is confined to the thread of its home loop. The lock guards the choice of that loop, and the
    jobs that other threads have posted to it."""

    _admission: Admission
    _context_capture: ContextCapture
    _pool: WorkerPool

    def __init__(self, name: str, config: LaneConfig) -> None:
        super().__init__(name, config)
        self._unlock()
        self._begin()
        _lanes.add(self)

    def _unlock(self) -> None:
        """Make new locks: a forked child has none of the threads that hold the old ones."""
        self._lock = threading.Lock()
        # threads that wait for a place
        self._room = threading.Condition(self._lock)
        # the number of those threads
        self._blocked_count = 0
        self._ended = threading.Event()
        self._loop_thread: LoopThread | None = None
        # a loop that has called while the lane's own loop is the home loop
        self._heir: asyncio.AbstractEventLoop | None = None

    def _begin(self) -> None:
        """Start without a home loop and jobs."""
        self._home: asyncio.AbstractEventLoop | None = None
        # jobs of other threads that the home loop has not entered yet
        self._posted: set[Job] = set()

    # --- the choice of the loop

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make `loop` the home loop, and start `min_workers`; if threads have jobs here, after those have ended."""
        if not self._is_shut and self._choose_home(loop) is loop:
            self._pool.keep()

    def _choose_home(self, loop: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
        """Return the home loop, chosen now that `loop` calls, or a thread if None."""
        left: list[Job] = []
        with self._lock:
            self._check_open()
            former = home = self._home
            # the lane's own loop may stop for a moment, after a callback that raised SystemExit: it runs again
            is_still = self._loop_thread is None and home is not None and not home.is_running()
            if home is None or home.is_closed() or (loop is None and is_still and self._is_idle()):
                left = self._leave()
                home = loop or self._own_loop()
                self._live_on(home)
            elif loop is not None and self._loop_thread is not None and home is not loop:
                self._heir = loop
                home.call_soon_threadsafe(self._hand_over)
        _cancel_all(left, former)
        return home

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        self._loop_thread = LoopThread(f"penstock-{self.name}-loop")
        return self._loop_thread.loop

    def _live_on(self, home: asyncio.AbstractEventLoop) -> None:
        self._home = home
        self._pool.open(home, self)  # type: ignore[arg-type]

    def _is_idle(self) -> bool:
        return not (self._posted or self._admission.queued or self._admission.waiting or self._pool.jobs())

    def _leave(self) -> list[Job]:
        """Leave a home loop that is closed or stopped. Return its jobs, which get no result. Under the lock."""
        left = [*self._pool.jobs(), *self._admission.drain(), *self._posted]
        self._pool.close()
        self._begin()
        self._room.notify_all()
        return left

    def _hand_over(self) -> None:
        """Move from the lane's own loop to the loop that has called, once there are no jobs. In the loop thread."""
        with self._lock:
            heir, loop_thread, pool = self._heir, self._loop_thread, self._pool
            if heir is None or loop_thread is None or self._is_shut or not self._is_idle():
                return
            self._heir = self._loop_thread = None
            self._begin()
            if not heir.is_closed():
                self._live_on(heir)
        pool.close()
        loop_thread.stop()
        with suppress(RuntimeError):  # closed by now
            heir.call_soon_threadsafe(self._keep)

    def _keep(self) -> None:
        if not self._is_shut and asyncio._get_running_loop() is self._home:
            self._pool.keep()

    # --- offered jobs

    def _offer(self, job: Job) -> None:
        if self._context_capture.is_needed or "opentelemetry.trace" in sys.modules:
            job.carried = self._context_capture.capture(job.call.context)
        loop, home = job.loop, self._home
        if loop is None or loop is not home:
            home = self._choose_home(loop)
            if home is not loop and asyncio._get_running_loop() is not home:
                self._offer_from_elsewhere(job)
                return
            if isinstance(job, ThreadJob):
                job.delivered_by = threading.get_ident()
        self._enter(job)

    def _offer_from_elsewhere(self, job: Job) -> None:
        """Post the job to the home loop. Block its caller, if that is a thread, while too many jobs are queued or
        posted."""
        limit, full = self.config.queue_jobs, self.config.full
        most = 2 * limit if full == "drop_oldest" else limit
        while full in ("wait", "drop_oldest") or self._coming() < limit:
            with self._room:
                # a caller on a loop must not block: its jobs wait at the home loop
                if job.loop is None:
                    self._block_while(lambda: not self._is_shut and self._coming() >= most)
                self._check_open()
                if self._post(job):
                    return
            # the home loop was closed meanwhile
            self._choose_home(job.loop)
        if full == "shed":
            self._count(partial(self._counters.shed, "full"))
            raise Overloaded(
                f"lane {self.name!r} is full: {limit} jobs are queued; try again later, or raise queue_jobs",
                reason="full",
                queued=limit,
                limit=limit,
            )
        self._run_in_caller(job)
        del job

    def _block_while(self, is_full: Callable[[], bool]) -> None:
        """Block this thread until another thread or the loop has made room. Under the lock."""
        # counted before the test: the loop makes room first and reads the count afterwards
        self._blocked_count += 1
        try:
            while is_full():
                self._room.wait()
        finally:
            self._blocked_count -= 1

    def _count(self, count: Callable[[], None]) -> None:
        """Count in the thread of the home loop, which owns the counters."""
        home = self._home
        if home is not None and asyncio._get_running_loop() is home:
            count()
            return
        try:
            if home is not None:
                home.call_soon_threadsafe(count)
                return
        except RuntimeError:
            pass  # the home loop is closed
        # without a home loop only threads like this one count
        with self._lock:
            count()

    def _coming(self) -> int:
        return self._admission.queued + len(self._posted)

    def _post(self, job: Job) -> bool:
        if self._home is None:
            return False
        self._posted.add(job)
        try:
            self._home.call_soon_threadsafe(self._enter_posted, job)
        except RuntimeError:
            self._posted.discard(job)
            return False
        return True

    def _enter_posted(self, job: Job) -> None:
        with self._room:
            is_ours = job in self._posted
            self._posted.discard(job)
            self._room.notify_all()
        if not is_ours:
            return
        if job.done():
            self._after_jobs()
            return
        # the job was accepted before the shutdown, which waits for it
        try:
            self._enter(job, is_posted=True)
        except Overloaded as problem:
            job.fail_from_thread(problem.with_traceback(None))

    @abstractmethod
    def _enter(self, job: Job, is_posted: bool = False) -> None:
        """Run the job now or later, in the thread of the home loop. Raises Overloaded."""

    def _deliver_to_thread(self, deliver: Callable[[Any], None], outcome: Any) -> None:
        """Deliver an outcome to a ThreadJob. A SystemExit or the like of its callbacks is raised in the loop, after the
        current callback."""
        try:
            deliver(outcome)
        except BaseException as problem:
            assert self._home is not None
            self._home.call_soon(_raise, problem)

    # --- shutdown

    def _after_jobs(self) -> None:
        """Continue a shutdown or a move to another loop, if no jobs are left."""
        if self._is_shut:
            self._end_if_done()
        elif self._heir is not None and self._home is not None:
            self._home.call_soon(self._hand_over)

    def _end_if_done(self) -> None:
        if self._admission.queued or self._admission.waiting or self._posted:
            return
        if self._pool.finish():
            self._pool.close()
            self._ended.set()
            if self._loop_thread is not None:
                self._loop_thread.stop()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the lane, as in `concurrent.futures`. Do not wait in the home loop's own thread, or while that loop is
        stopped."""
        with self._room:
            self._is_shut = True
            self._room.notify_all()
        home = self._home
        if home is None or not home.is_running():
            self.close()
            return
        if asyncio._get_running_loop() is home:
            self._shut(cancel_futures)
            return
        try:
            home.call_soon_threadsafe(self._shut, cancel_futures)
        except RuntimeError:
            self.close()
            return
        if wait:
            self._ended.wait()
            self._stop_loop_thread()

    def _shut(self, cancel_futures: bool) -> None:
        if cancel_futures:
            jobs = self._admission.drain()
            for _ in jobs:
                self._counters.ended("cancelled")
            _cancel_all(jobs, self._home)
        self._end_if_done()

    def close(self) -> None:
        """Kill all workers now, and cancel all jobs."""
        with self._lock:
            self._is_shut = True
            home, left = self._home, self._leave()
            for _ in left:
                self._counters.ended("cancelled")
        _cancel_all(left, home)
        self._ended.set()
        self._stop_loop_thread()

    def _stop_loop_thread(self) -> None:
        loop_thread, self._loop_thread = self._loop_thread, None
        if loop_thread is not None:
            loop_thread.stop()

    def finish_at_exit(self) -> None:
        """Finish jobs of threads, as `concurrent.futures` does; cancel jobs of a loop that has stopped."""
        if self._loop_thread is not None:
            self.shutdown()
        elif self._home is not None and not self._home.is_running():
            self.close()

    def after_fork(self) -> None:
        """Start anew in a forked child, without the workers and jobs of the parent."""
        self._pool.forget()
        self._unlock()
        self._begin()


def _raise(problem: BaseException) -> None:
    raise problem


def _cancel_all(jobs: list[Job], home: asyncio.AbstractEventLoop | None) -> None:
    """Cancel jobs, whose callers may be on other loops than the home loop."""
    for job in jobs:
        if job.timer is not None:
            job.timer.cancel()
        job.on_cancel = job.timer = job.payload = job.carried = None
        # a closed loop takes no callbacks, and a callback may raise: the job is cancelled all the same
        with suppress(RuntimeError, SystemExit):
            if job.loop is None or job.loop is home:
                job.cancel()
            else:
                job.loop.call_soon_threadsafe(job.cancel)


_lanes: LiveLanes[HomeLoopLane] = LiveLanes()


def _after_fork() -> None:
    for lane in _lanes.all():
        lane.after_fork()


def _at_exit() -> None:
    """Finish jobs of threads, as `concurrent.futures` does. Each loop shuts its own lanes."""
    for lane in _lanes.all():
        lane.finish_at_exit()


# before the interpreter refuses to start threads and processes, where concurrent.futures ends its executors
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
