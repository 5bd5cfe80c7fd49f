"""The server of attach sockets without native code: one thread, which answers only with the GIL."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from penstock.runtime.supervisor.control import ControlServer, PendingAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock._core.tasks.heartbeat import Heartbeat
    from penstock.runtime.attach.attachsocket import AttachSocket
    from penstock.runtime.attach.commands import AttachCommands
    from penstock.runtime.attach.messages import LaterAnswer
    from penstock.runtime.attach.role import ProcessRole

__all__ = ["PlainServing"]

# while an answer is due later
POLL_S = 0.05


class PlainServing:
    """The server of one process. Ownership: its socket; a server over a copy of it while it runs."""

    def __init__(self, role: ProcessRole, actions: bool, made: AttachSocket) -> None:
        self._socket = made
        self._role, self._actions = role, actions
        self._commands: AttachCommands | None = None
        self._ends = threading.Event()

    def run(self, is_stopping: threading.Event) -> None:
        """Serve until `stop`."""
        self._ends.clear()
        if is_stopping.is_set():
            return
        server = ControlServer(self._answer, self._socket.listener.dup())
        self._socket.publish()
        self._ends.wait()
        server.close()

    def _answer(self, message: Mapping[str, object]) -> Mapping[str, object] | PendingAnswer:
        from penstock.runtime.attach.commands import AttachCommands, error_text, with_facts
        from penstock.runtime.attach.messages import LaterAnswer
        from penstock.runtime.attach.pace import Pace

        if self._commands is None:
            self._commands = AttachCommands(actions=self._actions, role=self._role)
        try:
            found = self._commands(message, Pace())
        except Exception as error:
            return {"ok": False, "version": 1, "error": error_text(error)}
        if not isinstance(found, LaterAnswer):
            return with_facts(found)
        pending = PendingAnswer()
        threading.Thread(target=self._answer_later, args=(found, pending), daemon=True).start()
        return pending

    def _answer_later(self, later: LaterAnswer, pending: PendingAnswer) -> None:
        from penstock.runtime.attach.commands import error_text, with_facts

        try:
            while (answer := later.poll()) is None and not self._ends.wait(POLL_S):
                pass
            pending.give(with_facts(answer or {}))
        except Exception as error:
            pending.give({"ok": False, "version": 1, "error": error_text(error)})
        finally:
            later.end()

    def stop(self) -> None:
        """Make `run` return."""
        self._ends.set()

    def close(self) -> None:
        """Close everything, and remove the file unless another process has made it anew."""
        self._socket.close()

    def forked(self) -> None:
        """Close everything in a forked child. The file is the parent's."""
        self._socket.close_listener()

    def follow(self, heartbeat: Heartbeat, name: str) -> None:
        """Do nothing: there is no heartbeat without native code."""

    def unfollow(self, heartbeat: Heartbeat) -> None:
        """Do nothing."""
