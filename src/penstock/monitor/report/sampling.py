"""Samples of a running process for a report: snapshots, findings and a trace of the same seconds."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from penstock.errors import PenstockError
from penstock.monitor.report.material import Material, identity
from penstock.monitor.report.trace import TraceError, parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock.monitor.sources import AttachedConnection

__all__ = ["sampled"]

# the step of the charts
SNAPSHOT_EVERY_S = 0.5
# the longest wait for the trace after its time; a large one takes a while to arrive
TRACE_PATIENCE_S = 20.0
# of an answer that is partial: the GIL was held
MOST_RETRIES = 3
RETRY_AFTER_S = 0.2
# rows of one answer; the report shows fewer
MOST_SITES = 50
MOST_TASKS = 200


class _TraceReader(threading.Thread):
    """The thread that waits for the trace: its answer comes after the trace's time."""

    def __init__(self, process: AttachedConnection, seconds: float) -> None:
        super().__init__(name="penstock-report-trace", daemon=True)
        self._process = process
        self._seconds = seconds
        self.answer: Mapping[str, Any] = {}
        self.problem = ""

    def run(self) -> None:
        """Ask for the trace."""
        try:
            within_s = self._seconds + TRACE_PATIENCE_S
            self.answer = _whole(self._process, "trace", within_s=within_s, seconds=self._seconds)
        except (OSError, PenstockError) as error:
            self.problem = str(error)
        finally:
            self._process.close()


def sampled(connect: Callable[[], AttachedConnection], pid: int, seconds: float) -> Material:
    """Observe a process for `seconds` and return the material of a report about it.

    `connect` makes a connection. Raises OSError if the process cannot be attached to, or ends before the first answer.
    """
    process = connect()
    try:
        first = process.ask("snapshot", sites=MOST_SITES)
        material = Material(_name(pid, first), time.time())
        material.history.add(first)
        reader = _TraceReader(connect(), seconds)
        reader.start()
        _observe(process, material, seconds)
        _ask_tasks(process, material)
        reader.join(TRACE_PATIENCE_S)
        _take_trace(reader, material)
    finally:
        process.close()
    return material


def _name(pid: int, snapshot: Mapping[str, Any]) -> str:
    name = (snapshot.get("process") or {}).get("name")
    return f"{name}, process {pid}" if name else f"process {pid}"


def _observe(process: AttachedConnection, material: Material, seconds: float) -> None:
    """Take snapshots and findings until the time is up, or the process has ended."""
    begin_s = time.monotonic()
    count = 0
    try:
        _take_findings(process, material, is_first=True)
        while (now_s := time.monotonic()) < begin_s + seconds:
            count += 1
            time.sleep(max(0.0, min(begin_s + count * SNAPSHOT_EVERY_S, begin_s + seconds) - now_s))
            material.history.add(process.ask("snapshot", sites=MOST_SITES))
            _take_findings(process, material, is_first=False)
    except (OSError, PenstockError) as error:
        material.missing.append(f"The observation ended early: {error}.")


def _take_findings(process: AttachedConnection, material: Material, *, is_first: bool) -> None:
    answer = process.ask("findings", since=material.history.mark)
    if answer.get("partial"):
        return
    material.history.add_findings(answer)
    if not is_first:
        # findings of the first answer may be old: the time of their detection is unknown
        for found in answer.get("findings") or ():
            material.seen_s.setdefault(identity(found), answer.get("at_s") or 0.0)


def _ask_tasks(process: AttachedConnection, material: Material) -> None:
    try:
        material.tasks = _whole(process, "tasks", sort="age", descending=True, limit=MOST_TASKS)
        material.stacks = _whole(process, "tasks", group="stack")
    except (OSError, PenstockError) as error:
        material.missing.append(f"The tasks could not be read: {error}.")
    if material.tasks.get("partial") or material.stacks.get("partial"):
        material.missing.append(f"The tasks could not be read: {material.tasks.get('reason') or 'the GIL was held'}.")


def _whole(
    process: AttachedConnection, command: str, *, within_s: float | None = None, **arguments: object
) -> dict[str, Any]:
    """Return the answer to a command; ask again if it is partial, as during a garbage collection."""
    answer = process.ask(command, within_s=within_s, **arguments)
    for _ in range(MOST_RETRIES):
        if not answer.get("partial"):
            break
        time.sleep(RETRY_AFTER_S)
        answer = process.ask(command, within_s=within_s, **arguments)
    return answer


def _take_trace(reader: _TraceReader, material: Material) -> None:
    problem = reader.problem
    if not problem and reader.answer.get("partial"):
        problem = str(reader.answer.get("reason") or "the GIL was not available")
    if not problem and "trace" in reader.answer:
        try:
            material.trace = parsed(reader.answer["trace"])
        except TraceError as error:
            problem = str(error)
    elif not problem:
        problem = "it did not arrive in time"
    if problem:
        material.missing.append(f"The trace could not be read: {problem}.")
