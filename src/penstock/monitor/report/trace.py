"""A trace as `docs/traces.md` describes it, read for a report: tolerant of unknown records."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.errors import PenstockError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Life", "Slice", "Trace", "TraceError", "TraceLoop", "parsed", "read_trace"]

NO_LOOP = "loop"
# of a stall's message
PLACE = re.compile(r" s in (.+):(\d+) in (.+?) \([a-z]+")
CAUSE = re.compile(r"\(([a-z]+)[^()]*\)$")


class TraceError(PenstockError):
    """A file that is no trace."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A step, a callback, a job or an incident. Seconds on the trace's clock; an incident may take none."""

    at_s: float
    took_s: float
    kind: str
    name: str

    @property
    def end_s(self) -> float:
        """When it ended."""
        return self.at_s + self.took_s


@dataclass(slots=True)
class Life:
    """A task's life: None for a birth or an end that the trace does not have."""

    name: str = ""
    born_s: float | None = None
    ended_s: float | None = None


@dataclass(frozen=True, slots=True)
class TraceLoop:
    """The events of one loop, in the order of their begin."""

    name: str
    slices: tuple[Slice, ...] = ()
    lives: tuple[Life, ...] = ()

    def of_kind(self, *kinds: str) -> list[Slice]:
        """Return the slices of these kinds."""
        return [each for each in self.slices if each.kind in kinds]


@dataclass(frozen=True, slots=True)
class Trace:
    """All loops of a trace, its findings as the protocol has them, and its clock."""

    loops: tuple[TraceLoop, ...] = ()
    findings: tuple[Mapping[str, Any], ...] = ()
    pid: str = ""
    python: str = ""
    # one moment on both clocks; None if the trace has none
    at_s: float | None = None
    wall_time_s: float | None = None
    is_cut: bool = False
    # of its events
    begin_s: float = 0.0
    end_s: float = 0.0
    moments: Mapping[str, float] = field(default_factory=dict)

    def moment_s(self, finding: Mapping[str, Any]) -> float | None:
        """Return when a finding happened: a stall's begin, or when another was found; None if that is unknown."""
        if finding.get("kind") == "stall":
            return _number(finding.get("since_s"))
        message = str(finding.get("message"))
        # an attached process leaves out the text after a colon: it may quote an exception
        return self.moments.get(message, self.moments.get(message.partition(":")[0]))

    def has(self, at_s: float) -> bool:
        """Return whether the trace has events of that time."""
        return self.begin_s <= at_s <= self.end_s + 1.0

    def loop(self, name: object) -> TraceLoop | None:
        """Return the loop with this name; the only loop if the trace has one."""
        found = next((each for each in self.loops if each.name == name), None)
        return self.loops[0] if found is None and len(self.loops) == 1 else found


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Read a trace from a file. Raises OSError, and TraceError if it is no trace."""
    with open(path, encoding="utf-8") as stream:
        try:
            return parsed(json.load(stream))
        except (ValueError, RecursionError) as error:
            raise TraceError(f"{path} is no trace: {error}") from None


def parsed(document: Any) -> Trace:
    """Return the trace in a JSON document: an object with `traceEvents`, or a list of records."""
    found = document.get("traceEvents") if isinstance(document, dict) else document
    if not isinstance(found, list):
        raise TraceError("no trace: it has no list of traceEvents")
    records = [each for each in found if isinstance(each, dict)]
    other = document.get("otherData") if isinstance(document, dict) else None
    other = other if isinstance(other, dict) else {}
    loops = tuple(_loops(records))
    slices = [each for loop in loops for each in loop.slices]
    findings = _findings(other.get("findings"), records) or [_stall(loop, each) for loop, each in _stalls(loops)]
    return Trace(
        loops=loops,
        findings=tuple(findings),
        pid=str(other.get("pid") or ""),
        python=str(other.get("python") or ""),
        at_s=_number(other.get("at_s")),
        wall_time_s=_number(other.get("wall_time_s")),
        is_cut=bool(other.get("is_cut")),
        begin_s=min((each.at_s for each in slices), default=0.0),
        end_s=max((each.end_s for each in slices), default=0.0),
        moments={each.name: each.at_s for each in slices if each.kind == "finding"},
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _findings(found: object, records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the findings of `otherData`, else the arguments of finding records."""
    if not isinstance(found, list) or not found:
        found = [each.get("args") for each in records if each.get("cat") == "finding"]
    return [_finding(each) for each in found if isinstance(each, dict) and isinstance(each.get("kind"), str)]


def _finding(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a finding with values of the types that readers expect; another program may have written the file."""
    site, evidence = found.get("site"), found.get("evidence")
    return {
        "kind": found["kind"],
        "message": str(found.get("message") or ""),
        "site": site if isinstance(site, dict) and isinstance(site.get("line"), int) else None,
        "task": None if found.get("task") is None else str(found["task"]),
        "loop": str(found.get("loop") or ""),
        "since_s": _number(found.get("since_s")) or 0.0,
        "wall_time_s": _number(found.get("wall_time_s")) or 0.0,
        "evidence": {
            key: value
            for key, value in (evidence.items() if isinstance(evidence, dict) else ())
            if not key.endswith("_s") or _number(value) is not None
        },
    }


def _stalls(loops: Sequence[TraceLoop]) -> Iterable[tuple[TraceLoop, Slice]]:
    return ((loop, each) for loop in loops for each in loop.of_kind("stall"))


def _stall(loop: TraceLoop, stall: Slice) -> Mapping[str, Any]:
    """Return the finding of a recorded stall: `penstock trace` writes none of its own."""
    place, cause = PLACE.search(stall.name), CAUSE.search(stall.name)
    site = None if place is None else {"file": place[1], "line": int(place[2]), "function": place[3]}
    evidence = {
        "lasted_s": stall.took_s,
        "ended": True,
        "cause": cause[1] if cause else "",
        "turn": "a turn" in stall.name,
    }
    found = {"kind": "stall", "message": stall.name, "site": site, "loop": loop.name, "since_s": stall.at_s}
    return _finding({**found, "evidence": evidence})


def _loops(records: Sequence[Mapping[str, Any]]) -> Iterable[TraceLoop]:
    names: dict[Any, str] = {}
    slices: defaultdict[Any, list[Slice]] = defaultdict(list)
    lives: defaultdict[Any, dict[Any, Life]] = defaultdict(dict)
    for record in records:
        process = str(record.get("pid"))
        if record.get("ph") == "M":
            if record.get("name") == "process_name":
                names[process] = str((record.get("args") or {}).get("name") or "").removeprefix("loop ")
            continue
        at_us = _number(record.get("ts"))
        if at_us is None:
            continue
        if record.get("cat") == "task" and record.get("ph") in ("b", "e"):
            _add_life(lives[process], record, at_us / 1e6)
        else:
            slices[process].append(_slice(record, at_us / 1e6))
    for process in dict.fromkeys([*names, *slices, *lives]):
        ordered = sorted(slices[process], key=lambda each: each.at_s)
        yield TraceLoop(names.get(process) or NO_LOOP, tuple(ordered), tuple(lives[process].values()))


def _slice(record: Mapping[str, Any], at_s: float) -> Slice:
    kind, took_us = str(record.get("cat") or ""), _number(record.get("dur")) or 0.0
    return Slice(at_s, took_us / 1e6, kind, str(record.get("name") or "").removeprefix(f"{kind}: "))


def _add_life(lives: dict[Any, Life], record: Mapping[str, Any], at_s: float) -> None:
    life = lives.setdefault(str(record.get("id")), Life())
    life.name = str(record.get("name") or "")
    if record.get("ph") == "b":
        life.born_s = at_s
    else:
        life.ended_s = at_s
