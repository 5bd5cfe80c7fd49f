"""Start of a worker process by `multiprocessing`, and its exit code.

A worker has two sockets: one for jobs, and a lifeline without data, whose end tells the kernel that the parent has
ended. The start blocks for milliseconds, and for much longer with the first forkserver: it runs in a thread.

Ownership: a `ChildProcess` owns the parent's ends, its mapping of the arena and the process record until `release`.
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
from penstock.pidfd import open_pidfd

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["UNGUARDED_CODE", "ChildProcess", "UnguardedMain", "end_if_main_is_imported", "start_worker"]

# Imported once, in the forkserver, from which each worker is forked. The second module imports the modules after it,
# among them those of the lane's config.
OWN_PRELOAD = ["__main__", "penstock.executors.processes.forkserver", "penstock.executors.processes.worker"]
END_STEP_S = 0.005
END_TRIES = 100
# One start at a time, and no fork of this process meanwhile: its child would find multiprocessing's locks taken.
_start_lock = threading.RLock()


# Not a code of a shell, of a signal or of sysexits.h.
UNGUARDED_CODE = 117


class UnguardedMain(RuntimeError):
    """The reason why no worker of a lane starts: the import of `__main__` runs the program.

    A worker imports the main module, and would start workers of its own. `multiprocessing` refuses that in the worker,
    and each worker would print the error. Here the worker exits silently with `UNGUARDED_CODE`, and the parent reports
    once.
    """

    def __init__(self) -> None:
        super().__init__(
            "the main module starts the program when a worker imports it: put what starts it, such as "
            "penstock.run(main()), under `if __name__ == '__main__':`"
        )


def end_if_main_is_imported() -> None:
    """Exit if this process is a worker or a forkserver that is importing the program's main module."""
    process = multiprocessing.process.current_process()
    if getattr(process, "_inheriting", False) and process.name.startswith(("penstock-", "MainProcess")):
        os._exit(UNGUARDED_CODE)


class ChildProcess:
    """A worker process in its parent. `sentinel` becomes readable when it has ended.

    The sentinel is a pidfd where the system has such. `multiprocessing`'s own sentinel is a pipe for the exit code,
    which also ends with the forkserver.
    """

    def __init__(self, process: Any, job_socket: socket.socket, lifeline: socket.socket, arena: Arena) -> None:
        self.process = process
        self.pid: int = process.pid
        self._pidfd = open_pidfd(self.pid)
        self.sentinel: int = process.sentinel if self._pidfd is None else self._pidfd
        self.socket = job_socket
        self.arena = arena
        self._lifeline = lifeline
        self._code: int | None = None
        self._is_forked_elsewhere = getattr(process, "_start_method", None) == "forkserver"

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        with suppress(ProcessLookupError, PermissionError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            elif self.is_alive():
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process and its process group, with all processes that its jobs have left there."""
        if self.is_alive():
            # no such group: the worker has not made its own yet
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self.signal(signal.SIGKILL)

    def is_alive(self) -> bool:
        """Return whether the process has not ended."""
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
        """Return whether the forkserver has ended, which alone can report the exit code."""
        if not self._is_forked_elsewhere:
            return False
        events = _events(self.process.sentinel)
        return events != 0 and not events & select.POLLIN

    def exit_code(self) -> int | None:
        """Return the exit code as `multiprocessing` does, negative for a signal; None if it is not known."""
        if self._code is None and not self.has_no_record():
            self._code = self.process.exitcode
        return self._code

    def release(self, *, kill: bool = False) -> None:
        """Close everything. An idle worker ends with its socket; `kill` ends any worker."""
        if kill:
            self.kill()
        self.socket.close()
        self._lifeline.close()
        self.arena.close()
        if self._pidfd is not None:
            pidfd, self._pidfd = self._pidfd, None
            os.close(pidfd)

    def reap(self, timeout_s: float) -> None:
        """Wait `timeout_s` for the end of an ending process, so that it leaves no zombie; then kill it."""
        process = self.process
        process.join(timeout_s)
        if process.exitcode is None:
            self.signal(signal.SIGKILL)
            process.join(timeout_s)
        self.close_record()

    def close_record(self) -> None:
        """Close the process record of an ended process."""
        try:
            self.process.close()
        except ValueError:
            pass  # the process still runs; its record ends with this process


def _events(fd: int) -> int:
    """Return the events of a descriptor, by `poll`: `select` refuses descriptors from 1024 on."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return sum(events for _, events in poll.poll(0))


class Handover:
    """The objects that a new worker inherits. Pickled during its start, when descriptors can be sent."""

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
        # the parent's ends, which a forked process must not keep open
        self._parents = parents

    def __reduce__(self) -> Any:
        fds = [reduction.DupFd(fd) for fd in (*(end.fileno() for end in self._sockets), self._memory_fd)]
        return _received, (fds, self.options)

    def run(self) -> None:
        """Run the worker until its end. A forked process has the same objects."""
        for end in self._parents:
            end.close()
        main(*self._sockets, self._memory_fd, self.options)


def _received(fds: list[Any], options: WorkerOptions) -> Handover:
    first, second, memory_fd = (fd.detach() for fd in fds)
    return Handover(socket.socket(fileno=first), socket.socket(fileno=second), memory_fd, options)


def _live(handover: Handover) -> None:
    handover.run()


def start_worker(start: str, name: str, arena_bytes: int, options: WorkerOptions) -> ChildProcess | Exception:
    """Start a worker, and block until it is started. Return it, or the exception of a failed start."""
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
            # has an effect only before the forkserver runs; later a worker imports the missing modules itself
            context.set_forkserver_preload([*OWN_PRELOAD, *options.preload])
        process = context.Process(target=_live, args=(handover,), name=name)  # type: ignore[attr-defined]
        try:
            process.start()
        except (EOFError, ConnectionError) as problem:
            if _forkserver_code() == UNGUARDED_CODE:
                raise UnguardedMain from None
            if not isinstance(problem, EOFError):
                raise
            # A signal for the whole service has ended the forkserver before it could ignore signals: try again, as
            # after any start that the system has failed.
            raise ConnectionResetError("the forkserver ended before it had started the worker") from None
        # Only the lane may poll the sentinel: another poll would consume the exit code. Nor may multiprocessing join
        # the process at exit: its lane ends it.
        getattr(multiprocessing.process, "_children", set()).discard(process)
    return process


def _forkserver_code() -> int | None:
    """Return the exit code of a forkserver that has just ended, and leave it for multiprocessing; None if it has
    not."""
    server: Any = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    with suppress(OSError, TypeError):
        # its socket is closed a moment before it has ended
        for _ in range(END_TRIES):
            ended = os.waitid(os.P_PID, server._forkserver_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                return ended.si_status
            time.sleep(END_STEP_S)
    return None


def _forget_forkserver() -> None:
    """Forget multiprocessing's forkserver, in a forked child: it belongs to the parent, and the child must not keep it
    running. The child starts its own when it needs one."""
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
