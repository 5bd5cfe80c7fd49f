"""Tables that fit the terminal's width: texts are cut with an ellipsis, numbers are not. A pipe gets whole lines."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Column", "cut", "cut_lines", "table", "terminal_width"]

GAP = "  "
# a text column is cut to no less than this
LEAST_CHARACTERS = 8
ELLIPSIS = "…"


class Column(NamedTuple):
    """A column: its title, and whether it has texts, which are on the left and may be cut, or numbers."""

    title: str
    is_text: bool = False


def terminal_width() -> int | None:
    """Return the width of the terminal in characters; None if stdout is none."""
    try:
        is_terminal = sys.stdout is not None and sys.stdout.isatty()
    except ValueError:
        # closed
        is_terminal = False
    return max(20, shutil.get_terminal_size().columns) if is_terminal else None


def cut(text: str, width: int | None) -> str:
    """Return the text in at most `width` characters."""
    return text if width is None or len(text) <= width else text[: max(0, width - 1)] + ELLIPSIS


def cut_lines(lines: Iterable[str], width: int | None) -> list[str]:
    """Return the lines, each in at most `width` characters."""
    return [cut(line, width) for line in lines]


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Return the lines of a table, in at most `width` characters. Columns without a value are left out."""
    used = [at for at in range(len(columns)) if any(row[at].strip() not in ("", "-") for row in rows)]
    shown = [columns[at] for at in used] or list(columns)
    cells = [[row[at] for at in used] for row in rows] if used else [list(row) for row in rows]
    widths = [max(len(column.title), *(len(row[at]) for row in cells), 0) for at, column in enumerate(shown)]
    if width is not None:
        _shrink(widths, shown, width)
    titles = [column.title for column in shown]
    return [cut(_line(each, shown, widths), width) for each in [titles, *cells]]


def _shrink(widths: list[int], columns: Sequence[Column], width: int) -> None:
    """Take characters from the widest text column until the table fits."""
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    texts = [at for at, column in enumerate(columns) if column.is_text]
    while excess > 0 and texts:
        widest = max(texts, key=lambda at: widths[at])
        if widths[widest] <= LEAST_CHARACTERS:
            return
        widths[widest] -= 1
        excess -= 1


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    aligned = [
        cut(cell, width).ljust(width) if column.is_text else cell.rjust(width)
        for cell, column, width in zip(cells, columns, widths, strict=True)
    ]
    return GAP.join(aligned).rstrip()
