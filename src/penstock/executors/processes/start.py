"""Starts a worker process, by `multiprocessing`'s own ways, and learns how it ended.

Two sockets go with it: one for the jobs, and a lifeline, which carries nothing: its end tells the kernel that the
parent is gone. Starting blocks for milliseconds, the first forkserver for much longer: it is done in a thread.

Ownership: a `Hatched` owns the parent's ends, its mapping of the arena and the process record until `release`.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import reduction
from typing import TYPE_CHECKING, Any

from penstock.executors.processes.shared_memory import Arena, new_memory
from penstock.executors.processes.worker import WorkerOptions, main

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["UNGUARDED_CODE", "ChildProcess", "UnguardedMain", "end_if_main_is_imported", "start_worker"]

# Imported once, in the forkserver: each worker is forked from there with all of it. The second comes before what a
# lane adds: it imports that.
OWN_PRELOAD = ["__main__", "penstock.executors.processes.forkserver", "penstock.executors.processes.worker"]
END_STEP_S = 0.005
END_TRIES = 100
# One start at a time; and no fork of this process meanwhile, whose child would find multiprocessing's locks taken.
_start_lock = threading.RLock()


# no shell's, no signal's, none of sysexits.h
UNGUARDED_CODE = 117


class UnguardedMain(RuntimeError):
    """Why no worker of a lane starts: `__main__` runs the program wherever it is imported."""

    def __init__(self) -> None:
        super().__init__(
            "the main module starts the program when a worker imports it: put what starts it, such as "
            "penstock.run(main()), under `if __name__ == '__main__':`"
        )


def end_if_main_is_imported() -> None:
    """End this process if it is a worker of ours, or a forkserver, that is importing the program's main module."""
    process = multiprocessing.process.current_process()
    if getattr(process, "_inheriting", False) and process.name.startswith(("penstock-", "MainProcess")):
        os._exit(UNGUARDED_CODE)


class ChildProcess:
    """A worker process as its parent holds it. `sentinel` becomes readable when it has ended.

    The sentinel is a descriptor of the process where the system has such. `multiprocessing`'s own is a pipe, which
    also ends when the forkserver does, and which only tells the exit code.
    """

    def __init__(self, process: Any, job_socket: socket.socket, lifeline: socket.socket, arena: Arena) -> None:
        self.process = process
        self.pid: int = process.pid
        self._pidfd = _pidfd(self.pid)
        self.sentinel: int = process.sentinel if self._pidfd is None else self._pidfd
        self.socket = job_socket
        self.arena = arena
        self._lifeline = lifeline
        self._code: int | None = None
        self._is_forked_elsewhere = getattr(process, "_start_method", None) == "forkserver"

    def signal(self, number: int) -> None:
        """Send a signal; nothing if it has ended."""
        with suppress(ProcessLookupError, PermissionError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            elif self.is_alive():
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it now, and with it what its jobs have started and left in its process group."""
        if self.is_alive():
            # no such group: it has not come to make its own yet
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self.signal(signal.SIGKILL)

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        if self._pidfd is not None:
            return not _events(self._pidfd)
        if not self.has_no_record():
            return self.process.exitcode is None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def has_no_record(self) -> bool:
        """Whether the forkserver, which alone can tell how it ends, is gone."""
        if not self._is_forked_elsewhere:
            return False
        events = _events(self.process.sentinel)
        return events != 0 and not events & select.POLLIN

    def exit_code(self) -> int | None:
        """As `multiprocessing`'s: negative for a signal; None while, or because, it is not known."""
        if self._code is None and not self.has_no_record():
            self._code = self.process.exitcode
        return self._code

    def release(self, *, kill: bool = False) -> None:
        """Give everything back. An idle worker ends by itself when its socket does; `kill` ends any."""
        if kill:
            self.kill()
        self.socket.close()
        self._lifeline.close()
        self.arena.close()
        if self._pidfd is not None:
            pidfd, self._pidfd = self._pidfd, None
            os.close(pidfd)

    def reap(self, timeout_s: float) -> None:
        """Wait for the end of a process that is about to end, so that no zombie stays; kill it if it does not."""
        process = self.process
        process.join(timeout_s)
        if process.exitcode is None:
            self.signal(signal.SIGKILL)
            process.join(timeout_s)
        self.close_record()

    def close_record(self) -> None:
        """Give the process record back, once the process has ended."""
        try:
            self.process.close()
        except ValueError:
            pass  # it runs on, against all odds; its record goes with us


def _events(fd: int) -> int:
    """What a descriptor has to tell, of any number: `select` refuses those from 1024 on."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return sum(events for _, events in poll.poll(0))


def _pidfd(pid: int) -> int | None:
    """A descriptor of the process; None where there is no such, or the process is gone."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


class Handover:
    """What a new process inherits: pickled while it is started, when descriptors can be handed over."""

    def __init__(
        self,
        job_socket: socket.socket,
        lifeline: socket.socket,
        memory_fd: int,
        options: WorkerOptions,
        *parents: socket.socket,
    ) -> None:
        self._sockets = job_socket, lifeline
        self._memory_fd = memory_fd
        self.options = options
        # the other ends, which a process made by fork must not keep open
        self._parents = parents

    def __reduce__(self) -> Any:
        fds = [reduction.DupFd(fd) for fd in (*(end.fileno() for end in self._sockets), self._memory_fd)]
        return _received, (fds, self.options)

    def run(self) -> None:
        """The worker's whole life; in a process made by fork, with the very objects."""
        for end in self._parents:
            end.close()
        main(*self._sockets, self._memory_fd, self.options)


def _received(fds: list[Any], options: WorkerOptions) -> Handover:
    first, second, memory_fd = (fd.detach() for fd in fds)
    return Handover(socket.socket(fileno=first), socket.socket(fileno=second), memory_fd, options)


def _live(handover: Handover) -> None:
    handover.run()


def start_worker(start: str, name: str, arena_bytes: int, options: WorkerOptions) -> ChildProcess | Exception:
    """A new worker, or why there is none. Blocks."""
    end_if_main_is_imported()
    try:
        return _start_process(start, name, arena_bytes, options)
    except Exception as problem:
        return problem


def _start_process(start: str, name: str, arena_bytes: int, options: WorkerOptions) -> ChildProcess:
    context = multiprocessing.get_context(start)
    ours, theirs = socket.socketpair()
    lifeline, lifeline_theirs = socket.socketpair()
    memory_fd = new_memory(arena_bytes)
    arena = None
    try:
        arena = Arena(memory_fd)
        process = _started(context, name, Handover(theirs, lifeline_theirs, memory_fd, options, ours, lifeline))
    except BaseException:
        for end in (ours, lifeline):
            end.close()
        if arena is not None:
            arena.close()
        raise
    finally:
        theirs.close()
        lifeline_theirs.close()
        os.close(memory_fd)
    ours.setblocking(False)
    return ChildProcess(process, ours, lifeline, arena)


def _started(context: BaseContext, name: str, handover: Handover) -> Any:
    options = handover.options
    with _start_lock:
        if context.get_start_method() == "forkserver":
            # heard only by a forkserver that does not run yet; a worker imports what it lacks itself
            context.set_forkserver_preload([*OWN_PRELOAD, *options.preload])
        process = context.Process(target=_live, args=(handover,), name=name)  # type: ignore[attr-defined]
        try:
            process.start()
        except (EOFError, ConnectionError) as problem:
            if _forkserver_code() == UNGUARDED_CODE:
                raise UnguardedMain from None
            if not isinstance(problem, EOFError):
                raise
            # A signal for a whole service has met the forkserver before it could outlive one: to be tried again, as
            # any start that the system has failed.
            raise ConnectionResetError("the forkserver ended before it had started the worker") from None
        # Ours alone to watch: another's poll of its sentinel would take the exit code away. Nor is it joined at
        # exit by multiprocessing: its lane ends it.
        getattr(multiprocessing.process, "_children", set()).discard(process)
    return process


def _forkserver_code() -> int | None:
    """The exit code of a forkserver that has just ended, left for multiprocessing to collect; None if it has not."""
    server: Any = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    with suppress(OSError, TypeError):
        # its end of a socket is closed a moment before it has ended
        for _ in range(END_TRIES):
            ended = os.waitid(os.P_PID, server._forkserver_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                return ended.si_status
            time.sleep(END_STEP_S)
    return None


def _forget_forkserver() -> None:
    """In a forked child: multiprocessing's forkserver is the parent's. The child has one of its own when it needs it,
    and does not keep the parent's running."""
    module = sys.modules.get("multiprocessing.forkserver")
    server: Any = getattr(module, "_forkserver", None)
    if server is None or getattr(server, "_forkserver_pid", None) is None:
        return
    told = {name: value for name, value in vars(server).items() if name.startswith("_preload")}
    with suppress(OSError):
        os.close(server._forkserver_alive_fd)
    server.__init__()
    vars(server).update(told)


def _before_fork() -> None:
    _start_lock.acquire()


def _after_fork_here() -> None:
    _start_lock.release()


def _after_fork() -> None:
    global _start_lock
    _start_lock = threading.RLock()
    _forget_forkserver()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_here,
        after_in_child=_after_fork,
    )
