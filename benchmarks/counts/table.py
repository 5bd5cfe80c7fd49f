"""The counts of rows by arm: their file, and their table."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["Count", "Counts", "lines", "table"]


@dataclass(frozen=True, slots=True)
class Count:
    """Instructions by callgrind and system calls by strace, per operation; None where they were not counted."""

    callgrind: float | None = None
    strace: float | None = None

    def with_value(self, kind: str, value: float | None) -> Count:
        return replace(self, **{kind: value})

    def __str__(self) -> str:
        if self.callgrind is None and self.strace is None:
            return "-"
        instructions = "-" if self.callgrind is None else f"{self.callgrind:,.0f}"
        calls = "-" if self.strace is None else f"{max(0.0, self.strace):.2f}"
        return f"{instructions} / {calls}"


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts by row and arm, with notes about them."""

    rows: dict[str, dict[str, Count]]
    notes: list[str]

    @classmethod
    def of_now(cls, rows: dict[str, dict[str, Count]], notes: Sequence[str]) -> Counts:
        """Return counts with a note of this Python and the time."""
        when = f"counted on CPython {platform.python_version()}, {time.strftime('%Y-%m-%d %H:%M:%S %Z')}"
        return cls(rows, [when, *notes])

    @classmethod
    def load(cls, path: Path) -> Counts:
        """Read a file that `save` has written."""
        return cls.from_json(json.loads(path.read_text()))

    def save(self, path: Path) -> None:
        """Write the file; its folder is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def from_json(cls, known: Any) -> Counts:
        """Return the counts of what `asdict` makes of them."""
        rows = {row: {arm: Count(**count) for arm, count in arms.items()} for row, arms in known["rows"].items()}
        return cls(rows, list(known["notes"]))

    def calls(self) -> dict[tuple[str, str], float]:
        """Return the system calls by row and arm."""
        found = ((row, arm, count.strace) for row, arms in self.rows.items() for arm, count in arms.items())
        return {(row, arm): calls for row, arm, calls in found if calls is not None}


def table(counts: Counts, rows: Sequence[str], arms: Sequence[str]) -> list[list[str]]:
    """Return a line for each of the rows that has counts, empty without any."""
    body = [[row, *(str(counts.rows[row].get(arm, "-")) for arm in arms)] for row in rows if row in counts.rows]
    return [["row", *arms], *body] if body else []


def lines(counts: Counts, rows: Sequence[str]) -> list[str]:
    """Return the table as aligned lines for a terminal."""
    arms = list(dict.fromkeys(arm for row in counts.rows.values() for arm in row))
    header = f"{'instructions / system calls per operation':<42}{''.join(f'{arm:>22}' for arm in arms)}"
    body = [f"{row:<42}{''.join(f'{cell:>22}' for cell in cells)}" for row, *cells in table(counts, rows, arms)[1:]]
    return [header, *body]
