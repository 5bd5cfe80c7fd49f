"""Findings as log records: one logger a subject, one line for people, the evidence beside it for machines.

The record carries everything under `penstock`, a flat dict that is plain JSON: `record.penstock["kind"]`.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.tasks.finding import Finding

__all__ = ["LOGGERS", "Subject", "log_finding"]


class Subject(NamedTuple):
    """Where a kind of finding is logged, and how loudly."""

    logger: str
    level: int


# what somebody must look at is an error; what may be meant so, or passes, is a warning
LOGGERS = {
    "stall": Subject("penstock.tasks.stall", logging.INFO),
    "destroyed_pending": Subject("penstock.tasks.abandoned", logging.ERROR),
    "exception_unretrieved": Subject("penstock.tasks.abandoned", logging.ERROR),
    "never_awaited": Subject("penstock.tasks.abandoned", logging.WARNING),
    "loop_closed": Subject("penstock.tasks.abandoned", logging.WARNING),
    "stuck": Subject("penstock.tasks.stuck", logging.ERROR),
    "await_cycle": Subject("penstock.tasks.stuck", logging.ERROR),
    "hung": Subject("penstock.tasks.hung", logging.WARNING),
    "growing": Subject("penstock.tasks.growing", logging.WARNING),
}


def log_finding(finding: Finding) -> None:
    """Log the finding. Any thread may call it; what a handler raises is `logging`'s to deal with."""
    name, level = LOGGERS.get(finding.kind) or Subject(f"penstock.tasks.{finding.kind}", logging.WARNING)
    if finding.kind == "stall" and finding.evidence.get("again"):
        # a tenth of a second on a busy machine is no news to a program that has set up no logging; ten times that is
        level = logging.WARNING
    logger = logging.getLogger(name)
    if logger.isEnabledFor(level):
        logger.log(level, "%s", " ".join(finding.message.split()), extra={"penstock": _fields(finding)})


def _fields(finding: Finding) -> dict[str, Any]:
    """The finding as a flat dict: its evidence by its own names, with `evidence_` in front where they clash."""
    site = finding.site
    fields: dict[str, Any] = {
        "kind": finding.kind,
        "message": finding.message,
        "task": finding.task,
        "loop": finding.loop,
        "since_s": _plain(finding.since_s),
        "wall_time_s": _plain(finding.wall_time_s),
        "site": None if site is None else str(site),
        "site_file": None if site is None else site.file,
        "site_line": None if site is None else site.line,
        "site_function": None if site is None else site.function,
    }
    for key, value in _flat(finding.evidence):
        fields[f"evidence_{key}" if key in fields else key] = value
    return fields


def _flat(evidence: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in evidence.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _plain(value)


def _plain(value: Any) -> Any:
    """What JSON has a word for, without structure: a list of texts is a text of many lines."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        items = list(value)
        if all(isinstance(item, str) for item in items):
            return "\n".join(item.rstrip("\n") for item in items)
        return json.dumps(items, default=str)
    return str(value)
