"""The worker process: it receives jobs, runs them one by one, and sends each result before it begins the next job.

It ends at the end of its socket. If the parent dies, the kernel kills the worker at once: see `tie_to_parent`. SIGINT
interrupts the job that the table of claims names, and is ignored otherwise. SIGTERM is ignored: both signals reach
whole groups, and the parent decides how the service ends. Processes that a job starts do not inherit this: see
`stand_apart`.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
from collections import deque
from contextlib import suppress
from pickle import loads
from pkgutil import resolve_name
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.errors import JobInterrupted, UnpicklableError
from penstock.executors.call import function_name
from penstock.executors.processes.claims import SPIN_NS, AdaptiveSpin, receive
from penstock.executors.processes.context import run_in_context
from penstock.executors.processes.pickling import Pickled, dump, fault, load
from penstock.executors.processes.protocol import (
    FILLING,
    JOB,
    RESULT,
    WHOLE,
    Content,
    FrameReader,
    Status,
    lay_out,
    unpack,
)
from penstock.executors.processes.shared_memory import Arena, LentBlocks
from penstock.executors.processes.signal_shield import do_nothing, ignore_sigterm, reset_in_children
from penstock.executors.remote_errors import describe_error

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType

__all__ = ["PREPARING", "WorkerOptions", "main"]

RECEIVE_BYTES = 1024 * 1024
# A worker that waited less than this for its last job may spin for the next one before it sleeps.
SOON_NS = 1_000_000
KNOWN_FUNCTIONS = 1000
NOTHING = Pickled(b"")
# In the table of claims, as the number of the job to interrupt: the preparation before the first job.
PREPARING = 2**64 - 1


class WorkerOptions(NamedTuple):
    """The options of a worker: modules to import and a function to call before the first job, its nice value, and
    whether it may spin before it sleeps."""

    preload: tuple[str, ...]
    initializer: Callable[[], object] | str | None
    nice: int
    may_spin: bool


def main(job_socket: socket.socket, lifeline: socket.socket, memory_fd: int, options: WorkerOptions) -> None:
    """Run a worker until the parent ends its socket."""
    # a worker forked from a loop's thread inherits the loop's wakeup descriptor
    signal.set_wakeup_fd(-1)
    own_group = stand_apart()
    tie_to_parent(lifeline, own_group)
    arena = Arena(memory_fd)
    os.close(memory_fd)
    worker = Worker(job_socket, arena, options.may_spin)
    signal.signal(signal.SIGINT, worker.on_interrupt)
    try:
        if worker.prepare(options):
            worker.serve()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the parent has ended
    sys.stdout.flush()


def stand_apart() -> bool:
    """Ignore signals for a group, and make a process group of this process. Return whether it has one."""
    ignore_sigterm()
    reset_in_children(_as_any_process)
    with suppress(PermissionError):  # the leader of a session has one already
        os.setpgid(0, 0)
    return os.getpgrp() == os.getpid()


def _as_any_process() -> None:
    """Reset the handlers in a process that a job has forked, unless the job has set its own."""
    if signal.getsignal(signal.SIGTERM) is do_nothing:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if getattr(signal.getsignal(signal.SIGINT), "__func__", None) is Worker.on_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def tie_to_parent(lifeline: socket.socket, own_group: bool) -> None:
    """Have the kernel kill this process with the parent, even in C code that holds the GIL, and its group with it: the
    kernel signals the end of a socket to the socket's owner."""
    if not hasattr(fcntl, "F_SETSIG"):
        threading.Thread(target=_die_with, args=(lifeline,), name="penstock-lifeline", daemon=True).start()
        return
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpid() if own_group else os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    lifeline.setblocking(False)
    try:
        if lifeline.recv(1) == b"":
            os._exit(1)  # the parent died before this call
    except BlockingIOError:
        pass


def _die_with(lifeline: socket.socket) -> None:
    lifeline.recv(1)
    os._exit(1)


class SharedBuffers:
    """The buffers of a job in shared memory, copied or lent."""

    def __init__(self, arena: Arena, lent: LentBlocks) -> None:
        self._arena, self._lent = arena, lent

    def view(self, offset: int, size: int) -> Any:
        """Return a block to copy."""
        return self._arena.view(offset, size)

    def lend(self, offset: int, size: int) -> Any:
        """Return a block that the job may keep."""
        return self._lent.add(self._arena.lend(offset, size))


class StreamedBuffers(SharedBuffers):
    """The buffers of a job while the parent still copies them in, one after the other."""

    _seen_bytes = 0

    def view(self, offset: int, size: int) -> Any:
        """Return a block, copied while it arrives."""
        base_bytes = self._seen_bytes
        self._seen_bytes += size
        return self._arena.claims.drain(offset, size, base_bytes)

    def lend(self, offset: int, size: int) -> Any:
        """Return a block that the job may keep, once it is complete."""
        self._seen_bytes += size
        self._arena.claims.await_filled(self._seen_bytes)
        return super().lend(offset, size)


class Worker:
    """The state of the worker process. Ownership: the socket and the mapping of the arena."""

    def __init__(self, job_socket: socket.socket, arena: Arena, may_spin: bool) -> None:
        self._socket = job_socket
        self._arena = arena
        self._claims = arena.claims
        self._may_spin = may_spin
        self._running = 0
        # the number of the job that was interrupted last
        self._interrupted = 0
        self._functions: dict[bytes, Callable[..., Any]] = {}
        # blocks that jobs still keep, and the numbers of jobs that have released all of theirs
        self._keeping: dict[int, LentBlocks] = {}
        self._released: deque[int] = deque()
        self._result_top = arena.from_worker[0]
        self._results_placed = 0

    def on_interrupt(self, signum: int, frame: FrameType | None) -> None:
        """Handle SIGINT: raise once in the job that the table of claims names, if that job is running."""
        if self._running:
            self._check_interrupt(self._running)

    def _check_interrupt(self, number: int) -> None:
        if self._claims.interrupted == number != self._interrupted:
            self._interrupted = number
            raise JobInterrupted

    def prepare(self, options: WorkerOptions) -> bool:
        """Import, initialize and report the result to the parent. Return whether the worker is ready."""
        self._running = PREPARING
        try:
            for name in options.preload:
                __import__(name)
            initializer = options.initializer
            if initializer is not None:
                (resolve_name(initializer) if isinstance(initializer, str) else initializer)()
            # only now: a worker starts at full speed, for jobs may wait for it
            os.nice(options.nice)
            self._running = 0
        except BaseException as problem:
            self._running = 0
            self._tell(0, Status.UNFIT, dump(describe_error(problem)))
            return False
        self._tell(0, Status.READY)
        return True

    def serve(self) -> None:
        """Run jobs until the socket ends."""
        frames, fd, spin, is_soon = FrameReader(JOB), self._socket.fileno(), AdaptiveSpin(), False
        while True:
            while self._released:
                number = self._released.popleft()
                del self._keeping[number]
                self._tell(number, Status.RELEASED)
            asked_ns = monotonic_ns()
            spins = self._may_spin and is_soon and spin.should_spin()
            data = receive(fd, SPIN_NS if spins else 0)
            if spins:
                spin.found(data is not None)
            if data is None:
                data = self._socket.recv(RECEIVE_BYTES)
            if not data:
                return
            is_soon = monotonic_ns() - asked_ns < SOON_NS
            for head, body, start, end in frames.feed(data):
                if self._claims.take(head[1]):
                    self._run(head, body, start, end)
            del data

    def _run(self, head: tuple[int, ...], body: bytes, start: int, end: int) -> None:
        began_ns, lent = monotonic_ns(), LentBlocks()
        try:
            status, answer = self._answer(head, body, start, end, lent)
        except JobInterrupted:
            # the interrupt came between two statements of the worker itself: the job ends all the same
            status, answer = Status.INTERRUPTED, NOTHING
        self._running = 0
        number, content = head[1], self._placed(answer)
        # the result is copied: blocks lent to the job may be released with their last reference
        del answer
        keeps = bool(head[3]) and lent.are_kept(lambda: self._released.append(number))
        if keeps:
            self._keeping[number] = lent
        self._send(number, status, content, began_ns, keeps)

    def _answer(
        self, head: tuple[int, ...], body: bytes, start: int, end: int, lent: LentBlocks
    ) -> tuple[Status, Pickled]:
        _, number, fn_bytes, buffer_count, flags = head
        try:
            fn, args, kwargs, carried = self._read(body, start, fn_bytes, end, buffer_count, flags, lent)
        except Exception as problem:
            return Status.ERROR, dump(describe_error(_unreadable(problem)))
        try:
            self._running = number
            self._check_interrupt(number)
            if carried is not None:
                result = run_in_context(carried, fn, args, kwargs)
            else:
                result = fn(*args, **kwargs)
            self._running = 0
        except JobInterrupted:
            return Status.INTERRUPTED, NOTHING
        except BaseException as problem:
            self._running = 0
            return Status.ERROR, dump(describe_error(problem))
        try:
            return Status.RESULT, dump(result)
        except Exception as problem:
            return Status.ERROR, dump(
                describe_error(fault(f"{function_name(fn)}: its result cannot be sent back", result, problem))
            )

    def _read(
        self, body: bytes, start: int, fn_bytes: int, end: int, buffer_count: int, flags: int, lent: LentBlocks
    ) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]:
        source = StreamedBuffers(self._arena, lent) if flags & FILLING else SharedBuffers(self._arena, lent)
        item = load(*unpack(body, start + fn_bytes, end, buffer_count, source.view, source.lend))
        if not flags & WHOLE:
            return self._function(body[start : start + fn_bytes]), item, {}, None
        fn, args, kwargs, carried = item
        return fn, args, kwargs or {}, carried

    def _function(self, name: bytes) -> Callable[..., Any]:
        fn = self._functions.get(name)
        if fn is None:
            if len(self._functions) >= KNOWN_FUNCTIONS:
                self._functions.clear()
            fn = self._functions[name] = loads(name)
        return fn

    def _tell(self, number: int, status: Status, item: Pickled = NOTHING) -> None:
        self._send(number, status, self._placed(item))

    def _placed(self, item: Pickled) -> Content:
        # the parent reads results in order: once it has read all of them, the whole area is free
        if self._claims.results_read == self._results_placed:
            self._result_top = self._arena.from_worker[0]
        content = lay_out(item, self._take, self._arena.put)
        if content.blocks:
            self._results_placed += 1
        return content

    def _take(self, size: int) -> int | None:
        offset = self._result_top
        if offset + size > self._arena.from_worker[1]:
            return None
        self._result_top = offset + (size + 63) // 64 * 64
        return offset

    def _send(self, number: int, status: Status, content: Content, began_ns: int = 0, keeps: bool = False) -> None:
        ran_ns = monotonic_ns() - began_ns if began_ns else 0
        parts, buffer_count = content.parts, content.buffer_count
        head = RESULT.pack(sum(map(len, parts)), number, began_ns, ran_ns, buffer_count, status, keeps)
        self._socket.sendall(b"".join([head, *parts]))


def _unreadable(problem: Exception) -> UnpicklableError:
    return UnpicklableError(
        f"the call cannot be loaded in the worker: {problem}; "
        "define all that it uses in a module that workers can import"
    )
