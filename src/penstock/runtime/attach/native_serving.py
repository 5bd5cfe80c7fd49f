"""The server of attach sockets with native code: it answers while C code holds the GIL, too.

What makes answers is imported when the first client asks.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from penstock._core.monitor.attach import AttachServer
from penstock.runtime.supervisor.health.page import new_memory
from penstock.threads import join_wholly

if TYPE_CHECKING:
    from penstock._core.tasks.heartbeat import Heartbeat
    from penstock.runtime.attach.attachsocket import AttachSocket
    from penstock.runtime.attach.commands import AttachCommands
    from penstock.runtime.attach.messages import LaterAnswer
    from penstock.runtime.attach.role import ProcessRole

__all__ = ["NativeServing"]

logger = logging.getLogger("penstock.monitor")

# while an answer is due later
POLL_MS = 50
JOIN_S = 1.0
START_POLL_S = 0.001
# the supervisor's stack dump has SIGRTMIN + 5
STACK_SIGNAL = getattr(signal, "SIGRTMIN", 0) and signal.SIGRTMIN + 6


class _Interrupted(BaseException):
    """The end of an answer in the middle: the server stops, and answers when it runs again."""


class NativeServing:
    """The server of one process. Ownership: its socket, its clients, and the memory for stacks."""

    def __init__(self, role: ProcessRole, actions: bool, made: AttachSocket) -> None:
        self._socket = made
        self._role, self._actions = role, actions
        self._commands: AttachCommands | None = None
        self._server = AttachServer(made.listener)
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

    def run(self, is_stopping: threading.Event) -> None:
        """Answer clients, which another thread serves, until `stop`."""
        # a former run's thread ends at once; the program may have replaced time.sleep
        until_s = monotonic() + JOIN_S
        while self._server.is_serving and monotonic() < until_s and not is_stopping.wait(START_POLL_S):
            pass
        self._server.resume()
        if self._is_spent() or is_stopping.is_set():
            return
        thread = threading.Thread(target=self._server.serve, name="penstock-attach-io", daemon=True)
        thread.pydev_do_not_trace = thread.is_pydev_daemon_thread = True  # type: ignore[attr-defined]
        thread.start()
        try:
            while not self._server.is_serving and thread.is_alive() and not is_stopping.wait(START_POLL_S):
                pass
            self._socket.publish()
            while not self._server.is_stopping and not is_stopping.is_set():
                self._turn()
        except _Interrupted:
            # the server is stopping: the next run answers
            pass
        finally:
            self._server.stop()
            join_wholly(thread, JOIN_S)

    def _is_spent(self) -> bool:
        """Return whether the program has closed the server's descriptors: a thread that polls them cannot be woken."""
        return self._server.is_serving or self._server.is_stopping

    def _turn(self) -> None:
        taken = self._server.take(POLL_MS if self._later else -1)
        if taken is not None:
            self._answer(*taken)
        if self._later:
            self._poll()

    def _tick(self) -> None:
        """Note that this thread has the GIL, between two pieces of an answer. A fork does not wait for the rest."""
        if self._server.is_stopping:
            raise _Interrupted
        self._server.tick()

    def _answer(self, number: int, line: bytes) -> None:
        from penstock.runtime.attach.commands import CHANGES, answer_line, error_line
        from penstock.runtime.attach.messages import LaterAnswer, parse_line
        from penstock.runtime.attach.pace import Pace

        pace = Pace(self._tick)
        try:
            message = parse_line(line)
            if message["command"] in CHANGES:
                # it is done once, so the answer is not begun again
                pace = Pace(self._server.tick)
                self._server.hold(number)
            found = self._known_commands()(message, pace)
            if isinstance(found, LaterAnswer):
                self._server.hold(number)
                self._later[number] = found
            else:
                self._server.give(number, answer_line(found, pace))
        except Exception as error:
            self._server.give(number, error_line(error))

    def _known_commands(self) -> AttachCommands:
        if self._commands is None:
            from penstock.runtime.attach.commands import AttachCommands

            self._commands = AttachCommands(actions=self._actions, role=self._role)
        return self._commands

    def _poll(self) -> None:
        """Give the answers that are due, and drop the answers of clients that are gone."""
        from penstock.runtime.attach.commands import answer_line, error_line
        from penstock.runtime.attach.pace import Pace

        for number, later in list(self._later.items()):
            try:
                answer = later.poll() if self._server.is_open(number) else {}
                if answer is None:
                    continue
                self._server.give(number, answer_line(answer, Pace(self._tick)))
            except Exception as error:
                self._server.give(number, error_line(error))
            del self._later[number]
            later.end()

    def stop(self) -> None:
        """Make `run` return."""
        self._server.stop()

    def close(self) -> None:
        """Close everything, and remove the file unless another process has made it anew."""
        self._socket.close()
        self._end_later()
        self._close_stacks()
        self._server.close_all()

    def _end_later(self) -> None:
        for later in self._later.values():
            later.end()
        self._later.clear()

    def _close_stacks(self) -> None:
        fd, self._stack_fd = self._stack_fd, -1
        if fd < 0:
            return
        # a handler that the program has set meanwhile stays
        if self._server.leave_stacks():
            faulthandler.unregister(STACK_SIGNAL)
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:penstock-attach"):
                os.close(fd)

    def forked(self) -> None:
        """Close everything in a forked child. The file is the parent's."""
        self._server.forked()
        # not their ends: these take locks that threads of the parent may have held
        self._later.clear()
        self._socket.close_listener()
        self._close_stacks()

    def follow(self, heartbeat: Heartbeat, name: str) -> None:
        """Show this loop while no thread gets the GIL."""
        self._server.follow(heartbeat, name)

    def unfollow(self, heartbeat: Heartbeat) -> None:
        """Show this loop no more."""
        self._server.unfollow(heartbeat)
