"""The processes that a view shows, and one question to one of them."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from penstock.monitor.client import AttachedProcess
from penstock.pidfd import open_pidfd
from penstock.runtime.supervisor.control_client import ask, supervisors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AttachedConnection", "AttachedSource", "ProcessSource", "ProcessTarget", "attached_source"]

Answer = dict[str, Any]
# idle connections to one process: as many as threads ask it at a time
MOST_KEPT = 4
# the longest wait for a connection, and for a supervisor's list of workers
CONNECT_S = 2.0


@dataclass(frozen=True, slots=True)
class ProcessTarget:
    """A process that a view shows. `number` is the worker's, None for a process that is no worker."""

    pid: int
    number: int | None = None
    state: str = ""


class ProcessSource(Protocol):
    """The processes of a view. Its methods are called from several threads."""

    def targets(self) -> list[ProcessTarget]:
        """Return the processes that there are now. Raises OSError if that is unknown at the moment."""

    def ask(self, pid: int, command: str, *, within_s: float, **arguments: Any) -> Answer:
        """Return a process's answer. Raises OSError, and PenstockError for a refusal."""


class AttachedConnection(Protocol):
    """One connection to an attach socket: `penstock.monitor.client.AttachedProcess`."""

    pid: int

    def ask(self, command: str, *, within_s: float | None = None, **arguments: Any) -> Answer:
        """Return the answer."""

    def close(self) -> None:
        """Close the connection."""


class AttachedSource:
    """The processes behind attach sockets: one process, or the workers of a supervisor, asked by `workers`.

    `connect(pid)` opens a connection; a few are kept for each process.
    """

    def __init__(
        self,
        pid: int,
        connect: Callable[[int], AttachedConnection],
        workers: Callable[[], list[Answer]] | None = None,
    ) -> None:
        self._pid, self._connect, self._workers = pid, connect, workers
        self._lock = threading.Lock()
        self._idle: dict[int, list[AttachedConnection]] = {}

    def targets(self) -> list[ProcessTarget]:
        """Return the process, or the supervisor's present workers."""
        if self._workers is None:
            return [ProcessTarget(self._pid)] if _is_alive(self._pid) else []
        rows = [row for row in self._workers() if isinstance(row.get("pid"), int)]
        targets = [ProcessTarget(row["pid"], row.get("number"), str(row.get("state") or "")) for row in rows]
        self._forget({target.pid for target in targets})
        return targets

    def ask(self, pid: int, command: str, *, within_s: float, **arguments: Any) -> Answer:
        """Return the answer over a kept connection, or over a new one if the kept one has ended."""
        connection = self._taken(pid)
        if connection is not None:
            with suppress(ConnectionError):
                return self._asked(pid, connection, command, within_s, arguments)
        return self._asked(pid, self._connect(pid), command, within_s, arguments)

    def close(self) -> None:
        """Close the kept connections."""
        self._forget(set())

    def _asked(
        self, pid: int, connection: AttachedConnection, command: str, within_s: float, arguments: dict[str, Any]
    ) -> Answer:
        try:
            answer = connection.ask(command, within_s=within_s, **arguments)
        except BaseException:
            # the answer may still come, and would be taken for the next one
            connection.close()
            raise
        with self._lock:
            idle = self._idle.setdefault(pid, [])
            if len(idle) < MOST_KEPT:
                idle.append(connection)
                return answer
        connection.close()
        return answer

    def _taken(self, pid: int) -> AttachedConnection | None:
        with self._lock:
            idle = self._idle.get(pid)
            return idle.pop() if idle else None

    def _forget(self, but: set[int]) -> None:
        with self._lock:
            gone = [self._idle.pop(pid) for pid in [*self._idle] if pid not in but]
        for connection in [connection for idle in gone for connection in idle]:
            connection.close()


def attached_source(pid: int) -> AttachedSource:
    """Return the source of a process, or of the workers of a supervisor."""

    def connect(pid: int) -> AttachedConnection:
        return AttachedProcess(pid, within_s=CONNECT_S)

    def workers() -> list[Answer]:
        rows = ask(pid, "workers", within_s=CONNECT_S).get("workers")
        return rows if isinstance(rows, list) else []

    return AttachedSource(pid, connect, workers if pid in supervisors() else None)


def _is_alive(pid: int) -> bool:
    pidfd = open_pidfd(pid)
    if pidfd is None:
        return False
    os.close(pidfd)
    return True
