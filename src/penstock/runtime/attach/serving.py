"""The servers of the attach service: one that answers without the GIL too, and one without native code."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from penstock.loop import NATIVE
from penstock.runtime.attach.commands import CHANGES, AttachCommands, answer_line, error_answer, with_facts
from penstock.runtime.attach.events import LaterAnswer, finding_hub
from penstock.runtime.attach.messages import BadMessage, parse_line
from penstock.runtime.attach.pace import Pace
from penstock.runtime.socketfile import SocketFile
from penstock.runtime.supervisor.control import ControlServer, PendingAnswer
from penstock.runtime.supervisor.health.page import new_memory
from penstock.runtime.supervisor.rundir import ATTACH_ENDING, make_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock._core.tasks.heartbeat import Heartbeat
    from penstock.runtime.attach.role import ProcessRole

__all__ = ["AttachServing", "NativeServing", "PlainServing", "make_server"]

logger = logging.getLogger("penstock.monitor")

BACKLOG = 128
# while an answer is due later
POLL_MS = 50
JOIN_S = 1.0
# the supervisor's stack dump has SIGRTMIN + 5
STACK_SIGNAL = getattr(signal, "SIGRTMIN", 0) and signal.SIGRTMIN + 6


class AttachServing(Protocol):
    """A server of attach sockets. `run` serves in the calling thread until `stop`, and can be called again."""

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Serve. `is_stopping` is asked once before."""

    def stop(self) -> None:
        """Have `run` return. Any thread may call it."""

    def close(self) -> None:
        """Close everything, and remove the socket's file, after the end of `run`."""

    def forget(self) -> None:
        """Close everything in a forked child. The file is the parent's."""

    def follow(self, heartbeat: Heartbeat, name: str) -> None:
        """Show this loop while no thread gets the GIL."""

    def unfollow(self, heartbeat: Heartbeat) -> None:
        """Show this loop no more."""


def make_server(role: ProcessRole, actions: bool) -> AttachServing:
    """Return the server of this process. Raises OSError if no socket can be made."""
    commands = AttachCommands(actions=actions, role=role)
    finding_hub.listen()
    listener, file = listen_attach(os.getpid())
    return NativeServing(commands, listener, file) if NATIVE else PlainServing(commands, listener, file)


def listen_attach(pid: int) -> tuple[socket.socket, SocketFile]:
    """Return the listener of a process, which does not block, and its file.

    The file gets its name when the socket listens: one that does not listen counts as a dead process's. Raises OSError,
    in one line, if it cannot be made.
    """
    path = str(make_directory(os.environ) / f"{pid}{ATTACH_ENDING}")
    first_path = f"{path}.new"
    listener = socket.socket(socket.AF_UNIX)
    try:
        with suppress(FileNotFoundError):
            os.unlink(first_path)
        listener.bind(first_path)
        # the directory is private: no umask is needed, which all threads would share
        os.chmod(first_path, 0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        os.rename(first_path, path)
        return listener, SocketFile.at(path)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot make the attach socket {path}: {error.strerror or error}") from None


class NativeServing:
    """The server with native code. Ownership: its listener with the file, its clients, and the memory for stacks."""

    def __init__(self, commands: AttachCommands, listener: socket.socket, file: SocketFile) -> None:
        from penstock._core.monitor.attach import AttachServer

        self._commands, self._listener, self._file = commands, listener, file
        self._server: Any = AttachServer(listener)
        self._later: dict[int, LaterAnswer] = {}
        self._stack_fd = -1
        with suppress(OSError, ValueError, RuntimeError):
            self._use_stacks()

    def _use_stacks(self) -> None:
        """Have faulthandler write stacks at a signal that the program does not use: its C handler needs no GIL."""
        if not STACK_SIGNAL or signal.getsignal(STACK_SIGNAL) is not signal.SIG_DFL:
            return
        self._stack_fd = new_memory("penstock-attach", 0)
        faulthandler.register(STACK_SIGNAL, file=self._stack_fd, all_threads=True, chain=False)
        self._server.use_stacks(STACK_SIGNAL, self._stack_fd)

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Answer clients, which another thread serves, until `stop`."""
        self._server.resume()
        if is_stopping():
            return
        thread = threading.Thread(target=self._server.serve, name="penstock-attach-io", daemon=True)
        thread.pydev_do_not_trace = thread.is_pydev_daemon_thread = True  # type: ignore[attr-defined]
        thread.start()
        while not self._server.is_stopping:
            taken = self._server.take(POLL_MS if self._later else -1)
            if taken is not None:
                self._answer(*taken)
            self._poll()
        thread.join(JOIN_S)

    def _answer(self, number: int, line: bytes) -> None:
        pace = Pace(self._server.tick)
        try:
            message = parse_line(line)
            if message["command"] in CHANGES:
                self._server.hold(number)
            found = self._commands(message, pace)
            if isinstance(found, LaterAnswer):
                self._server.hold(number)
                self._later[number] = found
            else:
                self._server.give(number, answer_line(found, pace))
        except Exception as error:
            self._server.give(number, error_line(error))

    def _poll(self) -> None:
        """Give the answers that are due, and end those of clients that are gone."""
        for number, later in list(self._later.items()):
            try:
                answer = later.poll() if self._server.is_open(number) else {}
                if answer is None:
                    continue
                self._server.give(number, answer_line(answer, Pace(self._server.tick)))
            except Exception as error:
                self._server.give(number, error_line(error))
            del self._later[number]
            later.end()

    def stop(self) -> None:
        """Have `run` return."""
        self._server.stop()

    def close(self) -> None:
        """Close everything, and remove the file unless another process has made it anew."""
        self._file.remove()
        self.forget()

    def forget(self) -> None:
        """Close the descriptors. The signal's handler writes nowhere from now on."""
        for later in self._later.values():
            later.end()
        self._later.clear()
        self._listener.close()
        self._server.use_stacks(0, -1)
        self._server.close_all()
        if self._stack_fd >= 0:
            faulthandler.unregister(STACK_SIGNAL)
            os.close(self._stack_fd)
            self._stack_fd = -1

    def follow(self, heartbeat: Heartbeat, name: str) -> None:
        """Show this loop while no thread gets the GIL."""
        self._server.follow(heartbeat, name)

    def unfollow(self, heartbeat: Heartbeat) -> None:
        """Show this loop no more."""
        self._server.unfollow(heartbeat)


class PlainServing:
    """The server without native code: one thread, which answers only with the GIL. Ownership: as the native one."""

    def __init__(self, commands: AttachCommands, listener: socket.socket, file: SocketFile) -> None:
        self._commands, self._listener, self._file = commands, listener, file
        self._server: ControlServer | None = None
        self._ends = threading.Event()

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Serve until `stop`."""
        self._ends.clear()
        if is_stopping():
            return
        self._server = ControlServer(self._answer, self._listener.dup())
        self._ends.wait()
        self._server.close()

    def _answer(self, message: Mapping[str, object]) -> Mapping[str, object] | PendingAnswer:
        found = self._commands(message, Pace())
        if not isinstance(found, LaterAnswer):
            return with_facts(found)
        pending = PendingAnswer()
        threading.Thread(target=self._answer_later, args=(found, pending), daemon=True).start()
        return pending

    def _answer_later(self, later: LaterAnswer, pending: PendingAnswer) -> None:
        try:
            while (answer := later.poll()) is None:
                if self._ends.wait(POLL_MS / 1000):
                    break
            pending.give(with_facts(answer or {}))
        except Exception as error:
            pending.give({"ok": False, "error": f"{type(error).__name__}: {error}"})
        finally:
            later.end()

    def stop(self) -> None:
        """Have `run` return."""
        self._ends.set()

    def close(self) -> None:
        """Close everything, and remove the file unless another process has made it anew."""
        self._file.remove()
        self._listener.close()

    def forget(self) -> None:
        """Close the descriptors."""
        self._listener.close()

    def follow(self, heartbeat: Heartbeat, name: str) -> None:
        """Do nothing: there is no heartbeat without native code."""

    def unfollow(self, heartbeat: Heartbeat) -> None:
        """Do nothing."""


def error_line(error: Exception) -> bytes:
    """Return the line of an exception: our own text, of others the class alone, for a text may quote data."""
    if isinstance(error, BadMessage | PermissionError):
        return error_answer(str(error))
    logger.debug("a monitor's question failed", exc_info=error)
    return error_answer(f"{type(error).__name__} in the answer; the log of penstock.monitor has it at DEBUG")
