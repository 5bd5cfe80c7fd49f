"""The commands of the attach socket: a line of JSON in, the object of the answer out."""

from __future__ import annotations

import gc
import json
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from penstock.pressure.admission.registry import registered
from penstock.runtime.attach import tasks
from penstock.runtime.attach.events import CancellationsRequest, FindingsRequest, TraceRequest, finding_hub
from penstock.runtime.attach.messages import VERSION, BadMessage, LaterAnswer, whole, word
from penstock.runtime.attach.plain import short_name
from penstock.runtime.attach.process import process_facts
from penstock.runtime.attach.role import ProcessRole
from penstock.runtime.attach.snapshot import loop_facts, process_snapshot
from penstock.tasks.observers.registry import LEVELS, observed_loops

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock.runtime.attach.pace import Pace

__all__ = ["CHANGES", "AttachCommands", "answer_line", "error_line", "error_text", "with_facts"]

logger = logging.getLogger("penstock.monitor")

MOST_SITES = 1000
MOST_LIMIT = 1_000_000
# commands that change something: their answer confirms the change, so it is never partial
CHANGES = frozenset({"level", "cancel", "gc", "set-limit"})

Answer = dict[str, Any]


class AttachCommands:
    """The answers to messages. Raises BadMessage, PermissionError for an action that is not allowed.

    `actions` is whether monitors may act on the process, `role` the role of the process.
    """

    def __init__(self, *, actions: bool = False, role: ProcessRole = ProcessRole()) -> None:  # noqa: B008 (frozen)
        self.actions, self.role = actions, role
        finding_hub.listen()
        self._known: dict[str, Callable[[Mapping[str, Any], Pace], Answer | LaterAnswer]] = {
            "about": self._about,
            "snapshot": self._snapshot,
            "tasks": self._tasks,
            "task": lambda message, pace: tasks.one_task(pace, message),
            "graph": lambda message, pace: tasks.await_graphs(pace, message.get("loop")),
            "stacks": lambda _, pace: tasks.stacks(pace),
            "trace": lambda message, _: TraceRequest(message),
            "findings": lambda message, _: FindingsRequest(message),
            "cancellations": lambda message, _: CancellationsRequest(message),
            "level": self._level,
            "cancel": self._cancel,
            "gc": self._gc,
            "set-limit": self._set_limit,
        }

    def __call__(self, message: Mapping[str, Any], pace: Pace) -> Answer | LaterAnswer:
        """Return the answer to a message, or the answer that will be given."""
        command = self._known.get(str(message.get("command")))
        if command is None:
            known = ", ".join(self._known)
            raise BadMessage(f"unknown command {str(message.get('command'))[:40]!r}: {known} are known")
        return command(message, pace)

    def _facts(self) -> Answer:
        return process_facts(self.role, actions=self.actions)

    def _about(self, _: Mapping[str, Any], pace: Pace) -> Answer:
        loops = [loop_facts(loop, observer) for loop, observer in pace.over(observed_loops())]
        return {"process": self._facts(), "loops": loops}

    def _snapshot(self, message: Mapping[str, Any], pace: Pace) -> Answer:
        sites = whole(message, "sites", 50, 0, MOST_SITES)
        return {"process": self._facts(), **process_snapshot(pace, sites), "mark": finding_hub.mark()}

    def _tasks(self, message: Mapping[str, Any], pace: Pace) -> Answer:
        if message.get("tree"):
            return tasks.tree(pace, message)
        if message.get("group") is None:
            return tasks.listed(pace, message)
        if word(message, "group", None, ("site", "stack")) == "site":
            return tasks.grouped_by_site(pace, message)
        return tasks.await_graphs(pace, message.get("loop"))

    def _level(self, message: Mapping[str, Any], _: Pace) -> Answer:
        level = word(message, "level", None, LEVELS)
        for _loop, observer in observed_loops():
            observer.set_level(level)
        return {"level": level}

    # --- actions

    def _cancel(self, message: Mapping[str, Any], _: Pace) -> Answer:
        self._check_allowed("cancel")
        loop, observer, record, task = tasks.task_numbered(message.get("number"))
        loop.call_soon_threadsafe(task.cancel, "cancelled by a monitor")
        return {"done": f"task {record.number} {short_name(record.name)!r} of {observer.name} is cancelled"}

    def _gc(self, _: Mapping[str, Any], __: Pace) -> Answer:
        self._check_allowed("gc")
        began_s = time.monotonic()
        count = gc.collect()
        return {"done": f"{count} unreachable objects collected in {time.monotonic() - began_s:.3f} s"}

    def _set_limit(self, message: Mapping[str, Any], _: Pace) -> Answer:
        self._check_allowed("set-limit")
        limit = whole(message, "limit", None, 1, MOST_LIMIT)
        gate = next((each for each in registered() if each.name == message.get("gate")), None)
        if gate is None:
            names = ", ".join(short_name(each.name) for each in registered()) or "none"
            raise BadMessage(f"no gate {str(message.get('gate'))[:40]!r}; there are: {names}")
        resize: Any = gate
        if gate.loop is None:
            resize.resize(limit)
        else:
            gate.loop.call_soon_threadsafe(resize.resize, limit)
        return {"done": f"gate {short_name(gate.name)!r} has the limit {limit}"}

    def _check_allowed(self, command: str) -> None:
        if not self.actions:
            raise PermissionError(f"{command} is an action: the process allows none (monitor.actions is false)")


def with_facts(answer: Mapping[str, Any]) -> Answer:
    """Return an answer with the facts that all of them have."""
    now = {"at_s": time.monotonic(), "wall_time_s": time.time()}
    return {"ok": True, "version": VERSION, "partial": False, "pid": os.getpid(), **now, **answer}


def answer_line(answer: Mapping[str, Any], pace: Pace) -> bytes:
    """Return the line of an answer. A long list is encoded item by item."""
    try:
        pieces = [f"{json.dumps(key)}:{_encoded(value, pace)}" for key, value in with_facts(answer).items()]
        return b"{" + ",".join(pieces).encode() + b"}\n"
    except (TypeError, ValueError, RecursionError) as error:
        return error_answer(f"the answer has no JSON text: {error}")


def _encoded(value: Any, pace: Pace) -> str:
    if isinstance(value, list) and len(value) > 1:
        return "[" + ",".join([_encoded(item, pace) for item in pace.over(value)]) + "]"
    if isinstance(value, dict) and any(isinstance(item, list) for item in value.values()):
        return "{" + ",".join([f"{json.dumps(key)}:{_encoded(item, pace)}" for key, item in value.items()]) + "}"
    return json.dumps(value, default=str)


def error_line(error: Exception) -> bytes:
    """Return the line of an answer that failed."""
    return error_answer(error_text(error))


def error_text(error: Exception) -> str:
    """Return the text of our own errors, of others the class alone: their text may quote data."""
    if isinstance(error, BadMessage | PermissionError):
        return str(error)
    logger.debug("a monitor's question failed", exc_info=error)
    return f"{type(error).__name__} in the answer; the log of penstock.monitor has it at DEBUG"


def error_answer(reason: str) -> bytes:
    """Return the line of an error."""
    return json.dumps({"ok": False, "version": VERSION, "error": " ".join(reason.split())[:500]}).encode() + b"\n"
