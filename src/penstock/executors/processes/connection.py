"""The parent's connection to one worker: writes jobs to its socket, reads results, and accounts for shared memory.

Confined to the thread of the loop that watches the socket. The lane decides what follows from a reply.
Ownership: a connection owns its worker (`ChildProcess`) until `close`.
"""

from __future__ import annotations

import signal
import sys
from pickle import loads
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock.errors import UnpicklableError
from penstock.executors.processes.claims import FILLS, SLOTS
from penstock.executors.processes.pickling import LARGE_BYTES, load
from penstock.executors.processes.protocol import FILLING, JOB, RESULT, WHOLE, FrameReader, Status, lay_out, unpack
from penstock.executors.processes.shared_memory import Extents
from penstock.executors.processes.worker import PREPARING
from penstock.executors.remote_errors import rebuild_error

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from penstock.executors.counters import LaneCounters
    from penstock.executors.job import Job
    from penstock.executors.processes.pickling import Pickled
    from penstock.executors.processes.start import ChildProcess

__all__ = ["OnReply", "WorkerConnection"]

RECEIVE_BYTES = 262_144
# The time between two interrupts of one job.
REMIND_S = 0.1
# on_reply(connection, job, status, value, began_ns, ran_ns): the value is the result, or the exception and the text of
# its traceback in the worker, which is None for an exception of the parent
OnReply: TypeAlias = "Callable[[WorkerConnection, Job, int, Any, int, int], None]"


class WorkerConnection:
    """A connection to one worker. `jobs` are the jobs it was sent, by number, in the order in which it runs them."""

    __slots__ = (
        "_blocks",
        "_frames",
        "_kept",
        "_last_number",
        "_loop",
        "_most_jobs",
        "_offer",
        "_outgoing",
        "_room",
        "_unsent",
        "_wants_flush",
        "began_ns",
        "counters",
        "fault",
        "grace",
        "idle_since_ns",
        "interrupted",
        "is_ready",
        "jobs",
        "jobs_done",
        "reminder",
        "retiring",
        "rss_read_ns",
        "worker",
    )

    def __init__(
        self, worker: ChildProcess, loop: asyncio.AbstractEventLoop, counters: LaneCounters, max_jobs: int | None = None
    ) -> None:
        self.worker = worker
        self._most_jobs = sys.maxsize if max_jobs is None else max_jobs
        self._loop = loop
        self.counters = counters
        self.jobs: dict[int, Job] = {}
        self.jobs_done = 0
        self.is_ready = False
        # why the worker ends after its jobs; None: it stays
        self.retiring: str | None = None
        # the exception of a failed start
        self.fault: BaseException | None = None
        # the number of the interrupted job, and the timer that kills the worker if the job does not end
        self.interrupted = 0
        self.grace: asyncio.TimerHandle | None = None
        # the timer that interrupts the job again
        self.reminder: asyncio.TimerHandle | None = None
        self.began_ns = self.idle_since_ns = self.rss_read_ns = monotonic_ns()
        self._frames = FrameReader(RESULT)
        self._offer = worker.arena.claims.offer
        self._room = Extents(*worker.arena.to_worker)
        # blocks of shared memory by job; blocks that outlive their job in the worker move to _kept
        self._blocks: dict[int, list[tuple[int, int]]] = {}
        self._kept: dict[int, list[tuple[int, int]]] = {}
        self._last_number = 0
        # gathered for one write, and the rest that the socket has not taken
        self._outgoing: list[Any] = []
        self._unsent: memoryview | None = None
        self._wants_flush = False

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        return self.worker.pid

    # --- to the worker

    def send(self, job: Job) -> None:
        """Send a job, whose payload is built: to an idle worker at once, else at the end of the loop's turn, together
        with others in one write."""
        number = self._last_number = self._last_number + 1
        pickled, jobs = job.payload, self.jobs
        function = pickled.function
        if pickled.bytes_like or pickled.lent or len(pickled.text) >= LARGE_BYTES:
            size, parts, buffer_count, fills = self._place(number, pickled)
        else:
            size, parts, buffer_count, fills = len(pickled.text), [pickled.text], 0, None
            self.counters.moved("out_inband", size)
        is_first = not jobs
        flags = 0 if function else WHOLE
        if fills:
            flags |= self._begin_to_fill(fills, is_first)
        self._outgoing.append(JOB.pack(len(function) + size, number, len(function), buffer_count, flags) + function)
        self._outgoing += parts
        self._offer(number)
        jobs[number] = job
        job.number = number
        if is_first:
            self.flush()
            if flags & FILLING:
                self._fill(fills)
        elif not self._wants_flush:
            self._wants_flush = True
            self._loop.call_soon(self.flush)

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

    def flush(self) -> None:
        """Write the gathered jobs. The rest follows when the socket is writable."""
        self._wants_flush = False
        if self._unsent is not None or not self._outgoing or self.worker.socket.fileno() < 0:
            return
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        self._write(memoryview(data))

    def _write(self, data: memoryview) -> None:
        try:
            sent = self.worker.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the worker has ended: reading will notice
        if sent < len(data):
            if self._unsent is None:
                self._loop.add_writer(self.worker.socket, self._write_on)
            self._unsent = data[sent:]
        elif self._unsent is not None:
            self._unsent = None
            self._loop.remove_writer(self.worker.socket)
            self.flush()

    def _write_on(self) -> None:
        if self._unsent is not None:
            self._write(self._unsent)

    def take_back(self, job: Job) -> bool:
        """Revoke a job that the worker has not begun. Return False if it has."""
        number = job.number
        if not self.worker.arena.claims.revoke(number):
            return False
        del self.jobs[number]
        self._free(self._blocks, number)
        job.number = 0
        return True

    def take_back_unbegun(self, count: int | None = None) -> list[Job]:
        """Revoke up to `count` of the last jobs that the worker has not begun. Return them in their order."""
        taken: list[Job] = []
        for job in reversed(list(self.jobs.values())):
            if count is not None and len(taken) >= count:
                break
            if self.take_back(job):
                taken.append(job)
        return taken[::-1]

    @property
    def places(self) -> int:
        """The number of jobs that the worker may still be sent in its life."""
        return self._most_jobs - self.jobs_done - len(self.jobs)

    def has_room(self, depth: int) -> bool:
        """Return whether the worker may be sent a job now, with at most `depth` at once."""
        if not self.jobs:
            return self.is_ready and self.retiring is None and self.jobs_done < self._most_jobs
        return (
            len(self.jobs) < depth
            and self.places > 0
            and not self.interrupted
            and self.retiring is None
            # the slot of the next number in the claim table must be free of the job that had it before
            and self._last_number + 1 - next(iter(self.jobs)) < SLOTS
        )

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

    def read(self, on_reply: OnReply) -> bool:
        """Read all available replies and report each. Return False at the end of the stream."""
        while True:
            try:
                data = self.worker.socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            for head, body, start, end in self._frames.feed(data):
                self._take_frame(head, body, start, end, on_reply)
            if len(data) < RECEIVE_BYTES:
                return True

    def _take_frame(self, head: tuple[int, ...], body: bytes, start: int, end: int, on_reply: OnReply) -> None:
        _, number, began_ns, ran_ns, buffer_count, status, keeps = head
        job = self.jobs.pop(number, None)
        if job is None:
            self._take_notice(status, number, body[start:end])
            return
        if number in self._blocks:
            if keeps:
                self._kept[number] = self._blocks.pop(number)
            else:
                self._free(self._blocks, number)
        if number == self.interrupted:
            self.end_grace()
        self.jobs_done += 1
        job.number = 0
        self.counters.moved("in_inband", end - start)
        value = None
        if status != Status.INTERRUPTED:
            try:
                value = self._value(body, start, end, buffer_count) if buffer_count else loads(body[start:end])
            except Exception as problem:
                status, value = Status.ERROR, (_unloadable(job.name, status, problem), None)
        on_reply(self, job, status, value, began_ns, ran_ns)

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
            problem, text = _unloadable("its start", Status.ERROR, error), None
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


def _unloadable(name: str, status: int, problem: Exception) -> UnpicklableError:
    what = "its result" if status == Status.RESULT else "the exception it raised"
    error = UnpicklableError(f"{name}: {what} cannot be loaded here: {type(problem).__name__}: {problem}")
    error.__cause__ = problem
    return error
