"""A process that answers from a script, for the parts of the monitor that ask one."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tests.support.snapshots import Answer

__all__ = ["ScriptedProcess"]


class ScriptedProcess:
    """A process whose snapshots come in turn, the last one for ever. An answer that is an exception is raised.

    `findings` are answered by their mark, `others` by the command; tasks in groups by "stacks".
    """

    # processes that were made and not closed
    opened_count: ClassVar[int] = 0

    def __init__(
        self,
        *taken: Answer | Exception,
        findings: Sequence[Answer] = (),
        others: Mapping[str, Answer | Exception] | None = None,
    ) -> None:
        self.pid = os.getpid()
        self.asked: list[tuple[str, Any]] = []
        self._snapshots, self._findings, self._others = list(taken), list(findings), others or {}
        ScriptedProcess.opened_count += 1

    def ask(self, command: str, *, within_s: float | None = None, **arguments: Any) -> Answer:
        """Return the answer, or raise it."""
        self.asked.append((command, arguments.get("since")))
        answer = self._answer("stacks" if arguments.get("group") else command, arguments.get("since", 0))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _answer(self, command: str, since: int) -> Answer | Exception:
        if command in self._others:
            return self._others[command]
        if command == "snapshot":
            return self._snapshots.pop(0) if len(self._snapshots) > 1 else self._snapshots[0]
        if command == "findings":
            return {"findings": self._findings[since:], "mark": len(self._findings)}
        return {}

    def close(self) -> None:
        """Count the process as closed."""
        ScriptedProcess.opened_count -= 1
