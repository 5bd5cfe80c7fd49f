"""The table of a view: rows with a cursor, the columns that fit, a selected column, and trends beside the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from penstock.monitor.top.columns import PlacedColumn, TopColumn, TopRow, placed
from penstock.monitor.top.trends import Trends

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TopTable", "fitted"]

PLAIN = Style()
HEADER, CHOSEN = Style(bold=True, underline=True), Style(bold=True, reverse=True)
CURSOR = Style(reverse=True)
TONES = {"": PLAIN, "good": Style(color="green"), "warn": Style(color="yellow"), "bad": Style(color="red", bold=True)}
LINES_A_WHEEL = 3


def fitted(text: str, width: int, *, is_right: bool = False) -> str:
    """Return text of exactly `width` cells; an ellipsis ends one that is too long."""
    if cell_len(text) > width:
        cut = set_cell_size(text, width - 1).rstrip() + "…" if width > 0 else ""
        return str(set_cell_size(cut, width))
    spaces = " " * (width - int(cell_len(text)))
    return spaces + text if is_right else text + spaces


class TopTable(Widget, can_focus=True):  # type: ignore[misc, call-arg]
    """A table of which only the visible rows are drawn. The selected row is found again by its key."""

    DEFAULT_CSS = "TopTable { height: 1fr; }"
    cursor = reactive(0)
    offset = reactive(0)

    def __init__(self) -> None:
        super().__init__()
        self.columns: Sequence[TopColumn] = ()
        self.rows: list[TopRow] = []
        self.sort, self.descends = "", True
        self.empty = ""
        self.trends = Trends()
        self._chosen = ""

    # --- content

    def show(self, columns: Sequence[TopColumn], rows: list[TopRow], *, sort: str, descends: bool, empty: str) -> None:
        """Show rows; the cursor stays on its row if that is still there."""
        key = self.row.key if self.row is not None else None
        self.columns, self.rows, self.sort, self.descends, self.empty = columns, rows, sort, descends, empty
        at = next((index for index, row in enumerate(rows) if row.key == key), None)
        self.cursor = min(self.cursor if at is None else at, max(0, len(rows) - 1))
        self._reveal()
        self.refresh()

    def learn(self, rows: Sequence[TopRow], view: str) -> None:
        """Add the numbers of a new answer to the trends."""
        for row in rows:
            for name, value in row.numbers.items():
                self.trends.add((view, row.key, name), value)
        self._view = view

    _view = ""

    @property
    def row(self) -> TopRow | None:
        """The selected row."""
        return self.rows[self.cursor] if self.cursor < len(self.rows) else None

    @property
    def shown(self) -> list[PlacedColumn]:
        """The columns that fit."""
        return placed(self.columns, self.size.width)

    @property
    def column(self) -> TopColumn | None:
        """The selected column, which the line at the bottom explains."""
        shown = [each.column for each in self.shown]
        return next((each for each in shown if each.key == self._chosen), shown[0] if shown else None)

    @property
    def page_rows(self) -> int:
        """The number of rows that fit."""
        return max(1, int(self.size.height) - 1)

    # --- keys

    def move(self, lines: int) -> None:
        """Move the cursor by lines, as far as there are rows."""
        self.cursor = max(0, min(len(self.rows) - 1, self.cursor + lines))
        self._reveal()

    def choose(self, step: int) -> None:
        """Select another column."""
        shown = [each.column.key for each in self.shown]
        if shown:
            at = shown.index(self._chosen) if self._chosen in shown else 0
            self._chosen = shown[(at + step) % len(shown)]
            self.refresh()

    def select(self, key: str) -> None:
        """Select a column by its key."""
        self._chosen = key

    def _reveal(self) -> None:
        last = max(0, len(self.rows) - self.page_rows)
        self.offset = max(0, min(self.offset, self.cursor, last), min(self.cursor - self.page_rows + 1, last))

    def on_resize(self) -> None:
        """Keep the cursor visible."""
        self._reveal()

    def on_key(self, event: Any) -> None:
        """Open the filter at once: keys that come in a burst are here before the filter has the focus."""
        if event.key == "slash" or self.screen.is_filtering:
            event.stop()
            event.prevent_default()
            self.screen.take_key(event)

    # --- mouse

    def on_mouse_move(self, event: Any) -> None:
        """Select the column below the pointer."""
        found = next((each for each in self.shown if each.x <= event.x < each.x + each.width), None)
        if found is not None and found.column.key != self._chosen:
            self._chosen = found.column.key
            self.refresh()
            self.screen.explain()

    def on_click(self, event: Any) -> None:
        """Sort by the column of the first line, or select a row."""
        if event.y == 0 and self.column is not None:
            self.screen.sort_by(self.column)
        elif self.offset + event.y - 1 < len(self.rows):
            self.cursor = self.offset + event.y - 1
            self.screen.explain()

    def on_mouse_scroll_down(self) -> None:
        """Move down."""
        self.move(LINES_A_WHEEL)

    def on_mouse_scroll_up(self) -> None:
        """Move up."""
        self.move(-LINES_A_WHEEL)

    # --- lines

    def render_line(self, y: int) -> Strip:
        """Return a line of the screen."""
        width = self.size.width
        if y == 0:
            segments = self._header()
        elif self.offset + y - 1 < len(self.rows):
            segments = self._line(self.offset + y - 1)
        else:
            segments = [Segment(f"  {self.empty}" if y == 1 and not self.rows else "", PLAIN)]
        return Strip(segments).adjust_cell_length(width, PLAIN)

    def _header(self) -> list[Segment]:
        chosen = self.column
        segments = [Segment("  ", PLAIN)]
        for each in self.shown:
            column = each.column
            sign = ("▼" if self.descends else "▲") if column.key == self.sort else ""
            text = fitted(column.title, each.width - len(sign)).rstrip() + sign
            room = " " if column.is_number and column.has_trend and not sign and each.width > cell_len(text) else ""
            text = fitted(text + room, each.width, is_right=column.is_number)
            segments += [Segment(text, CHOSEN if column is chosen else HEADER), Segment(" ", PLAIN)]
        return segments

    def _line(self, index: int) -> list[Segment]:
        row, is_cursor = self.rows[index], index == self.cursor
        style = TONES[row.tone] + CURSOR if is_cursor else TONES[row.tone]
        text = " ".join(self._cell(row, each) for each in self.shown)
        return [Segment(fitted(f"{'>' if is_cursor else ' '} {text}", self.size.width), style)]

    def _cell(self, row: TopRow, each: PlacedColumn) -> str:
        column, text = each.column, row.cells.get(each.column.key, "-")
        if not column.is_number:
            return fitted(text, each.width)
        arrow = self.trends.arrow((self._view, row.key, column.key)) if column.has_trend else ""
        return fitted(text + arrow, each.width, is_right=True)
