"""The process lane: jobs run in worker processes, which the event loop itself writes to and reads from.

It lives on one loop, its home: that of its first caller or, when threads call first, one of its own in a thread. All
its state is confined to the home's thread; a call from elsewhere is posted there. An idle worker is sent a job at once;
short jobs are also sent ahead, to busy workers, and taken back when another worker runs dry.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from penstock.errors import Overloaded, PoisonJob, WorkerLost
from penstock.executors.admission import Admission, Verdict
from penstock.executors.board import SLOTS
from penstock.executors.carrier import Carrier
from penstock.executors.crew import Crew
from penstock.executors.failure import rebuilt
from penstock.executors.job import Job, ThreadJob
from penstock.executors.lane import Lane
from penstock.executors.meter import LaneMeter, LaneStatistics
from penstock.executors.patience import LOOK_NS, Patience
from penstock.executors.pickling import Pickled, call_fault, dump, dump_function
from penstock.executors.service import Service
from penstock.executors.sizing import current_cores
from penstock.executors.wire import Status
from penstock.executors.worker import Orders

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.config import LaneConfig
    from penstock.errors import WorkerStartError
    from penstock.executors.link import Link

__all__ = ["ProcessLane"]

# As much work is sent ahead to a worker as it does in this time: the socket's way there and back.
AHEAD_NS = 500_000
MOST_AHEAD = max(1, SLOTS // 2)
# Where jobs are shorter, the loop may look for the answer before it sleeps.
SHORT_NS = 50_000


class ProcessLane(Lane):
    """A lane of worker processes: see `LaneConfig` for what it can be told."""

    def __init__(self, name: str, config: LaneConfig) -> None:
        super().__init__(name, config)
        self._may_look = current_cores().chosen > 1
        self._carrier = Carrier(config.context)
        self._meter = LaneMeter(name, "processes")
        self._lock = threading.Lock()
        self._found: asyncio.AbstractEventLoop | None = None
        self._service: Service | None = None
        self._begin()
        _lanes.add(self)

    def _begin(self) -> None:
        """Everything as new, on no loop yet."""
        config = self.config
        orders = Orders(config.preload, config.initializer, config.nice, self._may_look)
        self._home: asyncio.AbstractEventLoop | None = None
        self._admission = Admission(self.name, self.config)
        self._crew = Crew(self.name, self.config, self._meter, orders)
        # how long jobs run, a moving average over the last eight or so
        self._run_ns = AHEAD_NS
        # how many may be with one worker
        self._depth = 1
        self._expect: Callable[[int], None] | None = None
        self._patience = Patience()
        self._looked_for: Job | None = None
        self._ended = threading.Event()
        # calls from other threads that the home has not heard of yet, and those who wait for a place
        self._room = threading.Condition(self._lock)
        self._posted = 0

    # --- where it lives

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Live on `loop`, and start `min_workers`."""
        if not self._is_shut:
            self._live_on(loop)
            self._crew.keep()

    def _live_on(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._home is loop:
            return
        if self._home is not None:
            # the former home is closed: whatever was left there can reach nobody
            self._crew.close()
            self._begin()
        self._home = loop
        # only penstock's own loop knows how to look before it sleeps
        self._expect = getattr(loop, "_expect", None) if self._may_look else None
        self._crew.open(loop, self)

    def _home_for_threads(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._home is None or self._home.is_closed():
                self._service = Service(f"penstock-{self.name}-loop")
                self._live_on(self._service.loop)
            assert self._home is not None
            return self._home

    # --- taking jobs

    def _offer(self, job: Job) -> None:
        job.payload = self._carrier.take()
        home = self._home
        if job.loop is not None and (home is None or home.is_closed()):
            self._live_on(job.loop)
            home = job.loop
        if job.loop is home and home is not None:
            self._enter(job)
            return
        home = self._home_for_threads()
        if asyncio._get_running_loop() is home:
            assert isinstance(job, ThreadJob)
            job.delivered_by = threading.get_ident()
            self._enter(job)
        elif self._wait_for_place(job):
            home.call_soon_threadsafe(self._enter_posted, job)

    def _wait_for_place(self, job: Job) -> bool:
        """From a thread: hold the caller while too much is on its way. False if the job was run here instead."""
        limit, full = self.config.queue_jobs, self.config.full
        with self._room:
            if full in ("wait", "drop_oldest") or self._admission.queued + self._posted < limit:
                # a caller on a loop may not be held: its jobs wait in line at home
                if job.loop is None:
                    held = limit if full == "drop_oldest" else 0
                    self._room.wait_for(lambda: self._is_shut or self._admission.queued - held + self._posted < limit)
                self._check_open()
                self._posted += 1
                return True
        if full == "shed":
            self._meter.shed("full")
            raise Overloaded(
                f"lane {self.name!r} is full: {limit} jobs are queued; try again later, or raise queue_jobs",
                reason="full",
                queued=limit,
                limit=limit,
            )
        self._run_here(job)
        return False

    def _enter_posted(self, job: Job) -> None:
        with self._room:
            self._posted -= 1
            self._room.notify_all()
        if job.done():
            return
        # accepted before a shutdown is accepted: the shutdown waits for it
        try:
            self._enter(job)
        except Overloaded as problem:
            job.fail_from_thread(problem)

    def _enter(self, job: Job) -> None:
        assert self._home is not None
        job.on_cancel = self._on_cancel
        if job.expires_ns is not None:
            wait_s = (job.expires_ns - monotonic_ns()) / 1e9
            job.timer = self._home.call_later(max(wait_s, 0.0), self._expire, job)
        if not self._admission.queued:
            link = self._link_for_one()
            if link is not None:
                self._send(link, job)
                return
        self._queue(job)

    def _queue(self, job: Job) -> None:
        try:
            verdict, displaced = self._admission.offer(job)
        except Overloaded as problem:
            self._over(job)
            self._meter.shed(problem.reason)
            raise
        if displaced is not None:
            self._displace(displaced)
        if verdict is Verdict.CALLER_RUNS:
            self._run_here(job)
        elif verdict is Verdict.QUEUED:
            self._build_queued(job)
        self.on_room()

    def _displace(self, job: Job) -> None:
        self._meter.shed("displaced")
        self._fail(job, self._admission.displaced(job))

    def _build_queued(self, job: Job) -> None:
        if not self._build(job):
            self._admission.discard(job)
            return
        self._admission.set_size(job, job.payload.size_bytes)
        while (heaviest := self._admission.excess()) is not None:
            self._displace(heaviest)

    def _run_here(self, job: Job) -> None:
        self._over(job)
        began_ns = monotonic_ns()
        self._meter.waited(began_ns - job.offered_ns)
        try:
            value = job.fn(*job.args, **(job.kwargs or {}))
        except Exception as problem:
            self._meter.ended("error")
            job.fail(problem)
        else:
            self._meter.ended("ok")
            job.finish(value)
        self._meter.ran(monotonic_ns() - began_ns)

    def _build(self, job: Job) -> bool:
        """Make the payload; False when the job has failed for it."""
        carried = job.payload
        if type(carried) is Pickled:
            return True
        try:
            job.payload = _call(job, carried)
        except Exception as problem:
            error = call_fault(job.fn, job.args, job.kwargs, problem)
            error.__cause__ = problem
            self._meter.ended("error")
            self._fail(job, error)
            return False
        # the payload has all of it now
        job.args, job.kwargs = (), None
        return True

    # --- handing jobs out

    def _link_for_one(self) -> Link | None:
        """Who is to have one more job: an idle worker, else the least busy of those that are sent ahead."""
        link = self._crew.next_resting()
        depth = self._depth
        if link is not None or depth == 1:
            return link
        best, fewest = None, depth
        for other in self._crew.links:
            count = len(other.jobs)
            if 0 < count < fewest and other.has_room(depth):
                best, fewest = other, count
        return best

    def _send(self, link: Link, job: Job) -> None:
        if not self._build(job):
            if not link.jobs:
                self.on_free(link)
            return
        was_idle = not link.jobs
        job.started_ns = monotonic_ns()
        link.send(job)
        if was_idle and self._expect is not None and self._run_ns < SHORT_NS and self._patience.wants_to_look():
            self._looked_for = job
            self._expect(LOOK_NS)

    def on_free(self, link: Link) -> None:
        """A worker has answered, or is new: fill it up."""
        depth = self._depth
        while link.has_room(depth):
            job = self._admission.take()
            if job is None:
                break
            self._send_taken(link, job)
        self._admit()
        if not link.jobs and link.has_room(1) and not self._take_over(link):
            self._crew.rest(link)
        if self._is_shut:
            self._end_if_done()

    def _send_taken(self, link: Link, job: Job) -> None:
        if self._build(job):
            job.started_ns = monotonic_ns()
            link.send(job)

    def _take_over(self, link: Link) -> bool:
        """Give an idle worker half of what the busiest one has not begun."""
        busiest = max(self._crew.links, key=lambda other: len(other.jobs), default=link)
        count = len(busiest.jobs) // 2 if len(busiest.jobs) > 1 else 0
        jobs = busiest.take_back_unbegun(count) if count else []
        for job in jobs:
            link.send(job)
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
            self._crew.grow(self._admission.queued)
        elif not self._is_shut:
            self._crew.keep()
        if self._is_shut:
            self._end_if_done()

    # --- answers

    def on_reply(self, link: Link, job: Job, status: int, value: Any, began_ns: int, ran_ns: int) -> None:
        """A worker has answered a job."""
        self._run_ns = run_ns = self._run_ns + ((ran_ns - self._run_ns) >> 3)
        self._depth = min(max(AHEAD_NS // max(run_ns, 1), 1), MOST_AHEAD)
        if job is self._looked_for:
            self._looked_for = None
            self._patience.found(monotonic_ns() - job.started_ns < LOOK_NS)
        meter = self._meter
        meter.ran(ran_ns)
        meter.waited(began_ns - job.offered_ns if began_ns > job.offered_ns else 0)
        if job.done():
            return  # its caller has given it up; that was counted then
        self._over(job)
        if status == Status.RESULT:
            meter.ended("ok")
            if job.loop is self._home or job.loop is None:
                job.finish(value)
            else:
                job.finish_from_thread(value)
        elif status == Status.ERROR:
            meter.ended("error")
            self._deliver_failure(job, rebuilt(*value))
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
        if job.loop is None or job.loop is self._home:
            job.fail(problem)
        else:
            job.fail_from_thread(problem)

    # --- jobs given up, workers lost

    def _on_cancel(self, job: Job) -> None:
        if asyncio._get_running_loop() is self._home:
            self._give_up(job, "cancelled")
            return
        try:
            assert self._home is not None
            self._home.call_soon_threadsafe(self._give_up, job, "cancelled")
        except RuntimeError:
            pass  # the home is closed

    def _expire(self, job: Job) -> None:
        job.timer = None
        if not job.done():
            self._deliver_failure(job, job.late(f"{job.name} has not ended within {job.allowed}"))
            self._give_up(job, "timeout")

    def _give_up(self, job: Job, cause: str) -> None:
        """Its caller is gone: out of the queue with it, or out of its worker."""
        mark = job.mark
        self._over(job)
        self._meter.ended(cause)
        if mark is None:
            self._admission.discard(job)
            self._admit()
            return
        link, number = mark
        if not link.take_back(job) and link.interrupted != number:
            self._interrupt(link, job, cause)
        elif not link.jobs:
            self.on_free(link)

    def _interrupt(self, link: Link, job: Job, cause: str) -> None:
        assert self._home is not None
        link.interrupt(job)
        link.grace = self._home.call_later(self.config.grace_s, self._crew.kill, link, cause)
        self._put_back(link.take_back_unbegun())

    def _put_back(self, jobs: list[Job]) -> None:
        for job in reversed(jobs):
            self._admission.put_back(job)
        for _ in jobs:
            link = self._link_for_one()
            found = self._admission.take() if link is not None else None
            if link is None or found is None:
                break
            self._send(link, found)
        self.on_room()

    def on_lost(self, link: Link, unbegun: list[Job], code: int | None) -> None:
        """A worker has ended: what it had begun is lost, the rest goes to others."""
        for job in link.jobs.values():
            job.mark = None
            if not job.done():
                self._lost(job, link.pid, code)
        link.jobs.clear()
        self._put_back(unbegun)

    def _lost(self, job: Job, pid: int, code: int | None) -> None:
        job.kills += 1
        if job.retries > 0 and job.kills < self.config.poison_kills:
            job.retries -= 1
            self._admission.put_back(job)
            return
        signal_number = -code if code is not None and code < 0 else None
        exit_code = code if signal_number is None else None
        self._meter.ended("worker_lost")
        if job.retries > 0:
            kills = job.kills
            problem: WorkerLost = PoisonJob(job.name, kills=kills, pid=pid, signal=signal_number, exit_code=exit_code)
        else:
            problem = WorkerLost(job.name, pid=pid, signal=signal_number, exit_code=exit_code)
        self._fail(job, problem)

    def on_no_worker(self, problem: WorkerStartError) -> None:
        """Nobody is there to run what is queued, and nobody can be had."""
        for job in self._admission.drain():
            self._meter.ended("worker_lost")
            self._fail(job, problem)
        self._admit()
        if self._is_shut:
            self._end_if_done()

    # --- its end

    def statistics(self) -> LaneStatistics:
        """Counts, times and bytes so far, frozen. Read from another thread, the gauges may be a moment apart."""
        crew, admission = self._crew, self._admission
        links = list(crew.links)
        return self._meter.snapshot(
            workers=len(links),
            workers_busy=sum(bool(link.jobs) for link in links),
            workers_limit=crew.limit,
            queued=admission.queued,
            waiting=admission.waiting,
            running=sum(len(link.jobs) for link in links),
            queue_limit=admission.limit,
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `concurrent.futures`'. In the home's own thread, and when that stands still, nothing can be waited for."""
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
            self._stop_service()

    def _shut(self, cancel_futures: bool) -> None:
        if cancel_futures:
            for job in self._admission.drain():
                job.cancel() if job.loop in (None, self._home) else job.loop.call_soon_threadsafe(job.cancel)
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._admission.queued or self._admission.waiting or self._posted:
            return
        if self._crew.finish():
            self._crew.close()
            self._ended.set()

    def close(self) -> None:
        """End everything now: workers are killed, what they ran reaches nobody."""
        self._is_shut = True
        self._crew.close()
        for job in self._admission.drain():
            self._over(job)
        self._ended.set()
        self._stop_service()

    def _stop_service(self) -> None:
        service, self._service = self._service, None
        if service is not None:
            service.stop()

    def finish_at_exit(self) -> None:
        """The interpreter ends: finish what threads have submitted."""
        if self._service is not None and not self._is_shut:
            self.shutdown()

    def after_fork(self) -> None:
        """In a forked child: it has no workers yet, and none of the parent's jobs."""
        self._crew.forget()
        self._service = None
        self._lock = threading.Lock()
        self._begin()


def _call(job: Job, carried: Any) -> Pickled:
    function = dump_function(job.fn)
    if function is None or job.kwargs or carried is not None:
        return dump((job.fn, job.args, job.kwargs, carried))
    pickled = dump(job.args)
    pickled.function = function
    return pickled


_lanes: weakref.WeakSet[ProcessLane] = weakref.WeakSet()


def _after_fork() -> None:
    for lane in list(_lanes):
        lane.after_fork()


def _at_exit() -> None:
    """What threads have submitted is finished, as `concurrent.futures` does; a loop's lanes are its own to end."""
    for lane in list(_lanes):
        lane.finish_at_exit()


# before the interpreter stops letting threads and processes start; where concurrent.futures ends its executors
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
