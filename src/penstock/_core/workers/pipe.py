# cython: annotation_typing=False, nonecheck=True
# mypy: disable-error-code="attr-defined"
"""The stream of jobs to one worker, and of results from it.

Native where it is built (`pipe.pxd` has the types), this very source elsewhere. Confined to the thread of the loop that
watches the socket. Every call of `on_reply` may close the pipe: the socket is asked for its descriptor before each use.
"""

from __future__ import annotations

import sys
from pickle import loads
from typing import TYPE_CHECKING, Any

# relative, so that the plain source finds its plain parts where native ones are built too
from .frames import JOB, RESULT, WHOLE, FrameReader, Status

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from .pickled import Pickled
    from .tally import Tally

__all__ = ["JobPipe"]

# The most that one call of `receive` returns, and the size of a read for a frame that is larger.
RECEIVE_BYTES = 65_536
LARGE_READ_BYTES = 262_144
# of Status, as numbers that cost no look-up
RESULT_STATUS = int(Status.RESULT)
INTERRUPTED_STATUS = int(Status.INTERRUPTED)


class JobPipe:
    """The pipe to one worker. `jobs` are the jobs it was sent, by number, in the order in which it runs them.

    A subclass has what is not on the way of a small job: `_place` and `_fill` (large buffers to the worker), `_value`
    (large buffers from it), `_take_notice` (frames that are no replies), `_free` and `end_grace`, and `_unloadable`
    (the reply for a result that cannot be loaded).
    """

    def __init__(
        self,
        sock: socket.socket,
        claims: Any,
        loop: asyncio.AbstractEventLoop,
        counters: Tally,
        receive: Callable[[int, int], bytes | None],
        max_jobs: int | None,
        max_ahead: int,
    ) -> None:
        self.counters = counters
        self.jobs: dict[int, Any] = {}
        self.jobs_done = 0
        self.is_ready = False
        # why the worker ends after its jobs; None: it stays
        self.retiring: str | None = None
        # the number of the interrupted job; 0: none
        self.interrupted = 0
        # blocks of shared memory by job; blocks that outlive their job in the worker move to _kept
        self._blocks: dict[int, list[tuple[int, int]]] = {}
        self._kept: dict[int, list[tuple[int, int]]] = {}
        self._loop = loop
        self._socket = sock
        self._receive = receive
        self._offer, self._revoke = claims.offer, claims.revoke
        self._frames = FrameReader(RESULT)
        self._most_jobs = sys.maxsize if max_jobs is None else min(max_jobs, sys.maxsize)
        self._most_ahead = max_ahead
        self._last_number = 0
        # gathered for one write, and the rest that the socket has not taken
        self._outgoing: list[bytes] = []
        self._unsent: memoryview | None = None
        self._wants_flush = False

    # --- to the worker

    def send(self, job: Any) -> None:
        """Send a job, whose payload is built: to an idle worker at once, else at the end of the loop's turn, together
        with others in one write."""
        number = self._last_number = self._last_number + 1
        pickled: Pickled = job.payload
        is_first = not self.jobs
        fills = None
        if pickled.is_small:
            size, flags = len(pickled.text), 0
            self._append(pickled.function, number, size, 0, flags)
            self._outgoing.append(pickled.text)
            self.counters.add_moved("out_inband", size)
        else:
            size, parts, buffer_count, fills = self._place(number, pickled)
            flags = self._begin_to_fill(fills, is_first) if fills else 0
            self._append(pickled.function, number, size, buffer_count, flags)
            self._outgoing.extend(parts)
        self._offer(number)
        self.jobs[number] = job
        job.number = number
        if is_first:
            self._flush()
            if flags:
                self._fill(fills)
        elif not self._wants_flush:
            self._wants_flush = True
            self._loop.call_soon(self.flush)

    def _append(self, function: bytes, number: int, size: int, buffer_count: int, flags: int) -> None:
        if not function:
            flags |= WHOLE
        self._outgoing.append(JOB.pack(len(function) + size, number, len(function), buffer_count, flags))
        self._outgoing.append(function)

    def flush(self) -> None:
        """Write the gathered jobs. The rest follows when the socket is writable."""
        self._flush()

    def _flush(self) -> None:
        self._wants_flush = False
        if self._unsent is not None or not self._outgoing or self._socket.fileno() < 0:
            return
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        self._write(data)

    def _write(self, data: Any) -> None:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the worker has ended: reading will notice
        if sent < len(data):
            if self._unsent is None:
                self._loop.add_writer(self._socket, self.write_on)
            self._unsent = memoryview(data)[sent:]
        elif self._unsent is not None:
            self._unsent = None
            self._loop.remove_writer(self._socket)
            self._flush()

    def write_on(self) -> None:
        """Write what the socket has not taken before."""
        if self._unsent is not None:
            self._write(self._unsent)

    def take_back(self, job: Any) -> bool:
        """Revoke a job that the worker has not begun. Return False if it has."""
        number = job.number
        if not self._revoke(number):
            return False
        del self.jobs[number]
        if number in self._blocks:
            self._free(self._blocks, number)
        job.number = 0
        return True

    @property
    def places(self) -> int:
        """The number of jobs that the worker may still be sent in its life."""
        return self._most_jobs - self.jobs_done - len(self.jobs)

    def has_room(self, depth: int) -> bool:
        """Return whether the worker may be sent a job now, with at most `depth` at once."""
        count = len(self.jobs)
        if self.retiring is not None or self.jobs_done + count >= self._most_jobs:
            return False
        if count == 0:
            return self.is_ready
        if count >= depth or self.interrupted:
            return False
        # the slot of the next number in the claim table must be free of the job that had it before
        first: int = next(iter(self.jobs))
        return self._last_number + 1 - first < self._most_ahead

    # --- from the worker

    def read(self, on_reply: Any) -> bool:
        """Read all available replies and report each. Return False at the end of the stream."""
        while True:
            size = RECEIVE_BYTES
            data = None
            if self._frames.need_bytes > RECEIVE_BYTES:
                size = LARGE_READ_BYTES
            else:
                data = self._receive(self._socket.fileno(), 0)
            if data is None:
                try:
                    data = self._socket.recv(size)
                except BlockingIOError:
                    return True
                except OSError:
                    return False
            if not data:
                return False
            for head, body, start, end in self._frames.feed(data):
                self._take_frame(head, body, start, end, on_reply)
            if len(data) < size:
                return True

    def _take_frame(self, head: tuple[int, ...], body: bytes, start: int, end: int, on_reply: Any) -> None:
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
        self.counters.add_moved("in_inband", end - start)
        value = None
        if status != INTERRUPTED_STATUS:
            try:
                value = self._value(body, start, end, buffer_count) if buffer_count else loads(body[start:end])
            except Exception as problem:
                status, value = self._unloadable(job, status, problem)
        on_reply(self, job, status, value, began_ns, ran_ns)
