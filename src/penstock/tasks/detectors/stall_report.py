"""The finding of a stall: the stack of the loop's thread, the task, the cause and the numbers.

Knows what the watchdog measured, not how. Time in a debugger is no stall.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from dataclasses import replace
from functools import lru_cache
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.tasks.awaits.frames import frame_of_thread, outward, place_lines, short_repr, user_place
from penstock.tasks.detectors.blocking_calls import CallSite, call_site, called_name, name_call
from penstock.tasks.detectors.stall_causes import figures_of, is_held_by_loop
from penstock.tasks.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

    from penstock._core.tasks.rows import StallSighting
    from penstock.tasks.place import Place

__all__ = [
    "Sample",
    "is_stepped",
    "running_task",
    "sample",
    "stall_finding",
    "stands_in_debugger",
    "with_whole_length",
]

# frames that are searched for the program's own code
MOST_DEPTH = 200


class Sample(NamedTuple):
    """The code that the loop's thread runs at one moment."""

    # innermost first, from the running callback on
    places: list[Place]
    # the handle whose callback runs; None if the stall is over
    handle: object
    in_debugger: bool
    # the instruction of the innermost frame; None outside the program's code
    site: CallSite | None = None


def sample(sight: StallSighting) -> Sample:
    """Sample the thread of the sighted loop; an empty sample of a stall that is over.

    Call it first: the loop's thread continues as soon as it has the GIL.
    """
    if sight.watched is None or sight.is_over:
        return Sample([], None, False)
    heartbeat = sight.watched.heartbeat
    frame, handle = frame_of_thread(heartbeat.read().thread_id), heartbeat.running_now()
    # the frames that run the loop are not part of the stall
    places = list(takewhile(_is_inside, islice(outward(frame), MOST_DEPTH)))
    site = call_site(frame) if places else None
    return Sample(places, handle, stands_in_debugger(places) or is_stepped(frame), site)


def _is_inside(place: Place) -> bool:
    return place.function.rpartition(".")[2] != "run_forever"


def running_task(loop: asyncio.AbstractEventLoop | None, handle: object) -> asyncio.Task[Any] | None:
    """Return the task whose step runs: asyncio's current task, else the task whose method the handle calls."""
    task = None if loop is None else asyncio.current_task(loop)
    if task is None:
        task = getattr(getattr(handle, "_callback", None), "__self__", None)
    return task if isinstance(task, asyncio.Task) else None


# --- findings


def stall_finding(sight: StallSighting, cause: str, seen: Sample, loop: str, task: str | None) -> Finding:
    """Return the finding of a stall of the loop named `loop`, in the step of the task named `task`."""
    evidence = figures_of(sight, cause)
    evidence["stack"] = place_lines(seen.places)
    evidence["handle"] = None if seen.handle is None else short_repr(seen.handle)
    evidence["call"] = _blocking_call(sight, evidence, seen)
    site = user_place(seen.places)
    return Finding(
        kind="stall",
        message=_message(evidence, site),
        site=site,
        task=task,
        since_s=sight.since_ns / 1e9,
        wall_time_s=time.time() - (time.monotonic_ns() - sight.since_ns) / 1e9,
        loop=loop,
        evidence=evidence,
    )


def _blocking_call(sight: StallSighting, evidence: dict[str, Any], seen: Sample) -> str | None:
    """Return the name of the call that the thread waits in, or in which it keeps the GIL; None of other stalls."""
    if not evidence["blocked"] and not is_held_by_loop(sight, evidence["cause"]):
        return None
    audited = sight.watched.heartbeat.call(sight.since_ns) if evidence["blocked"] else None
    return name_call(sight, audited, called_name(seen.site))


def with_whole_length(finding: Finding, lasted_ns: int) -> Finding:
    """Return the finding of a stall that has ended, with its whole length."""
    evidence = {**finding.evidence, "lasted_s": lasted_ns / 1e9, "ended": True}
    return replace(finding, message=_message(evidence, finding.site), evidence=evidence)


def _message(evidence: dict[str, Any], site: Place | None) -> str:
    subject, verb = "a callback", "lasted" if evidence["ended"] else "has lasted"
    if evidence["turn"]:
        so_far = "or more " if evidence["ended"] else ""
        subject = "a turn" if evidence["unsampled"] else f"a turn of {evidence['callbacks'] + 1} {so_far}callbacks"
    where = "" if site is None else f" in {site}"
    cause = evidence["cause"] + (", blocked" if evidence["blocked"] else "")
    if evidence["call"] is not None:
        cause += f"{'' if evidence['blocked'] else ','} in {evidence['call']}"
    return f"{subject} {verb} {evidence['lasted_s']:.3f} s{where} ({cause})"


# --- debuggers

# Modules of the standard library, packages, and modules of IPython. Not all of IPython: it runs a notebook's cells.
_STANDARD = re.compile(r"[/\\]python3\.\d+t?[/\\](?:bdb|pdb|cmd|code)\.py$")
# pdb as a tool of sys.monitoring, from Python 3.14 on: frames have no tracer then
BDB_TOOL = "bdbtracer"
_INSTALLED = re.compile(
    r"[/\\](?:debugpy|_pydevd_bundle|_pydevd_frame_eval|pudb|ipdb)[/\\]|[/\\]pydevd\w*\.py$"
    r"|[/\\]IPython[/\\](?:core[/\\]debugger|terminal[/\\](?:debugger|embed))\.py$"
)


@lru_cache(maxsize=4096)
def _is_debuggers(file: str) -> bool:
    return bool(_STANDARD.search(file) or _INSTALLED.search(file))


def stands_in_debugger(places: Iterable[Place]) -> bool:
    """Return whether any of the places is in a debugger's code."""
    return any(_is_debuggers(place.file) for place in places)


def is_stepped(frame: FrameType | None) -> bool:
    """Return whether a debugger of the standard library's kind traces the frame, and so steps through it."""
    bdb = sys.modules.get("bdb")
    if sys.version_info >= (3, 12) and sys.monitoring.get_tool(sys.monitoring.DEBUGGER_ID) == BDB_TOOL:
        return True
    tracer = None if frame is None or bdb is None else getattr(frame.f_trace, "__self__", None)
    return tracer is not None and isinstance(tracer, bdb.Bdb)  # type: ignore[union-attr]
