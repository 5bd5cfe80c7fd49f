"""The view of tasks: one row a task, or one a group by site or by await stack. The process sorts and filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.monitor.texts import place_text, printable
from penstock.monitor.top.columns import TopColumn, TopRow
from penstock.monitor.top.formats import amount, short_s

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.monitor.top.state import TopState

__all__ = ["COLUMNS", "SITE_COLUMNS", "STACK_COLUMNS", "task_columns", "task_rows"]

SITE = "the line of code that made the task"
COLUMNS = (
    TopColumn("number", "number", "the task's number in its process, for `penstock cancel`", 7, sort="number"),
    TopColumn("name", "name", "the task's name", 12, stretch=2, is_number=False),
    TopColumn("state", "state", "running, ready (due, waits for the loop) or waiting", 7, is_number=False),
    TopColumn("age", "age", "the time since the task was made", 6, sort="age"),
    TopColumn("running", "ran", "the time for which the task's own code ran", 6, rank=1, sort="running"),
    TopColumn("ready", "ready", "the time for which the task was due and waited for the loop", 6, rank=3, sort="ready"),
    TopColumn("waiting", "waits", "the time for which the task awaited something", 6, rank=2, sort="waiting"),
    TopColumn("steps", "steps", "how often the task was resumed", 6, rank=4, sort="steps"),
    TopColumn("site", "made in", SITE, 16, stretch=3, is_number=False),
    TopColumn("worker", "process", "the process of the task", 8),
    TopColumn("loop", "loop", "the task's loop", 8, rank=6, is_number=False),
)
SITE_COLUMNS = (
    TopColumn("count", "tasks", "live tasks of the site", 7, has_trend=True),
    TopColumn("ready", "ready", "tasks that are due and wait for the loop", 6, has_trend=True),
    TopColumn("running", "running", "tasks that run now: one a loop at most", 7, rank=1),
    TopColumn("waiting", "waiting", "tasks that wait", 7, has_trend=True),
    TopColumn("oldest", "oldest", "the age of the oldest task", 6),
    TopColumn("ran", "ran", "the time for which code of these tasks ran", 6, rank=2),
    TopColumn("step", "p99 step", "99th percentile of a step's duration, at level trace", 8, rank=3),
    TopColumn("schedule", "p99 rdy", "99th percentile from ready to running, at level trace", 7, rank=4),
    TopColumn("site", "made in", SITE, 20, stretch=1, is_number=False),
    TopColumn("worker", "process", "the process of the tasks", 8),
)
# known of sites that have run at level trace
STEP_KEYS = frozenset({"step", "schedule"})
STACK_COLUMNS = (
    TopColumn("count", "tasks", "tasks with the same await stack", 7, has_trend=True),
    TopColumn("awaits", "await", "the object that the innermost coroutine awaits", 20, stretch=1, is_number=False),
    TopColumn("site", "innermost", "the innermost line of the await stack", 20, stretch=1, is_number=False),
    TopColumn("names", "names", "some of the tasks", 12, rank=1, stretch=1, is_number=False),
    TopColumn("worker", "process", "the process of the tasks", 8),
)


def task_columns(group: str, *, is_merged: bool, rows: Sequence[Mapping[str, Any]] = ()) -> tuple[TopColumn, ...]:
    """Return the columns of a list or of groups; the process is named if there are several, steps if a row has any."""
    every = {"": COLUMNS, "site": SITE_COLUMNS, "stack": STACK_COLUMNS}[group]
    absent = set() if is_merged else {"worker"}
    if not any("step" in row for row in rows):
        absent |= STEP_KEYS
    return tuple(each for each in every if each.key not in absent)


def task_rows(state: TopState) -> list[TopRow]:
    """Return the rows of the last answer."""
    make = {"": _task, "site": _site_group, "stack": _stack_group}[state.query.group if state.query else ""]
    caption = _caption(state)
    return [make(row, caption) for row in state.task_rows]


def _caption(state: TopState) -> str:
    query = state.query
    if query is None:
        return ""
    held = f"   ! {state.task_problem}" if state.task_problem else ""
    if query.group:
        count = len(state.task_rows)
        return f"{count} {'group' if count == 1 else 'groups'}{held}"
    return f"{state.task_total:,} tasks, {state.task_matched:,} match, {len(state.task_rows)} shown{held}"


def _task(row: Mapping[str, Any], caption: str) -> TopRow:
    numbers = {key: float(row.get(f"{key}_s") or 0) for key in ("age", "running", "ready", "waiting")}
    cells = {key: short_s(value) for key, value in numbers.items()}
    state = str(row.get("state") or "-")
    cells |= {
        "number": str(row.get("number")),
        "name": printable(row.get("name") or "-"),
        "steps": amount(row.get("steps")),
    }
    cells |= {"state": state, "site": place_text(row.get("site")), "worker": str(row.get("pid"))}
    cells["loop"] = printable(row.get("loop") or "-")
    whole = f"{cells['number']} {cells['name']}", f"made in {_long(row.get('site'))}", caption
    key = (row.get("pid"), row.get("number"))
    tone = "good" if state == "running" else "warn" if state == "ready" else ""
    return TopRow(key, cells, numbers, tone, whole, row.get("pid") or 0, row.get("number"))  # type: ignore[arg-type]


def _long(place: Mapping[str, Any] | None) -> str:
    found = place or {}
    return (
        printable(f"{found.get('file')}:{found.get('line')} in {found.get('function')}") if found.get("file") else "-"
    )


def _site_group(row: Mapping[str, Any], caption: str) -> TopRow:
    numbers = {key: float(row.get(key) or 0) for key in ("count", "ready", "running", "waiting")}
    cells = {key: amount(value) for key, value in numbers.items()}
    cells |= {"oldest": short_s(row.get("oldest_s")), "ran": short_s(row.get("running_s"))}
    site = row.get("site") or {}
    p99_s = {key: (row.get(key) or {}).get("p99_s") for key in STEP_KEYS}
    cells |= {key: "-" if value is None else short_s(value) for key, value in p99_s.items()}
    numbers |= {key: float(value or 0) for key, value in p99_s.items()}
    cells |= {"site": place_text(site), "worker": str(row.get("pid"))}
    numbers |= {"oldest": float(row.get("oldest_s") or 0), "ran": float(row.get("running_s") or 0)}
    # a filter matches the site's own text
    opens = f"{site.get('file')}:{site.get('line')}" if site.get("file") else str(site.get("function") or "")
    details = (f"made in {_long(site)}", "Enter lists these tasks", caption)
    return TopRow((row.get("pid"), cells["site"]), cells, numbers, "", details, opens=opens)


def _stack_group(row: Mapping[str, Any], caption: str) -> TopRow:
    frames, names = row.get("frames") or [], [printable(name) for name in row.get("names") or ()]
    count = float(row.get("count") or 0)
    innermost = place_text(frames[-1]) if frames else "-"
    cells = {"count": amount(count), "awaits": printable(row.get("awaits") or "-"), "site": innermost}
    cells |= {"names": ", ".join(names), "worker": str(row.get("pid"))}
    stack = tuple(f"  {place_text(frame)}" for frame in reversed(frames[-4:]))
    details = ("await stack, innermost first:", *stack, f"tasks: {cells['names']}", caption)
    return TopRow(
        (row.get("pid"), cells["awaits"], innermost, names[:1] and names[0]), cells, {"count": count}, "", details
    )
