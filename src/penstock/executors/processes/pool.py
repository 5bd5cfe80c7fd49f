"""The crew: a process lane's workers as a group. Starts them, rests them, retires them, notices when one is gone.

Confined to its loop's thread; only the start of a process, which blocks, runs in a thread of its own. Which job goes to
whom is the lane's part: the crew tells it of workers that are ready, and of jobs whose worker was lost.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections import deque
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol

from penstock.executors.cores import current_cores
from penstock.executors.processes.connection import Link
from penstock.executors.processes.main_guard import UNGUARDED_CODE, UnguardedMain
from penstock.executors.processes.start import Hatched, hatched

if TYPE_CHECKING:
    import asyncio

    from penstock.config import LaneConfig
    from penstock.executors.counters import LaneMeter
    from penstock.executors.job import Job
    from penstock.executors.processes.worker import Orders

__all__ = ["Crew", "CrewOwner"]

# Without a worker, so many starts that fail one after another are told to whoever waits.
START_TRIES = 3
# After failed starts, with workers there, so long none is started.
START_PAUSE_NS = 1_000_000_000
# A process's end is seen a little before its exit code can be had: ask again, not for ever.
EXIT_CODE_STEP_S = 0.002
EXIT_CODE_TRIES = 250
# The size of a worker is read at most so often.
RSS_EVERY_NS = 250_000_000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _ended_at_once(code: int | None) -> Exception:
    return UnguardedMain() if code == UNGUARDED_CODE else OSError(f"the process ended at once (exit code {code})")


class CrewOwner(Protocol):
    """What a crew tells its lane."""

    def on_reply(self, link: Link, job: Job, status: int, value: Any, began_ns: int, ran_ns: int) -> None:
        """A job is answered."""

    def on_free(self, link: Link) -> None:
        """A worker may have room for jobs."""

    def on_room(self) -> None:
        """The crew may grow."""

    def on_lost(self, link: Link, unbegun: list[Job], code: int | None) -> None:
        """A worker has ended: `unbegun` were only sent to it, those left in `link.jobs` were begun and are lost."""

    def on_no_worker(self, text: str, problem: BaseException | None) -> None:
        """There is no worker, and none can be started: what to tell, and why."""


class Crew:
    """The workers of one lane on one loop. `links` are those that take jobs now or later."""

    def __init__(self, name: str, config: LaneConfig, meter: LaneMeter, orders: Orders) -> None:
        self.links: list[Link] = []
        self.starting = 0
        # the limit when it was last asked for: for those that ask once per job
        self.limit_seen = sys.maxsize
        self._name, self._config, self._meter, self._orders = name, config, meter, orders
        # ready and without a job; the last to rest is the first to work, so that the others may end
        self._resting: list[Link] = []
        # retired or dead, their processes not yet known to have ended
        self._leaving: set[Link] = set()
        self._failed_starts = self._paused_until_ns = 0
        self._started_count = 0
        # threads that start one each, and what came of it
        self._starters: list[threading.Thread] = []
        self._arrivals: deque[Hatched | Exception] = deque()
        self._shrinks: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop, lane: CrewOwner) -> None:
        """Begin to work for `lane` on `loop`."""
        self._loop, self._lane = loop, lane

    # --- how many

    @property
    def limit(self) -> int:
        """How many workers there may be now: as configured, or as many as the usable cores."""
        self.limit_seen = self._config.workers or max(current_cores().chosen, self._config.min_workers)
        return self.limit_seen

    @property
    def busy(self) -> int:
        """Workers with a job."""
        return sum(bool(link.jobs) for link in self.links)

    def grow(self, wanted: int) -> None:
        """Have `wanted` more workers, as far as the limit lets, those that start already among them."""
        if wanted <= self.starting or self._is_paused():
            return
        for _ in range(min(wanted - self.starting, self.limit - len(self.links) - self.starting)):
            self._start()

    def _is_paused(self) -> bool:
        """Whether starts have failed a moment ago; where there are no workers it is tried on."""
        if not self._paused_until_ns or monotonic_ns() >= self._paused_until_ns:
            return False
        return any(link.is_ready for link in self.links)

    def jobs(self) -> list[Job]:
        """Those that any worker has, or had when it was lost."""
        return [job for link in (*self.links, *self._leaving) for job in link.jobs.values()]

    def keep(self) -> None:
        """See that there are `min_workers`."""
        self.grow(self._config.min_workers - len(self.links))

    def next_resting(self) -> Link | None:
        """An idle worker; it no longer counts as resting."""
        return self._resting.pop() if self._resting else None

    def rest(self, link: Link) -> None:
        """The worker has nothing to do."""
        link.idle_since_ns = monotonic_ns()
        self._resting.append(link)
        if self._shrinks is None and self._loop is not None:
            self._shrinks = self._loop.call_later(self._config.idle_s, self._shrink)

    # --- starting

    def _start(self) -> None:
        self.starting += 1
        self._started_count += 1
        name = f"penstock-{self._name}-{self._started_count}"
        if self._config.start == "fork":
            # from this thread: a helper thread would be one more that the child finds gone
            self._hatch(name)
            return
        starter = threading.Thread(target=self._hatch, args=(name,), name=f"{name}-start", daemon=True)
        try:
            starter.start()
        except RuntimeError:
            self._hatch(name)  # the interpreter ends, and lets no thread start any more
        else:
            self._starters.append(starter)

    def _hatch(self, name: str) -> None:
        loop, found = self._loop, hatched(self._config.start, name, self._config.arena_bytes, self._orders)
        self._arrivals.append(found)
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._welcome)
            except RuntimeError:
                pass  # the loop is closed; whoever closes the crew finds it among the arrivals

    def _welcome(self) -> None:
        self._starters = [starter for starter in self._starters if starter.is_alive()]
        while self._arrivals and self._loop is not None:
            found = self._arrivals.popleft()
            self.starting -= 1
            if isinstance(found, Exception):
                self._start_failed(found)
                continue
            link = Link(found, self._loop, self._meter, self._config.max_jobs)
            self.links.append(link)
            if self._config.start_s is not None:
                link.grace = self._loop.call_later(self._config.start_s, self._start_hangs, link)
            self._loop.add_reader(found.socket, self._readable, link)
            self._loop.add_reader(found.sentinel, self._ended, link, EXIT_CODE_TRIES, True)

    def _start_hangs(self, link: Link) -> None:
        """A worker is not ready in time: have it tell where it is, or else end it."""
        link.fault = TimeoutError(f"not ready after {self._config.start_s:g} s (start_s): preload or initializer hangs")
        link.interrupt_start()
        if self._loop is not None:
            link.grace = self._loop.call_later(self._config.grace_s, self.kill, link, "timeout")

    def _start_failed(self, problem: BaseException) -> None:
        self._failed_starts += 1
        if any(link.is_ready for link in self.links):
            self._paused_until_ns = monotonic_ns() + START_PAUSE_NS
        elif self._failed_starts >= START_TRIES or type(problem) is TimeoutError or not isinstance(problem, OSError):
            self._failed_starts = 0
            # that one says all that there is to say
            is_whole = isinstance(problem, UnguardedMain)
            text = str(problem) if is_whole else f"{type(problem).__name__}: {problem}"
            text = f"lane {self._name!r}: its workers do not start: {text}"
            self._lane.on_no_worker(text, None if is_whole else problem)
        else:
            self._lane.on_room()

    # --- working

    def _readable(self, link: Link) -> None:
        was_ready = link.is_ready
        is_open = link.read(self._lane.on_reply)
        if link.is_ready and not was_ready:
            link.end_grace()
            self._failed_starts = 0
            link.idle_since_ns = monotonic_ns()
        if not is_open:
            self._ended(link)
        elif link.is_ready:
            self._retire_if_due(link)
            self._lane.on_free(link)

    def _retire_if_due(self, link: Link) -> None:
        if link.retiring is None:
            link.retiring = self._cause_to_retire(link)
        if link.retiring is not None and not link.jobs:
            self.retire(link, link.retiring)

    def _cause_to_retire(self, link: Link) -> str | None:
        # a worker that is retired before its first job does nothing for anybody, and neither does its successor
        if not link.jobs_done:
            return None
        config, now_ns = self._config, monotonic_ns()
        if config.max_jobs is not None and link.jobs_done >= config.max_jobs:
            return "max_jobs"
        if config.max_age_s is not None and now_ns - link.began_ns >= config.max_age_s * 1e9:
            return "age"
        if config.max_rss_bytes is not None and now_ns - link.rss_read_ns >= RSS_EVERY_NS:
            link.rss_read_ns = now_ns
            if _rss_bytes(link.pid) >= config.max_rss_bytes:
                return "rss"
        return None

    # --- ending

    def retire(self, link: Link, cause: str) -> None:
        """End a worker that has no job: it leaves by itself; one that does not within the grace is killed."""
        link.retiring = cause
        self._leave(link)
        try:
            link.worker.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone already
        if self._loop is not None:
            link.grace = self._loop.call_later(max(self._config.grace_s, 1.0), link.worker.kill)

    def kill(self, link: Link, cause: str) -> None:
        """End a worker now; its end is then noticed as any other's."""
        link.retiring = link.retiring or cause
        link.worker.kill()

    def _leave(self, link: Link) -> None:
        if link in self.links:
            self.links.remove(link)
            self._leaving.add(link)
        if link in self._resting:
            self._resting.remove(link)

    def _shrink(self) -> None:
        self._shrinks = None
        now_ns, idle_ns = monotonic_ns(), self._config.idle_s * 1e9
        for link in list(self._resting):
            if now_ns - link.idle_since_ns < idle_ns:
                continue
            if len(self.links) > self._config.min_workers:
                self.retire(link, "idle")
            else:
                link.trim()
        if len(self._resting) > self._config.min_workers and self._loop is not None:
            first_ns = min(link.idle_since_ns for link in self._resting)
            wait_s = max(self._config.idle_s - (now_ns - first_ns) / 1e9, self._config.idle_s / 10, 0.01)
            self._shrinks = self._loop.call_later(wait_s, self._shrink)

    def _ended(self, link: Link, tries: int = EXIT_CODE_TRIES, is_sentinel: bool = False) -> None:
        """The socket or the sentinel says that the process is over, or about to be."""
        loop = self._loop
        if loop is None:
            return
        if is_sentinel and link.worker.is_alive():
            # its forkserver is gone, and it is not
            loop.remove_reader(link.worker.sentinel)
            return
        if link in self.links:
            link.read(self._lane.on_reply)
        self._leave(link)
        for fd in (link.worker.socket, link.worker.sentinel):
            loop.remove_reader(fd)
        code = link.worker.exit_code()
        if code is None and tries == EXIT_CODE_TRIES // 2:
            # its socket is closed, but it lives: a job has closed what is not its own
            link.worker.kill()
        if code is None and tries and (link.worker.is_alive() or not link.worker.has_no_record()):
            loop.call_later(EXIT_CODE_STEP_S, self._ended, link, tries - 1)
            return
        self._leaving.discard(link)
        self._gone(link, code)

    def _gone(self, link: Link, code: int | None) -> None:
        was_ready, unbegun = link.is_ready, link.take_back_unbegun()
        link.close(kill=code is None)
        link.worker.close_record()
        if link.retiring != "shutdown":
            self._meter.restarted(link.retiring or "crash")
        if was_ready:
            self._lane.on_lost(link, unbegun, code)
        else:
            self._start_failed(link.fault or _ended_at_once(code))
        self._lane.on_room()

    def finish(self) -> bool:
        """Retire every worker without a job; True once none is left and none is on its way."""
        for link in list(self.links):
            if link.is_ready and not link.jobs:
                self.retire(link, "shutdown")
        return not (self.links or self._leaving or self.starting)

    def close(self) -> None:
        """Kill all and wait until they are gone: the loop closes, nobody hears of results any more."""
        loop, gone = self._loop, [*self.links, *self._leaving]
        if self._shrinks is not None:
            self._shrinks.cancel()
        for link in gone:
            if loop is not None and not loop.is_closed():
                loop.remove_reader(link.worker.sentinel)
            link.close(kill=True)
        for starter in self._starters:
            starter.join()
        late = [found for found in self._arrivals if isinstance(found, Hatched)]
        for worker in late:
            worker.release(kill=True)
        for worker in [*(link.worker for link in gone), *late]:
            worker.reap(1.0)
        self._forget_all()

    def forget(self) -> None:
        """In a forked child: the workers are the parent's. Close our copies of its descriptors, touch nothing else."""
        late = [found for found in self._arrivals if isinstance(found, Hatched)]
        for worker in [*(link.worker for link in (*self.links, *self._leaving)), *late]:
            worker.release()
        self._forget_all()

    def _forget_all(self) -> None:
        self.links, self._resting, self._leaving, self._starters = [], [], set(), []
        self._arrivals.clear()
        self.starting, self._loop, self._shrinks = 0, None, None


def _rss_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0
