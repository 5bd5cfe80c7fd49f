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

from penstock.executors.cores import current_cores, worker_limit
from penstock.executors.processes.connection import WorkerConnection
from penstock.executors.processes.start import UNGUARDED_CODE, ChildProcess, UnguardedMain, start_worker

if TYPE_CHECKING:
    import asyncio

    from penstock.config import LaneConfig
    from penstock.executors.counters import LaneCounters
    from penstock.executors.job import Job
    from penstock.executors.processes.worker import WorkerOptions

__all__ = ["PoolOwner", "WorkerPool"]

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


class PoolOwner(Protocol):
    """What a crew tells its lane."""

    def on_reply(
        self, connection: WorkerConnection, job: Job, status: int, value: Any, began_ns: int, ran_ns: int
    ) -> None:
        """A job is answered."""

    def on_free(self, connection: WorkerConnection) -> None:
        """A worker may have room for jobs."""

    def on_room(self) -> None:
        """The crew may grow."""

    def on_lost(self, connection: WorkerConnection, unbegun: list[Job], code: int | None) -> None:
        """A worker has ended: `unbegun` were only sent to it, those left in `link.jobs` were begun and are lost."""

    def on_no_worker(self, text: str, problem: BaseException | None) -> None:
        """There is no worker, and none can be started: what to tell, and why."""


class WorkerPool:
    """The workers of one lane on one loop. `links` are those that take jobs now or later."""

    def __init__(self, name: str, config: LaneConfig, counters: LaneCounters, options: WorkerOptions) -> None:
        self.connections: list[WorkerConnection] = []
        self.starting = 0
        # the limit when it was last asked for: for those that ask once per job
        self.limit_seen = sys.maxsize
        self._name, self._config, self._counters, self._options = name, config, counters, options
        # ready and without a job; the last to rest is the first to work, so that the others may end
        self._resting: list[WorkerConnection] = []
        # retired or dead, their processes not yet known to have ended
        self._leaving: set[WorkerConnection] = set()
        self._failed_starts = self._paused_until_ns = 0
        self._started_count = 0
        # threads that start one each, and what came of it
        self._start_threads: list[threading.Thread] = []
        self._started: deque[ChildProcess | Exception] = deque()
        self._shrinks: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop, lane: PoolOwner) -> None:
        """Begin to work for `lane` on `loop`."""
        self._loop, self._lane = loop, lane

    # --- how many

    @property
    def limit(self) -> int:
        """How many workers there may be now: as configured, or as many as the usable cores."""
        self.limit_seen = worker_limit(self._config, current_cores())
        return self.limit_seen

    @property
    def busy(self) -> int:
        """Workers with a job."""
        return sum(bool(connection.jobs) for connection in self.connections)

    def grow(self, wanted: int) -> None:
        """Have `wanted` more workers, as far as the limit lets, those that start already among them."""
        if wanted <= self.starting or self._is_paused():
            return
        for _ in range(min(wanted - self.starting, self.limit - len(self.connections) - self.starting)):
            self._start()

    def _is_paused(self) -> bool:
        """Whether starts have failed a moment ago; where there are no workers it is tried on."""
        if not self._paused_until_ns or monotonic_ns() >= self._paused_until_ns:
            return False
        return any(connection.is_ready for connection in self.connections)

    def jobs(self) -> list[Job]:
        """Those that any worker has, or had when it was lost."""
        return [job for connection in (*self.connections, *self._leaving) for job in connection.jobs.values()]

    def connection_of(self, job: Job) -> WorkerConnection | None:
        """Return the connection to the worker that has the job; None if none has it."""
        if job.number:
            for connection in (*self.connections, *self._leaving):
                if connection.jobs.get(job.number) is job:
                    return connection
        return None

    def keep(self) -> None:
        """See that there are `min_workers`."""
        self.grow(self._config.min_workers - len(self.connections))

    def next_resting(self) -> WorkerConnection | None:
        """An idle worker; it no longer counts as resting."""
        return self._resting.pop() if self._resting else None

    def rest(self, connection: WorkerConnection) -> None:
        """The worker has nothing to do."""
        connection.idle_since_ns = monotonic_ns()
        self._resting.append(connection)
        if self._shrinks is None and self._loop is not None:
            self._shrinks = self._loop.call_later(self._config.idle_s, self._shrink)

    # --- starting

    def _start(self) -> None:
        self.starting += 1
        self._started_count += 1
        name = f"penstock-{self._name}-{self._started_count}"
        if self._config.start == "fork":
            # from this thread: a helper thread would be one more that the child finds gone
            self._start_process(name)
            return
        thread = threading.Thread(target=self._start_process, args=(name,), name=f"{name}-start", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._start_process(name)  # the interpreter ends, and lets no thread start any more
        else:
            self._start_threads.append(thread)

    def _start_process(self, name: str) -> None:
        loop, found = self._loop, start_worker(self._config.start, name, self._config.arena_bytes, self._options)
        self._started.append(found)
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._add_started)
            except RuntimeError:
                pass  # the loop is closed; whoever closes the crew finds it among the arrivals

    def _add_started(self) -> None:
        self._start_threads = [thread for thread in self._start_threads if thread.is_alive()]
        while self._started and self._loop is not None:
            found = self._started.popleft()
            self.starting -= 1
            if isinstance(found, Exception):
                self._start_failed(found)
                continue
            connection = WorkerConnection(found, self._loop, self._counters, self._config.max_jobs)
            self.connections.append(connection)
            if self._config.start_s is not None:
                connection.grace = self._loop.call_later(self._config.start_s, self._start_hangs, connection)
            self._loop.add_reader(found.socket, self._readable, connection)
            self._loop.add_reader(found.sentinel, self._ended, connection, EXIT_CODE_TRIES, True)

    def _start_hangs(self, connection: WorkerConnection) -> None:
        """A worker is not ready in time: have it tell where it is, or else end it."""
        connection.fault = TimeoutError(
            f"not ready after {self._config.start_s:g} s (start_s): preload or initializer hangs"
        )
        connection.interrupt_start()
        if self._loop is not None:
            connection.grace = self._loop.call_later(self._config.grace_s, self.kill, connection, "timeout")

    def _start_failed(self, problem: BaseException) -> None:
        self._failed_starts += 1
        if any(connection.is_ready for connection in self.connections):
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

    def _readable(self, connection: WorkerConnection) -> None:
        was_ready = connection.is_ready
        is_open = connection.read(self._lane.on_reply)
        if connection.is_ready and not was_ready:
            connection.end_grace()
            self._failed_starts = 0
            connection.idle_since_ns = monotonic_ns()
        if not is_open:
            self._ended(connection)
        elif connection.is_ready:
            self._retire_if_due(connection)
            self._lane.on_free(connection)

    def _retire_if_due(self, connection: WorkerConnection) -> None:
        if connection.retiring is None:
            connection.retiring = self._cause_to_retire(connection)
        if connection.retiring is not None and not connection.jobs:
            self.retire(connection, connection.retiring)

    def _cause_to_retire(self, connection: WorkerConnection) -> str | None:
        # a worker that is retired before its first job does nothing for anybody, and neither does its successor
        if not connection.jobs_done:
            return None
        config, now_ns = self._config, monotonic_ns()
        if config.max_jobs is not None and connection.jobs_done >= config.max_jobs:
            return "max_jobs"
        if config.max_age_s is not None and now_ns - connection.began_ns >= config.max_age_s * 1e9:
            return "age"
        if config.max_rss_bytes is not None and now_ns - connection.rss_read_ns >= RSS_EVERY_NS:
            connection.rss_read_ns = now_ns
            if _rss_bytes(connection.pid) >= config.max_rss_bytes:
                return "rss"
        return None

    # --- ending

    def retire(self, connection: WorkerConnection, cause: str) -> None:
        """End a worker that has no job: it leaves by itself; one that does not within the grace is killed."""
        connection.retiring = cause
        self._leave(connection)
        try:
            connection.worker.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone already
        if self._loop is not None:
            connection.grace = self._loop.call_later(max(self._config.grace_s, 1.0), connection.worker.kill)

    def kill(self, connection: WorkerConnection, cause: str) -> None:
        """End a worker now; its end is then noticed as any other's."""
        connection.retiring = connection.retiring or cause
        connection.worker.kill()

    def _leave(self, connection: WorkerConnection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
            self._leaving.add(connection)
        if connection in self._resting:
            self._resting.remove(connection)

    def _shrink(self) -> None:
        self._shrinks = None
        now_ns, idle_ns = monotonic_ns(), self._config.idle_s * 1e9
        for connection in list(self._resting):
            if now_ns - connection.idle_since_ns < idle_ns:
                continue
            if len(self.connections) > self._config.min_workers:
                self.retire(connection, "idle")
            else:
                connection.trim()
        if len(self._resting) > self._config.min_workers and self._loop is not None:
            first_ns = min(connection.idle_since_ns for connection in self._resting)
            wait_s = max(self._config.idle_s - (now_ns - first_ns) / 1e9, self._config.idle_s / 10, 0.01)
            self._shrinks = self._loop.call_later(wait_s, self._shrink)

    def _ended(self, connection: WorkerConnection, tries: int = EXIT_CODE_TRIES, is_sentinel: bool = False) -> None:
        """The socket or the sentinel says that the process is over, or about to be."""
        loop = self._loop
        if loop is None:
            return
        if is_sentinel and connection.worker.is_alive():
            # its forkserver is gone, and it is not
            loop.remove_reader(connection.worker.sentinel)
            return
        if connection in self.connections:
            connection.read(self._lane.on_reply)
        self._leave(connection)
        for fd in (connection.worker.socket, connection.worker.sentinel):
            loop.remove_reader(fd)
        code = connection.worker.exit_code()
        if code is None and tries == EXIT_CODE_TRIES // 2:
            # its socket is closed, but it lives: a job has closed what is not its own
            connection.worker.kill()
        if code is None and tries and (connection.worker.is_alive() or not connection.worker.has_no_record()):
            loop.call_later(EXIT_CODE_STEP_S, self._ended, connection, tries - 1)
            return
        self._leaving.discard(connection)
        self._remove_ended(connection, code)

    def _remove_ended(self, connection: WorkerConnection, code: int | None) -> None:
        was_ready, unbegun = connection.is_ready, connection.take_back_unbegun()
        connection.close(kill=code is None)
        connection.worker.close_record()
        if connection.retiring != "shutdown":
            self._counters.restarted(connection.retiring or "crash")
        if was_ready:
            self._lane.on_lost(connection, unbegun, code)
        else:
            self._start_failed(connection.fault or _ended_at_once(code))
        self._lane.on_room()

    def finish(self) -> bool:
        """Retire every worker without a job; True once none is left and none is on its way."""
        for connection in list(self.connections):
            if connection.is_ready and not connection.jobs:
                self.retire(connection, "shutdown")
        return not (self.connections or self._leaving or self.starting)

    def close(self) -> None:
        """Kill all and wait until they are gone: the loop closes, nobody hears of results any more."""
        loop, gone = self._loop, [*self.connections, *self._leaving]
        if self._shrinks is not None:
            self._shrinks.cancel()
        for connection in gone:
            if loop is not None and not loop.is_closed():
                loop.remove_reader(connection.worker.sentinel)
            connection.close(kill=True)
        for thread in self._start_threads:
            thread.join()
        late = [found for found in self._started if isinstance(found, ChildProcess)]
        for worker in late:
            worker.release(kill=True)
        for worker in [*(connection.worker for connection in gone), *late]:
            worker.reap(1.0)
        self._forget_all()

    def forget(self) -> None:
        """In a forked child: the workers are the parent's. Close our copies of its descriptors, touch nothing else."""
        late = [found for found in self._started if isinstance(found, ChildProcess)]
        for worker in [*(connection.worker for connection in (*self.connections, *self._leaving)), *late]:
            worker.release()
        self._forget_all()

    def _forget_all(self) -> None:
        self.connections, self._resting, self._leaving, self._start_threads = [], [], set(), []
        self._started.clear()
        self.starting, self._loop, self._shrinks = 0, None, None


def _rss_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0
