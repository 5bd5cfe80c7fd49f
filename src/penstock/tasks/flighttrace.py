"""The flight recorder's events, and their trace file for ui.perfetto.dev.

The format is Chrome's JSON trace, as docs/traces.md describes it. Each loop is a process with three tracks: steps and
callbacks; stalls, collections and findings; executor jobs. A task's life is an asynchronous slice from birth to end.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.tasks.finding_fields import finding_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from penstock.tasks.finding import Finding

__all__ = ["FORMAT", "Event", "about", "finding_record", "headings", "records", "trace", "write"]

# the version of the keys in `otherData`
FORMAT = 1
# kind -> (track, its name); any other kind is an incident
TRACKS = {"step": (1, "loop"), "callback": (1, "loop"), "job": (3, "executor jobs")}
INCIDENTS = (2, "stalls, collections, findings")


class Event(NamedTuple):
    """An event of the flight recorder. `kind` is birth, step, end, callback, stall, shed, job, gc, finding or cancel.

    A task's end has the task's whole life: `at_ns` is its birth.
    """

    # start, on the clock of time.monotonic_ns(), and duration; 0 for an instant
    at_ns: int
    took_ns: int
    kind: str
    # the number of its task (`LiveTask.number`), 0 for none
    task: int
    # for people: a site, a lane, a cause
    text: str


def write(
    path: str | os.PathLike[str], loops: Sequence[tuple[str, Sequence[Event]]], findings: Iterable[Finding] = ()
) -> int:
    """Write the events of each loop, given as (name, events). Return the number of events.

    The file is complete or not written. Raises OSError.
    """
    import json

    beside = f"{os.fspath(path)}.{os.getpid()}.part"
    try:
        with open(beside, "w", encoding="utf-8") as stream:
            json.dump(trace(loops, findings), stream)
        os.replace(beside, path)
    except OSError:
        with suppress(OSError):
            os.unlink(beside)
        raise
    return sum(len(events) for _, events in loops)


def trace(loops: Sequence[tuple[str, Sequence[Event]]], findings: Iterable[Finding] = ()) -> dict[str, Any]:
    """Return the trace of each loop, given as (name, events), as an object of plain JSON."""
    found: list[dict[str, Any]] = []
    for process, (name, events) in enumerate(loops, 1):
        found += headings(process, name)
        found += records(process, events)
    return {"displayTimeUnit": "ms", "otherData": about(findings), "traceEvents": found}


def about(findings: Iterable[Finding] = ()) -> dict[str, Any]:
    """Return the trace's `otherData`: the process, its clocks now, and the findings."""
    return {
        "format": FORMAT,
        "python": sys.version.split()[0],
        "pid": str(os.getpid()),
        "clock": "CLOCK_MONOTONIC",
        "at_s": time.monotonic(),
        "wall_time_s": time.time(),
        "findings": [finding_json(finding) for finding in findings],
    }


def headings(process: int, name: str) -> Iterator[dict[str, Any]]:
    """Yield the records that name a loop and its tracks."""
    yield {"ph": "M", "pid": process, "tid": 0, "name": "process_name", "args": {"name": f"loop {name}"}}
    for track, label in sorted({*TRACKS.values(), INCIDENTS}):
        yield {"ph": "M", "pid": process, "tid": track, "name": "thread_name", "args": {"name": label}}


def finding_record(process: int, finding: Finding, at_ns: int) -> dict[str, Any]:
    """Return the record of a finding: an instant with all of the finding as its arguments."""
    return {
        "ph": "i",
        "s": "p",
        "pid": process,
        "tid": INCIDENTS[0],
        "ts": at_ns / 1e3,
        "name": f"finding: {finding.message}",
        "cat": "finding",
        "args": finding_json(finding),
    }


def records(process: int, events: Sequence[Event]) -> Iterator[dict[str, Any]]:
    """Yield the records of events in their order. A stall that was noted while it lasted has one record, its last."""
    ended = {event.task for event in events if event.kind == "end"}
    stalls = {event.at_ns: event for event in sorted(events) if event.kind == "stall"}
    for event in events:
        if event.kind == "birth":
            if event.task not in ended:
                yield _life("b", process, event, event.at_ns)
        elif event.kind == "end":
            yield _life("b", process, event, event.at_ns)
            yield _life("e", process, event, event.at_ns + event.took_ns)
        elif event.kind != "stall" or stalls[event.at_ns] is event:
            yield _slice(process, event)


def _life(phase: str, process: int, event: Event, at_ns: int) -> dict[str, Any]:
    return {
        "ph": phase,
        "cat": "task",
        "id": event.task,
        "pid": process,
        "tid": 1,
        "ts": at_ns / 1e3,
        "name": event.text,
    }


def _slice(process: int, event: Event) -> dict[str, Any]:
    track, _ = TRACKS.get(event.kind, INCIDENTS)
    name = event.text if event.kind in ("step", "callback") else f"{event.kind}: {event.text}"
    record: dict[str, Any] = {"pid": process, "tid": track, "ts": event.at_ns / 1e3, "name": name, "cat": event.kind}
    if event.task:
        record["args"] = {"task": event.task}
    # an instant of this track, or a slice with its length
    return record | ({"ph": "X", "dur": event.took_ns / 1e3} if event.took_ns else {"ph": "i", "s": "t"})
