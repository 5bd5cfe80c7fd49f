"""A checkup: some seconds of observation of a process through its attach socket, kept as a history."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.monitor.history import History, Silence

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.monitor.sources import AttachedConnection

__all__ = ["observe", "sample", "state_of"]

# the interval of snapshots: a callback that blocks for half a second is seen in at least one of them
EVERY_S = 0.25
# A process with a running thread answers in 0.1 s, partially if it must. Without an answer for this long it is silent.
SILENT_S = 3.0


def observe(
    process: AttachedConnection,
    seconds: float,
    *,
    every_s: float = EVERY_S,
    silent_s: float = SILENT_S,
    wait: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> History:
    """Return the history of `seconds` of observation, with the findings that the process has kept.

    Raises ConnectionError or ProcessLookupError if the process ends before its first answer.
    """
    history, end_s = History(most=max(2, int(seconds / every_s) + 2)), clock() + seconds
    while True:
        try:
            sample(process, history, silent_s=silent_s)
        except (ConnectionError, ProcessLookupError):
            if history.latest is None:
                raise
            return history
        if clock() >= end_s:
            return history
        wait(min(every_s, max(0.0, end_s - clock())))


def sample(process: AttachedConnection, history: History, *, silent_s: float = SILENT_S) -> None:
    """Add one snapshot and the new findings to the history; without an answer, the silence and its reason."""
    try:
        history.add(process.ask("snapshot", within_s=silent_s))
        found = process.ask("findings", within_s=silent_s, since=history.mark)
    except TimeoutError:
        history.silence = Silence(silent_s, state_of(process.pid))
        return
    if not found.get("partial"):
        history.add_findings(found)


def state_of(pid: int) -> str:
    """Return the kernel's letter for the state of a process; an empty string if it is unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
