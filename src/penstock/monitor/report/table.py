"""A table of HTML: its columns with their meaning, and its rows within a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.monitor.report.markup import Markup, joined, tag
from penstock.monitor.texts import duration, share_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["TableColumn", "count", "ms", "rate", "share", "table"]


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column: its heading, the value of a row, and its meaning."""

    heading: str
    value: Callable[[Any], object]
    meaning: str = ""
    is_number: bool = True


def table(
    caption: str, columns: Sequence[TableColumn], rows: Sequence[Any], most: int, left_out: int = 0
) -> Markup | None:
    """Return a table of the first `most` rows, with a line about all others; None without rows."""
    if not rows:
        return None
    head = tag("tr", *(tag("th", each.heading, scope="col", class_=_class(each)) for each in columns))
    body = [tag("tr", *(tag("td", _cell(each, row), class_=_class(each)) for each in columns)) for row in rows[:most]]
    shown = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    left_out += max(0, len(rows) - most)
    more = tag("p", f"{left_out:,} more rows are left out.", class_="left-out") if left_out else None
    terms = [tag("div", tag("dt", each.heading), tag("dd", each.meaning)) for each in columns if each.meaning]
    meaning = tag("dl", *terms, class_="meaning") if terms else None
    return joined(tag("div", shown, class_="scroll"), more, meaning)


def _class(column: TableColumn) -> str | None:
    return "number" if column.is_number else None


def _cell(column: TableColumn, row: Any) -> Any:
    value = column.value(row)
    return "\N{EN DASH}" if value is None or value == "" else value


def count(value: float | None) -> str:
    """Return a whole number with separators."""
    return "" if value is None else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Return a number of events in a second."""
    return "" if value is None else f"{value:,.0f}/s" if value >= 10 or value == 0 else f"{value:.2g}/s"


def ms(value: float | None) -> str:
    """Return a duration."""
    return "" if value is None else duration(value)


def share(value: float | None) -> str:
    """Return a share in per cent."""
    return "" if value is None else share_text(value)
