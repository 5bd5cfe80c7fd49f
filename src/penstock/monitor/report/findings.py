"""The findings of a report: each with its place, its time, its evidence and the two seconds before it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from penstock.monitor.figures import place_of
from penstock.monitor.report.markup import Markup, joined, tag
from penstock.monitor.report.timeline import timeline
from penstock.monitor.texts import count_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from penstock.monitor.report.material import Material

__all__ = ["all_findings", "clock_text"]

# lines of a stack, and other keys of the evidence
MOST_LINES = 12
MOST_KEYS = 12
MOST_VALUE_CHARS = 300
# evidence that the message has already, or that is a stack
STACKS = {
    "stack": "the stack of the loop's thread",
    "creation_stack": "where the task was made",
    "await_chain": "awaits",
}


def clock_text(wall_time_s: float | None) -> str:
    """Return a time since 1970 in UTC."""
    if wall_time_s is None:
        return "an unknown time"
    try:
        return f"{datetime.fromtimestamp(wall_time_s, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"
    except (ValueError, OverflowError, OSError):
        return "an unknown time"


def all_findings(material: Material, most: int) -> Markup:
    """Return the newest findings, at most `most`, with a line about all others."""
    found = material.findings
    if not found:
        return tag("p", "There are no findings.")
    left_out = len(found) - most
    more = f"{count_text(left_out, 'older finding')} left out." if left_out > 0 else None
    shown = [_finding(material, each) for each in found[:most]]
    return joined(*shown, tag("p", more, class_="left-out") if more else None)


def _finding(material: Material, finding: Mapping[str, Any]) -> Markup:
    place, at_s = place_of(_mapping(finding.get("site"))), material.moment_s(finding)
    wall_time_s = material.wall_time_s(at_s) if at_s is not None else _number(finding.get("wall_time_s"))
    where = [("at", clock_text(wall_time_s)), ("loop", finding.get("loop"))]
    where += [("site", str(place) if place is not None else None), ("task", finding.get("task"))]
    facts = [tag("div", tag("dt", term), tag("dd", value)) for term, value in where if value]
    return tag(
        "article",
        tag("h3", tag("span", finding.get("kind"), class_="kind"), " ", finding.get("message")),
        tag("dl", *facts, class_="facts"),
        _picture(material, finding, at_s),
        *_evidence(_mapping(finding.get("evidence")) or {}),
    )


def _picture(material: Material, finding: Mapping[str, Any], at_s: float | None) -> Markup:
    trace, name = material.trace, finding.get("loop")
    loop = trace.loop(name)
    lasted_s = _number((_mapping(finding.get("evidence")) or {}).get("lasted_s")) or 0.0
    drawn = (
        timeline(loop, at_s, lasted_s, trace.begin_s)
        if loop is not None and at_s is not None and trace.has(at_s)
        else None
    )
    if drawn is not None:
        return drawn
    reason = (
        "before the trace began" if at_s is not None and at_s < trace.begin_s else "at a time without recorded events"
    )
    return tag("p", f"It was found {reason}, so the seconds before it are not known.", class_="left-out")


def _evidence(evidence: Mapping[str, Any]) -> Iterator[Markup]:
    for key, title in STACKS.items():
        lines = _lines(evidence.get(key))
        if lines:
            more = f"\n{len(lines) - MOST_LINES} more lines" if len(lines) > MOST_LINES else ""
            shown = "\n".join(line[:MOST_VALUE_CHARS] for line in lines[:MOST_LINES])
            yield tag("details", tag("summary", title), tag("pre", _plain(shown + more)), open="open")
    others = [(key, value) for key, value in evidence.items() if key not in STACKS][:MOST_KEYS]
    if others:
        facts = [tag("div", tag("dt", key), tag("dd", _plain(value))) for key, value in others]
        yield tag("details", tag("summary", "evidence"), tag("dl", *facts, class_="facts"))


def _lines(value: object) -> list[str]:
    if isinstance(value, str):
        return value.splitlines()
    return [line for item in value for line in str(item).splitlines()] if isinstance(value, list) else []


def _plain(value: object) -> Markup:
    from penstock.monitor.report.markup import text

    return text(f"{value:.6g}" if isinstance(value, float) else value, MOST_LINES * (MOST_VALUE_CHARS + 1))


def _mapping(value: object) -> Mapping[str, Any] | None:
    return value if isinstance(value, dict) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
