"""The parent's connection to one worker: writes jobs to its socket, reads results, and accounts for shared memory.

Confined to the thread of the loop that watches the socket. The lane decides what follows from a reply.
Ownership: a connection owns its worker (`ChildProcess`) until `close`.
"""

from __future__ import annotations

import signal
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock.core_source import chosen
from penstock.errors import UnpicklableError
from penstock.executors.processes.claims import FILLS, SLOTS, receive
from penstock.executors.processes.pickling import load
from penstock.executors.processes.protocol import FILLING, Status, lay_out, unpack
from penstock.executors.processes.shared_memory import Extents
from penstock.executors.processes.worker import PREPARING
from penstock.executors.remote_errors import rebuild_error

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from penstock._core.workers.pipe import JobPipe
    from penstock.executors.counters import LaneCounters
    from penstock.executors.job import Job
    from penstock.executors.processes.pickling import Pickled
    from penstock.executors.processes.start import ChildProcess
else:
    JobPipe = chosen("workers", "pipe").JobPipe

__all__ = ["OnReply", "WorkerConnection"]

# The time between two interrupts of one job.
REMIND_S = 0.1
# on_reply(connection, job, status, value, began_ns, ran_ns): the value is the result, or the exception and the text of
# its traceback in the worker, which is None for an exception of the parent
OnReply: TypeAlias = "Callable[[WorkerConnection, Job, int, Any, int, int], None]"


class WorkerConnection(JobPipe):
    """A connection to one worker. `jobs` are the jobs it was sent, by number, in the order in which it runs them."""

    __slots__ = ("_room", "began_ns", "fault", "grace", "idle_since_ns", "reminder", "rss_read_ns", "worker")

    def __init__(
        self, worker: ChildProcess, loop: asyncio.AbstractEventLoop, counters: LaneCounters, max_jobs: int | None = None
    ) -> None:
        super().__init__(worker.socket, worker.arena.claims, loop, counters, receive, max_jobs, SLOTS)
        self.worker = worker
        # the exception of a failed start
        self.fault: BaseException | None = None
        # the timer that kills the worker if the interrupted job does not end
        self.grace: asyncio.TimerHandle | None = None
        # the timer that interrupts the job again
        self.reminder: asyncio.TimerHandle | None = None
        self.began_ns = self.idle_since_ns = self.rss_read_ns = monotonic_ns()
        self._room = Extents(*worker.arena.to_worker)

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        return self.worker.pid

    # --- to the worker

    def _place(self, number: int, pickled: Pickled) -> tuple[int, list[Any], int, list[tuple[int, Any]]]:
        fills: list[tuple[int, Any]] = []
        content = lay_out(pickled, self._room.take, lambda offset, data: fills.append((offset, data)))
        if content.blocks:
            self._blocks[number] = content.blocks
        self.counters.moved("out_inband", content.inband_bytes)
        self.counters.moved("out_shm", content.shared_bytes)
        return sum(map(len, content.parts)), content.parts, content.buffer_count, fills

    def _begin_to_fill(self, fills: list[tuple[int, Any]], is_idle: bool) -> int:
        """Copy the buffers, unless the worker is idle: it is sent the job first, and copies out while they are copied
        in."""
        if is_idle and FILLS:
            self.worker.arena.claims.empty()
            return FILLING
        for offset, data in fills:
            self.worker.arena.put(offset, data)
        return 0

    def _fill(self, fills: list[tuple[int, Any]] | None) -> None:
        done_bytes, claims = 0, self.worker.arena.claims
        for offset, data in fills or ():
            claims.fill(offset, data, done_bytes)
            done_bytes += len(data)

    def take_back_unbegun(self, count: int | None = None) -> list[Job]:
        """Revoke up to `count` of the last jobs that the worker has not begun. Return them in their order."""
        taken: list[Job] = []
        for job in reversed(list(self.jobs.values())):
            if count is not None and len(taken) >= count:
                break
            if self.take_back(job):
                taken.append(job)
        return taken[::-1]

    def interrupt(self, job: Job) -> None:
        """Interrupt the call of this job in the worker."""
        self.interrupted = job.number
        self.worker.arena.claims.interrupted = self.interrupted
        self._signal_again()

    def interrupt_start(self) -> None:
        """Interrupt a worker that is not ready: it reports its traceback and ends."""
        self.worker.arena.claims.interrupted = PREPARING
        self._signal_again()

    def _signal_again(self) -> None:
        # A signal just before a system call does not interrupt it. The worker raises once, however many signals come.
        self.worker.signal(signal.SIGINT)
        self.reminder = self._loop.call_later(REMIND_S, self._signal_again)

    # --- from the worker

    def _value(self, body: bytes, start: int, end: int, buffer_count: int) -> Any:
        arena, shared_bytes = self.worker.arena, 0

        def view(offset: int, size: int) -> memoryview:
            nonlocal shared_bytes
            shared_bytes += size
            return arena.view(offset, size)

        # buffers that the result keeps are copied: the worker reuses the block as soon as all results are read
        content = unpack(body, start, end, buffer_count, view, lambda *block: bytearray(view(*block)))
        try:
            return load(*content)
        finally:
            if shared_bytes:
                arena.claims.results_read += 1
                self.counters.moved("in_shm", shared_bytes)

    def _unloadable(self, job: Job, status: int, problem: Exception) -> tuple[int, tuple[Exception, None]]:
        return Status.ERROR, (_unloadable_error(job.name, status, problem), None)

    def _take_notice(self, status: int, number: int, body: bytes) -> None:
        if status == Status.RELEASED:
            self._free(self._kept, number)
        elif status == Status.READY:
            self.is_ready = True
        elif status == Status.UNFIT:
            self._take_fault(body)

    def _take_fault(self, body: bytes) -> None:
        try:
            problem, text = load(body)
        except Exception as error:
            problem, text = _unloadable_error("its start", Status.ERROR, error), None
        # of a worker that was interrupted because it started too slowly, this is its traceback
        self.fault = rebuild_error(self.fault or problem, text)

    def _free(self, blocks: dict[int, list[tuple[int, int]]], number: int) -> None:
        for block in blocks.pop(number, ()):
            self._room.free(*block)

    # --- its end

    def end_grace(self) -> None:
        """Stop the timers of an interrupted job that has ended."""
        self.interrupted = 0
        for timer in (self.grace, self.reminder):
            if timer is not None:
                timer.cancel()
        self.grace = self.reminder = None

    def trim(self) -> None:
        """Return unused shared memory to the system."""
        if not self.jobs and not self._kept:
            self.worker.arena.trim()

    def close(self, *, kill: bool = False) -> None:
        """Stop watching and release the worker: an idle worker ends by itself, `kill` ends any."""
        self.end_grace()
        if self.worker.socket.fileno() >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(self.worker.socket)
            self._loop.remove_writer(self.worker.socket)
        self.worker.release(kill=kill)


def _unloadable_error(name: str, status: int, problem: Exception) -> UnpicklableError:
    what = "its result" if status == Status.RESULT else "the exception it raised"
    error = UnpicklableError(f"{name}: {what} cannot be loaded here: {type(problem).__name__}: {problem}")
    error.__cause__ = problem
    return error
