"""Columns and rows of a table in a terminal, and the columns that fit a width."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PlacedColumn", "TopColumn", "TopRow", "is_matching", "placed", "sorted_rows"]

Tone: TypeAlias = Literal["", "good", "warn", "bad"]
GAP = 1
# the cursor's sign before each row
MARGIN = 2


@dataclass(frozen=True, slots=True)
class TopColumn:
    """A column: its title, its explanation, and its least width in cells."""

    key: str
    title: str
    explanation: str
    width: int = 6
    # a column with a higher rank is left out first in a narrow terminal; rank 0 always stays
    rank: int = 0
    # its share of the width that is left over
    stretch: int = 0
    # text is aligned left; a number right, with its trend
    is_number: bool = True
    # the trend of the number is shown beside it
    has_trend: bool = False
    # the key of the process's own sort; a table of the process cannot sort by another column
    sort: str = ""


@dataclass(frozen=True, slots=True)
class TopRow:
    """A row: text by column, and numbers by column for sorting and trends."""

    # identifies the row in later answers
    key: object
    cells: Mapping[str, str]
    numbers: Mapping[str, float] = field(default_factory=dict)
    tone: Tone = ""
    # lines of the pane below the table while this row is selected
    details: tuple[str, ...] = ()
    # the task, or text to filter by, that Enter opens
    pid: int = 0
    number: int | None = None
    opens: str = ""


@dataclass(frozen=True, slots=True)
class PlacedColumn:
    """A column that is shown: its first cell and its width."""

    column: TopColumn
    x: int
    width: int


def placed(columns: Sequence[TopColumn], width: int) -> list[PlacedColumn]:
    """Return the columns that fit the width, in their order; the least important are left out."""
    kept = list(columns)
    while len(kept) > 1 and _needed(kept) > width:
        kept.remove(max(reversed(kept), key=lambda each: each.rank))
    spare, shares = max(0, width - _needed(kept)), sum(each.stretch for each in kept)
    found, x = [], MARGIN
    for each in kept:
        wide = min(each.width + (spare * each.stretch // shares if shares else 0), max(1, width - x))
        found.append(PlacedColumn(each, x, wide))
        x += wide + GAP
    return found


def _needed(columns: Sequence[TopColumn]) -> int:
    return MARGIN + sum(each.width + GAP for each in columns) - GAP


def sorted_rows(rows: Sequence[TopRow], key: str, *, descends: bool) -> list[TopRow]:
    """Return the rows by a column: by its number, else by its text; in their order without a key."""
    if not key:
        return list(rows)

    def order(row: TopRow) -> tuple[float, str]:
        return row.numbers.get(key, float("-inf")), row.cells.get(key, "").lower()

    return sorted(rows, key=order, reverse=descends)


def is_matching(row: TopRow, text: str) -> bool:
    """Return whether a cell of the row has the text."""
    wanted = text.lower()
    return any(wanted in cell.lower() for cell in row.cells.values())
