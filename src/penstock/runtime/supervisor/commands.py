"""The commands of the control socket, carried out by the supervisor: workers, scale, reload, stop, stacks."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from penstock.runtime.supervisor.control import PendingAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from penstock.runtime.supervisor.supervisor import Supervisor

__all__ = ["Commands"]

# the supervisor's thread makes a call within a moment
CALL_S = 5.0
# until the workers have written their stacks
STACKS_S = 0.3

Answer = dict[str, object]


class Commands:
    """The answers to messages of the control socket. Called in its thread; raises ValueError for a bad message."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._known: dict[str, Callable[[Mapping[str, object]], Answer | PendingAnswer]] = {
            "workers": self._workers,
            "scale": self._scale,
            "reload": self._reload,
            "stop": self._stop,
            "stacks": self._stacks,
        }

    def __call__(self, message: Mapping[str, object]) -> Answer | PendingAnswer:
        """Return the answer to a message, or the answer that will be given."""
        command = self._known.get(str(message.get("command")))
        if command is None:
            raise ValueError(f"unknown command {message.get('command')!r}: {', '.join(self._known)} are known")
        return command(message)

    def _call(self, function: Callable[[], Any]) -> Any:
        return self._supervisor.call(function).result(CALL_S)

    def _workers(self, message: Mapping[str, object]) -> Answer:
        return {"ok": True, "pid": os.getpid(), **self._call(self._supervisor.snapshot)}

    def _scale(self, message: Mapping[str, object]) -> Answer:
        count = message.get("count")
        if not isinstance(count, int) or isinstance(count, bool):
            raise ValueError(f"count = {count!r}: a whole number is needed")
        self._call(lambda: self._supervisor.scale(count))
        return {"ok": True, "count": count}

    def _reload(self, message: Mapping[str, object]) -> PendingAnswer:
        pending = PendingAnswer()
        future: Future[str] = self._call(self._supervisor.reload)

        def done(future: Future[str]) -> None:
            reason = future.result()
            number = self._supervisor.generation_number
            pending.give({"ok": False, "error": reason} if reason else {"ok": True, "generation": number})

        future.add_done_callback(done)
        return pending

    def _stop(self, message: Mapping[str, object]) -> Answer:
        self._call(self._supervisor.stop)
        return {"ok": True}

    def _stacks(self, message: Mapping[str, object]) -> PendingAnswer:
        pending = PendingAnswer()
        self._call(self._supervisor.ask_stacks)
        timer = threading.Timer(STACKS_S, lambda: pending.give({"ok": True, "stacks": self._taken()}))
        timer.daemon = True
        timer.start()
        return pending

    def _taken(self) -> object:
        return self._call(self._supervisor.take_stacks)
