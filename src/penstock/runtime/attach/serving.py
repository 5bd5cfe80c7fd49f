"""The servers of the attach service: one that answers without the GIL too, and one without native code."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import threading
import time
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
START_POLL_S = 0.001
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
    made = AttachSocket(os.getpid())
    return NativeServing(commands, made) if NATIVE else PlainServing(commands, made)


class AttachSocket:
    """The listener of this process, which does not block, and its file.

    `publish` gives the file its name, when clients can be served. Raises OSError, in one line, if it cannot be made.
    """

    def __init__(self, pid: int) -> None:
        self._path = str(make_directory(os.environ) / f"{pid}{ATTACH_ENDING}")
        self._first_path = f"{self._path}.new"
        self._file: SocketFile | None = None
        self.listener = socket.socket(socket.AF_UNIX)
        try:
            with suppress(FileNotFoundError):
                os.unlink(self._first_path)
            self.listener.bind(self._first_path)
            # the directory is private: no umask is needed, which all threads would share
            os.chmod(self._first_path, 0o600)
            self.listener.listen(BACKLOG)
            self.listener.setblocking(False)
        except OSError as error:
            self.listener.close()
            reason = f"cannot make the attach socket {self._path}: {error.strerror or error}"
            raise OSError(error.errno, reason) from None

    def publish(self) -> None:
        """Give the file its name, in place of a dead process's file. A second call does nothing."""
        if self._file is None:
            os.rename(self._first_path, self._path)
            self._file = SocketFile.at(self._path)

    def close(self) -> None:
        """Close the listener, and remove the file unless another process has made it anew."""
        self.listener.close()
        if self._file is not None:
            self._file.remove()
        else:
            with suppress(OSError):
                os.unlink(self._first_path)


class NativeServing:
    """The server with native code. Ownership: its socket, its clients, and the memory for stacks."""

    def __init__(self, commands: AttachCommands, made: AttachSocket) -> None:
        from penstock._core.monitor.attach import AttachServer

        self._commands, self._socket = commands, made
        self._server: Any = AttachServer(made.listener)
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
        while not self._server.is_serving and thread.is_alive() and not is_stopping():
            time.sleep(START_POLL_S)
        self._socket.publish()
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
        self._socket.close()
        self.forget()

    def forget(self) -> None:
        """Close the descriptors. The signal's handler writes nowhere from now on."""
        for later in self._later.values():
            later.end()
        self._later.clear()
        self._socket.listener.close()
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

    def __init__(self, commands: AttachCommands, made: AttachSocket) -> None:
        self._commands, self._socket = commands, made
        self._server: ControlServer | None = None
        self._ends = threading.Event()

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Serve until `stop`."""
        self._ends.clear()
        if is_stopping():
            return
        self._server = ControlServer(self._answer, self._socket.listener.dup())
        self._socket.publish()
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
        self._socket.close()

    def forget(self) -> None:
        """Close the descriptors."""
        self._socket.listener.close()

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
