"""Findings as log records and as JSON: a logger for each subject, one line for people, and the evidence for machines.

A record has all data in `record.penstock`, a flat dict that is plain JSON. Findings that asyncio or Python reports
itself are not logged again: a program that collects errors would have them twice.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.logformats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.tasks.finding import Finding

__all__ = ["LOGGERS", "REPORTED_ELSEWHERE", "LogTarget", "finding_json", "log_finding", "show_records"]


class LogTarget(NamedTuple):
    """The logger and the level of a kind of finding."""

    logger: str
    level: int


# An error needs attention; a warning may be intended, or pass. A failed task's exception is raised in the code that
# awaits the task, or logged by asyncio as an error: so its finding is for DEBUG.
LOGGERS = {
    "stall": LogTarget("penstock.tasks.stall", logging.INFO),
    "stuck": LogTarget("penstock.tasks.stuck", logging.ERROR),
    "await_cycle": LogTarget("penstock.tasks.stuck", logging.ERROR),
    "hung": LogTarget("penstock.tasks.hung", logging.WARNING),
    "growing": LogTarget("penstock.tasks.growing", logging.WARNING),
    "failed": LogTarget("penstock.tasks.failed", logging.DEBUG),
}
# The first two reach the loop's exception handler, and tasks of a closed loop when they are collected. Python warns of
# coroutines that are never awaited.
REPORTED_ELSEWHERE = {"destroyed_pending", "exception_unretrieved", "loop_closed", "never_awaited"}
# a longer stall is a warning: users notice it
WARNING_S = 0.25
# loggers with a handler: without one, asyncio's records would be bare messages between lines with a time
SHOWN = "penstock", "asyncio"


class _StderrHandler(logging.StreamHandler[Any]):
    """A handler for penstock's and asyncio's records on stderr, until the program sets up logging itself."""

    def __init__(self, level: int, style: str) -> None:
        super().__init__()
        self.setLevel(level)
        self.setFormatter(FORMATS[style]())

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, unless the program has handlers: the record reaches those by itself."""
        if not self._has_others(logging.getLogger(record.name)):
            super().emit(record)

    def _has_others(self, logger: logging.Logger | None) -> bool:
        while logger is not None:
            if any(handler is not self and type(handler) is not logging.NullHandler for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


_shown: _StderrHandler | None = None


def show_records(level: int = logging.INFO, style: str = "text") -> None:
    """Write records of findings to stderr from `level` on; `style` is text or json.

    For penstock's own commands. A second call has no effect.
    """
    global _shown
    if _shown is None:
        _shown = _StderrHandler(level, style)
        for name in SHOWN:
            logging.getLogger(name).addHandler(_shown)


def log_finding(finding: Finding) -> None:
    """Log a finding, unless asyncio or Python reports it itself. Any thread may call this."""
    if finding.kind in REPORTED_ELSEWHERE:
        return
    name, level = LOGGERS.get(finding.kind) or LogTarget(f"penstock.tasks.{finding.kind}", logging.WARNING)
    if finding.kind == "stall":
        level = _level_of_stall(finding.evidence)
    logger = logging.getLogger(name)
    message = " ".join(finding.message.split())
    if logger.isEnabledFor(level):
        logger.log(level, "%s", message, extra={"penstock": _fields(finding)})
    elif _shown is not None and level >= _shown.level and _has_no_level(logger):
        extra = {"penstock": _fields(finding)}
        _shown.handle(logger.makeRecord(name, level, __file__, 0, message, (), None, extra=extra))


def finding_json(finding: Finding) -> dict[str, Any]:
    """Return the finding as an object of plain JSON, its evidence as it is."""
    site = finding.site
    return {
        "kind": finding.kind,
        "message": finding.message,
        "site": None if site is None else {"file": site.file, "line": site.line, "function": site.function},
        "task": finding.task,
        "loop": finding.loop,
        "since_s": _plain(finding.since_s),
        "wall_time_s": _plain(finding.wall_time_s),
        "evidence": _json(finding.evidence),
    }


def _json(value: Any) -> Any:
    """Return evidence as plain JSON: text for all that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json(item) for item in value]
    return _plain(value)


def _level_of_stall(evidence: Mapping[str, Any]) -> int:
    """Return the level: WARNING for a long or lasting stall, INFO at the end of others, DEBUG before.

    A stall by a busy machine is not the program's fault: DEBUG.
    """
    if evidence.get("cause") == "descheduled":
        return logging.DEBUG
    if evidence.get("repeated") or evidence.get("lasted_s", 0.0) >= WARNING_S:
        return logging.WARNING
    return logging.INFO if evidence.get("ended", True) else logging.DEBUG


def _has_no_level(logger: logging.Logger) -> bool:
    """Return whether no level is set for the logger: the root's default would hide records below WARNING."""
    found: logging.Logger | None = logger
    while found is not None and found.parent is not None:
        if found.disabled or found.level != logging.NOTSET:
            return False
        found = found.parent
    return True


def _fields(finding: Finding) -> dict[str, Any]:
    """Return the finding as a flat dict; an evidence name that clashes has `evidence_` in front."""
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
    """Return the value as a scalar of JSON: a list of texts is a text of many lines."""
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
