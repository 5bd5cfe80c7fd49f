"""The pool of a process lane's workers: it starts and retires them, and notices their end.

Confined to its loop's thread. Only the start of a process, which blocks, runs in a thread of its own. The lane assigns
jobs to workers; the pool notifies it of ready workers and of lost ones.
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

# If there is no worker, queued jobs fail after this many failed starts in a row.
START_TRIES = 3
# The pause after a failed start, if there are workers.
START_PAUSE_NS = 1_000_000_000
# The end of a process is seen a little before its exit code is known: the pool asks again this often, this many times.
EXIT_CODE_STEP_S = 0.002
EXIT_CODE_TRIES = 250
# The shortest time between two readings of a worker's size.
RSS_EVERY_NS = 250_000_000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _ended_at_once(code: int | None) -> Exception:
    return UnguardedMain() if code == UNGUARDED_CODE else OSError(f"the process ended at once (exit code {code})")


class PoolOwner(Protocol):
    """The callbacks of a pool to its lane."""

    def on_reply(
        self, connection: WorkerConnection, job: Job, status: int, value: Any, began_ns: int, ran_ns: int
    ) -> None:
        """A worker has replied to a job. `ran_ns` is the running time of the job."""

    def on_free(self, connection: WorkerConnection) -> None:
        """A worker may have room for jobs."""

    def on_room(self) -> None:
        """A worker has ended, or a start has failed: more workers may be needed."""

    def on_lost(self, connection: WorkerConnection, unbegun: list[Job], code: int | None) -> None:
        """A worker has ended. It had not begun the jobs `unbegun`; those in `connection.jobs` are lost."""

    def on_no_worker(self, text: str, problem: BaseException | None) -> None:
        """No worker is alive, and none can be started. `text` is the message for callers, `problem` its cause."""


class WorkerPool:
    """The workers of one lane on one loop. `connections` are those of workers that take jobs now or later."""

    def __init__(self, name: str, config: LaneConfig, counters: LaneCounters, options: WorkerOptions) -> None:
        self.connections: list[WorkerConnection] = []
        self.starting = 0
        # the limit when it was last computed, for reads once per job
        self.limit_seen = sys.maxsize
        self._name, self._config, self._counters, self._options = name, config, counters, options
        # whether a worker may be replaced because of its jobs, its age or its memory
        self._ages = (config.max_jobs, config.max_age_s, config.max_rss_bytes) != (None, None, None)
        # idle workers; the last to become idle gets the next job, so that the others may end
        self._resting: list[WorkerConnection] = []
        # retired or dead workers whose processes are not known to have ended
        self._leaving: set[WorkerConnection] = set()
        self._failed_starts = self._paused_until_ns = 0
        self._started_count = 0
        # threads that start one worker each, and the workers or exceptions that they produced
        self._start_threads: list[threading.Thread] = []
        self._started: deque[ChildProcess | Exception] = deque()
        self._shrinks: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop, lane: PoolOwner) -> None:
        """Start to work for `lane` on `loop`."""
        self._loop, self._lane = loop, lane

    # --- how many

    @property
    def limit(self) -> int:
        """The most workers now: as configured, or one for each usable core."""
        self.limit_seen = worker_limit(self._config, current_cores())
        return self.limit_seen

    @property
    def busy(self) -> int:
        """The number of workers with a job."""
        return sum(bool(connection.jobs) for connection in self.connections)

    def grow(self, wanted: int) -> None:
        """Start workers until `wanted` are starting, up to the limit."""
        if wanted <= self.starting or self._is_paused():
            return
        for _ in range(min(wanted - self.starting, self.limit - len(self.connections) - self.starting)):
            self._start()

    def _is_paused(self) -> bool:
        """Return whether starts pause after a failure. Without a ready worker they do not."""
        if not self._paused_until_ns or monotonic_ns() >= self._paused_until_ns:
            return False
        return any(connection.is_ready for connection in self.connections)

    def jobs(self) -> list[Job]:
        """Return the jobs of all workers, including lost ones."""
        return [job for connection in (*self.connections, *self._leaving) for job in connection.jobs.values()]

    def connection_of(self, job: Job) -> WorkerConnection | None:
        """Return the connection to the worker that has the job; None if none has it."""
        if job.number:
            for connection in (*self.connections, *self._leaving):
                if connection.jobs.get(job.number) is job:
                    return connection
        return None

    def keep(self) -> None:
        """Start workers until there are `min_workers`."""
        self.grow(self._config.min_workers - len(self.connections))

    def next_resting(self) -> WorkerConnection | None:
        """Remove an idle worker from the idle ones and return it; None if there is none."""
        return self._resting.pop() if self._resting else None

    def rest(self, connection: WorkerConnection) -> None:
        """Add a worker to the idle ones."""
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
            # in this thread: a helper thread would be one more thread that the child does not have
            self._start_process(name)
            return
        thread = threading.Thread(target=self._start_process, args=(name,), name=f"{name}-start", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._start_process(name)  # the interpreter is exiting, and lets no thread start
        else:
            self._start_threads.append(thread)

    def _start_process(self, name: str) -> None:
        loop, found = self._loop, start_worker(self._config.start, name, self._config.arena_bytes, self._options)
        self._started.append(found)
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._add_started)
            except RuntimeError:
                pass  # the loop is closed; `close` finds the worker in `_started`

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
        """Interrupt a worker that is not ready in time, so that it reports its traceback; kill it if it does not."""
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
            # this exception needs no cause
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
            if self._ages or connection.retiring is not None:
                self._retire_if_due(connection)
            self._lane.on_free(connection)

    def _retire_if_due(self, connection: WorkerConnection) -> None:
        if connection.retiring is None:
            connection.retiring = self._cause_to_retire(connection)
        if connection.retiring is not None and not connection.jobs:
            self.retire(connection, connection.retiring)

    def _cause_to_retire(self, connection: WorkerConnection) -> str | None:
        # a worker retired before its first job would be useless, and so would its successor
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
        """End a worker that has no job: it ends by itself, or is killed after the grace."""
        connection.retiring = cause
        self._leave(connection)
        try:
            connection.worker.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has ended already
        if self._loop is not None:
            connection.grace = self._loop.call_later(max(self._config.grace_s, 1.0), connection.worker.kill)

    def kill(self, connection: WorkerConnection, cause: str) -> None:
        """Kill a worker. Its end is noticed like any other."""
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
        """Handle the end of the socket or the sentinel: the process has ended, or is about to."""
        loop = self._loop
        if loop is None:
            return
        if is_sentinel and connection.worker.is_alive():
            # its forkserver has ended, and the worker has not
            loop.remove_reader(connection.worker.sentinel)
            return
        if connection in self.connections:
            connection.read(self._lane.on_reply)
        self._leave(connection)
        for fd in (connection.worker.socket, connection.worker.sentinel):
            loop.remove_reader(fd)
        code = connection.worker.exit_code()
        if code is None and tries == EXIT_CODE_TRIES // 2:
            # its socket is closed, but it lives: a job has closed a descriptor of the worker
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
        """Retire every worker without a job. Return True once no worker is left and none is starting."""
        for connection in list(self.connections):
            if connection.is_ready and not connection.jobs:
                self.retire(connection, "shutdown")
        return not (self.connections or self._leaving or self.starting)

    def close(self) -> None:
        """Kill all workers and wait for their ends. The loop is closing: no result is delivered any more."""
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
        """Close the copies of the parent's descriptors, in a forked child. The workers stay the parent's."""
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
