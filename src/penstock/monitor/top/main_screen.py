"""The main screen: the header, the table of the present view, the pane below it, and the line that explains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.events import Key
from textual.screen import Screen
from textual.widgets import Input, Static

from penstock.monitor.top.columns import TopColumn, TopRow, is_matching, sorted_rows
from penstock.monitor.top.formats import wrapped
from penstock.monitor.top.header import fault_line, status_line, tabs_line
from penstock.monitor.top.state import TaskQuery, TopState, TopWish
from penstock.monitor.top.table import TopTable, fitted
from penstock.monitor.top.views import connections, executors, findings, gates, loop, tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["VIEWS", "MainScreen"]

FAULT_LINES = 3
# the most tasks that are asked for when the cursor has moved down
MOST_TASKS = 1000
GROUPS = ("", "site", "stack")


@dataclass
class _View:
    name: str
    columns: Sequence[TopColumn]
    rows: Callable[[TopState], list[TopRow]]
    empty: str
    sort: str = ""
    descends: bool = True
    text: str = ""
    group: str = field(default="")


def _views() -> list[_View]:
    return [
        _View("Loop", loop.COLUMNS, loop.loop_rows, "no loop runs"),
        _View("Tasks", tasks.COLUMNS, tasks.task_rows, "no task matches", sort="age"),
        _View("Executors", executors.COLUMNS, executors.lane_rows, "no lane is used"),
        _View("Gates", gates.COLUMNS, gates.gate_rows, "there is no gate"),
        _View("Connections", connections.COLUMNS, connections.connection_rows, "no loop runs"),
        _View("Findings", findings.COLUMNS, findings.finding_rows, "nothing was found"),
    ]


VIEWS: tuple[tuple[str, Sequence[TopColumn]], ...] = (
    *((each.name, each.columns) for each in _views()),
    ("Tasks by site", tasks.SITE_COLUMNS),
    ("Tasks by await stack", tasks.STACK_COLUMNS),
)
KEYS = "1-6 view  / filter  p pause  s sort  r reverse  w worker  ? help  q quit"
TASK_KEYS = "/ filter  s sort  r reverse  g group  Enter inspect  p pause  ? help  q quit"


class MainScreen(Screen[None]):  # type: ignore[misc]
    """The six views. `wish` takes the data that the present view needs."""

    BINDINGS: ClassVar[Any] = [
        *((str(at), f"view({at - 1})", "") for at in range(1, 7)),
        ("tab", "step_view(1)", ""),
        ("shift+tab", "step_view(-1)", ""),
        ("up,k", "move(-1)", ""),
        ("down,j", "move(1)", ""),
        ("pageup", "page(-1)", ""),
        ("pagedown", "page(1)", ""),
        ("home", "move(-1000000)", ""),
        ("end", "move(1000000)", ""),
        ("left,h", "choose(-1)", ""),
        ("right,l", "choose(1)", ""),
        ("slash", "filter", ""),
        ("s", "sort", ""),
        ("r,S", "reverse", ""),
        ("g", "group", ""),
        ("enter", "open", ""),
        ("escape", "clear", ""),
    ]
    CSS = """
    #fault { height: auto; max-height: 3; text-style: bold; }
    #status, #tabs, #explained, #keys { height: 1; }
    #details { height: auto; max-height: 8; margin: 0; }
    #filter { height: 1; border: none; padding: 0; display: none; }
    """

    def __init__(self, wish: Callable[[TopWish], None], interval_s: float) -> None:
        super().__init__()
        self._wish, self._interval_s = wish, interval_s
        self._views = _views()
        self._at = 0
        self.scope = 0
        self.state = TopState()
        self.is_paused = False
        self.silent_s = 0.0

    def compose(self) -> Any:
        """Yield the lines from top to bottom."""
        yield Static("? asking", id="fault", markup=False)
        yield Static("", id="status", markup=False)
        yield Static("", id="tabs", markup=False)
        yield TopTable()
        yield Static("", id="details", markup=False)
        yield Static("", id="explained", markup=False)
        yield Input(id="filter", placeholder="text in a row; Enter keeps it, Escape drops it", compact=True)
        yield Static(KEYS, id="keys", markup=False)

    def on_mount(self) -> None:
        """Show the first view."""
        self.set_focus(self.table)
        self._ask()
        self._refresh()

    def on_resize(self) -> None:
        """Ask for as many tasks as fit."""
        self.call_after_refresh(self._fit)

    def _fit(self) -> None:
        self._ask()
        self._refresh()

    @property
    def table(self) -> TopTable:
        """The table."""
        return cast("TopTable", self.query_one(TopTable))

    @property
    def view(self) -> _View:
        """The present view."""
        return self._views[self._at]

    # --- data

    def take(self, state: TopState) -> None:
        """Show a new state. One may come before the first line is there, and after the last has gone."""
        self.state = state
        if not self.query(TopTable):
            return
        self.table.learn(self.view.rows(state), self.view.name + self.view.group)
        self._refresh()
        self._ask()

    def asked(self) -> TopWish:
        """Return the data that the present view needs: of tasks only the rows that are visible."""
        view = self.view
        if view.name != "Tasks":
            return TopWish(self.scope)
        limit = min(MOST_TASKS, self.table.offset + self.table.page_rows)
        sort = next((each.sort for each in tasks.COLUMNS if each.key == view.sort and each.sort), "age")
        return TopWish(self.scope, TaskQuery(limit, sort, view.descends, view.text, view.group))

    def _ask(self) -> None:
        if self.is_mounted:
            self._wish(self.asked())

    def choose_scope(self, scope: int) -> None:
        """Show one process, or all together."""
        self.scope = scope
        self._ask()

    # --- the lines

    def _refresh(self) -> None:
        view, state = self.view, self.state
        self.query_one("#fault", Static).update(wrapped(fault_line(state), self.size.width, FAULT_LINES))
        self.tick()
        self.query_one("#tabs", Static).update(tabs_line([each.name for each in self._views], self._at))
        self.query_one("#keys", Static).update(TASK_KEYS if view.name == "Tasks" else KEYS)
        is_of_process = view.name == "Tasks" and not view.group
        rows = view.rows(state)
        if not is_of_process:
            rows = [row for row in rows if is_matching(row, view.text)]
            rows = sorted_rows(rows, view.sort, descends=view.descends)
        empty = f"no row has {view.text!r} (/ changes the filter)" if view.text else view.empty
        if view.name == "Tasks" and (state.query is None or state.query.group != view.group):
            rows, empty = [], "asking"
        elif view.name == "Tasks" and state.task_problem and not rows:
            empty = state.task_problem
        self.table.show(self._columns(), rows, sort=view.sort, descends=view.descends, empty=empty)
        self.explain()

    def _columns(self) -> Sequence[TopColumn]:
        view, is_merged = self.view, self.state.is_merged
        if view.name == "Tasks":
            return tasks.task_columns(view.group, is_merged=is_merged, rows=self.state.task_rows)
        return [each for each in view.columns if is_merged or each.key != "worker"]

    def tick(self) -> None:
        """Update the line of the process's state."""
        if not self.query("#status"):
            return
        text = status_line(self.state, interval_s=self._interval_s, is_paused=self.is_paused, silent_s=self.silent_s)
        self.query_one("#status", Static).update(fitted(text, self.size.width))

    def explain(self) -> None:
        """Update the pane of the selected row and the line of the selected column."""
        row, column, width = self.table.row, self.table.column, max(1, self.size.width)
        lines = [fitted(line, width).rstrip() for line in row.details] if row is not None else []
        if row is not None and self.view.name == "Findings":
            lines = list(row.details)
        self.query_one("#details", Static).update("\n".join(lines))
        text = f"{column.title}: {column.explanation}" if column is not None else ""
        if self.view.text:
            text = f"filter {self.view.text!r}   {text}"
        self.query_one("#explained", Static).update(fitted(text, width))

    # --- keys

    def action_view(self, at: int) -> None:
        """Show a view by its number."""
        self._at = at
        self.table.cursor = self.table.offset = 0
        self._changed()

    def action_step_view(self, step: int) -> None:
        """Show the next view, or the one before."""
        self.action_view((self._at + step) % len(self._views))

    def _changed(self) -> None:
        self._refresh()
        self.call_after_refresh(self._ask)

    def action_move(self, lines: int) -> None:
        """Move the cursor."""
        self.table.move(lines)
        self.explain()
        self._ask()

    def action_page(self, pages: int) -> None:
        """Move the cursor by a page."""
        self.action_move(pages * self.table.page_rows)

    def action_choose(self, step: int) -> None:
        """Select the column beside."""
        self.table.choose(step)
        self.explain()

    def action_sort(self) -> None:
        """Sort by the selected column; if it is sorted by already, by the next one."""
        columns = [each.column for each in self.table.shown if self._can_sort(each.column)]
        if not columns:
            return
        keys, chosen = [each.key for each in columns], self.table.column
        if chosen is not None and chosen.key in keys and chosen.key != self.view.sort:
            self.sort_by(chosen)
            return
        at = keys.index(self.view.sort) if self.view.sort in keys else -1
        following = columns[(at + 1) % len(columns)]
        self.table.select(following.key)
        self.sort_by(following)

    def _can_sort(self, column: TopColumn) -> bool:
        return self.view.name != "Tasks" or bool(self.view.group) or bool(column.sort)

    def sort_by(self, column: TopColumn) -> None:
        """Sort by a column; reverse the order if it is sorted by already."""
        if not self._can_sort(column):
            return
        view = self.view
        view.sort, view.descends = column.key, not view.descends if view.sort == column.key else column.is_number
        self._changed()

    def action_reverse(self) -> None:
        """Reverse the order."""
        self.view.descends = not self.view.descends
        self._changed()

    def action_group(self) -> None:
        """Show the tasks as a list, by site, or by await stack."""
        if self.view.name == "Tasks":
            self._group(GROUPS[(GROUPS.index(self.view.group) + 1) % len(GROUPS)])

    def _group(self, group: str) -> None:
        self.view.group, self.view.sort, self.view.descends = group, "count" if group else "age", True
        self.table.cursor = self.table.offset = 0
        self._changed()

    def action_open(self) -> None:
        """Look at the selected task, or list the selected group."""
        row = self.table.row
        if row is not None and row.number is not None:
            self.app.inspect(row.pid, row.number)
        elif row is not None and row.opens:
            self.view.text = row.opens
            self._group("")

    def action_filter(self) -> None:
        """Edit the filter."""
        line = self.query_one("#filter", Input)
        line.value, line.display = self.view.text, True
        self.set_focus(line)

    @property
    def is_filtering(self) -> bool:
        """Whether the filter is being typed."""
        return bool(self.query_one("#filter", Input).display)

    def take_key(self, event: Any) -> None:
        """Open the filter, or pass a key on to it."""
        if self.is_filtering:
            self.query_one("#filter", Input).post_message(Key(event.key, event.character))
        else:
            self.action_filter()

    def on_input_changed(self, event: Any) -> None:
        """Filter while the text is typed."""
        if event.input.display:
            self._filter_by(event.value)

    def _filter_by(self, text: str) -> None:
        if text != self.view.text:
            self.view.text = text
            self.table.cursor = self.table.offset = 0
            self._changed()

    def on_input_submitted(self, event: Any) -> None:
        """Keep the filter. Keys that come at once are submitted before their changes are handled."""
        self._filter_by(event.value)
        self._close_filter()

    def _close_filter(self) -> None:
        self.query_one("#filter", Input).display = False
        self.set_focus(self.table)

    def action_clear(self) -> None:
        """Drop the filter, or the groups."""
        self._close_filter()
        if self.view.text:
            self.view.text = ""
            self._changed()
        elif self.view.group:
            self._group("")
