"""Findings as log records: one logger a subject, one line for people, the evidence beside it for machines.

The record carries everything under `penstock`, a flat dict that is plain JSON: `record.penstock["kind"]`. What asyncio
or Python tells by itself is no record: a program that collects errors would have it twice.
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

__all__ = ["LOGGERS", "TOLD_ALREADY", "Subject", "log_finding", "show_records"]


class Subject(NamedTuple):
    """Where a kind of finding is logged, and how loudly."""

    logger: str
    level: int


# An error needs attention; a warning may be intended, or pass.
LOGGERS = {
    "stall": Subject("penstock.tasks.stall", logging.INFO),
    "stuck": Subject("penstock.tasks.stuck", logging.ERROR),
    "await_cycle": Subject("penstock.tasks.stuck", logging.ERROR),
    "hung": Subject("penstock.tasks.hung", logging.WARNING),
    "growing": Subject("penstock.tasks.growing", logging.WARNING),
}
# The first two and the last reach the loop's exception handler, tasks of a closed loop when they are collected; Python
# warns of coroutines that are never awaited.
TOLD_ALREADY = {"destroyed_pending", "exception_unretrieved", "loop_closed", "never_awaited", "failed"}
# from here on a stall is a warning: users notice it
WARNING_S = 0.25
# asyncio's too: without a handler they would be bare messages between lines that have a time
SHOWN = "penstock", "asyncio"


class _Shown(logging.StreamHandler[Any]):
    """Shows penstock's and asyncio's records on stderr, until the program sets up logging itself."""

    def __init__(self, level: int, style: str) -> None:
        super().__init__()
        self.setLevel(level)
        self.setFormatter(FORMATS[style]())

    def emit(self, record: logging.LogRecord) -> None:
        """Show the record, unless the program has handlers: it reaches them by itself."""
        if not self._has_others(logging.getLogger(record.name)):
            super().emit(record)

    def _has_others(self, logger: logging.Logger | None) -> bool:
        while logger is not None:
            if any(handler is not self and type(handler) is not logging.NullHandler for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


_shown: _Shown | None = None


def show_records(level: int = logging.INFO, style: str = "text") -> None:
    """Show records on stderr, findings from `level` on; `style` is text or json.

    For penstock's own commands; a second call does nothing.
    """
    global _shown
    if _shown is None:
        _shown = _Shown(level, style)
        for name in SHOWN:
            logging.getLogger(name).addHandler(_shown)


def log_finding(finding: Finding) -> None:
    """Log the finding, unless asyncio tells it. Any thread may call it; what a handler raises is for `logging`."""
    if finding.kind in TOLD_ALREADY:
        return
    name, level = LOGGERS.get(finding.kind) or Subject(f"penstock.tasks.{finding.kind}", logging.WARNING)
    if finding.kind == "stall":
        level = _level_of_stall(finding.evidence)
    logger = logging.getLogger(name)
    message = " ".join(finding.message.split())
    if logger.isEnabledFor(level):
        logger.log(level, "%s", message, extra={"penstock": _fields(finding)})
    elif _shown is not None and level >= _shown.level and _has_no_level(logger):
        extra = {"penstock": _fields(finding)}
        _shown.handle(logger.makeRecord(name, level, __file__, 0, message, (), None, extra=extra))


def _level_of_stall(evidence: Mapping[str, Any]) -> int:
    """A long stall, or one that lasts on, is a warning. Others are told when they end: DEBUG until then.

    A busy machine is not the program's fault.
    """
    if evidence.get("cause") == "descheduled":
        return logging.DEBUG
    if evidence.get("again") or evidence.get("lasted_s", 0.0) >= WARNING_S:
        return logging.WARNING
    return logging.INFO if evidence.get("ended", True) else logging.DEBUG


def _has_no_level(logger: logging.Logger) -> bool:
    """Whether the program leaves the logger as it is: then the root's default would keep back what is below WARNING."""
    found: logging.Logger | None = logger
    while found is not None and found.parent is not None:
        if found.disabled or found.level != logging.NOTSET:
            return False
        found = found.parent
    return True


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
