"""The screens above the main one: help, the choice of a process, and a task in detail."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, ClassVar

from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import OptionList, Static

from penstock.monitor.texts import printable
from penstock.monitor.top.formats import short_s

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from penstock.monitor.top.columns import TopColumn
    from penstock.monitor.top.state import TopState

__all__ = ["ChoiceScreen", "HelpScreen", "TaskScreen", "help_text", "task_text"]

NO_STACK = "none: one task in 128 has it, one in 8 at the level trace"
KEYS = (
    ("1 to 6, Tab", "another view"),
    ("up, down, PgUp, PgDn", "select a row; the lines below the table have more of it"),
    ("left, right", "select a column; the last line but one explains it"),
    ("s, r or S", "sort by the selected column, or by the next one; reverse the order"),
    ("/", "filter: rows with the text; an empty text shows all"),
    ("g", "tasks: a list, groups by the line that made them, groups by await stack"),
    ("Enter", "tasks: look at a task, or list a group"),
    ("w", "choose a worker, or all together"),
    ("p", "pause, and go on"),
    ("?", "this help"),
    ("Escape, q", "back; end"),
)


def help_text(views: Sequence[tuple[str, Sequence[TopColumn]]], width: int) -> str:
    """Return all keys and all columns with their explanations, in lines of `width`."""
    lines = ["Keys", *(_explained(key, text, 22, width) for key, text in KEYS), ""]
    lines += ["An arrow beside a figure: it rises or falls against its last values.", ""]
    for name, columns in views:
        lines += [name, *(_explained(each.title, each.explanation, 10, width) for each in columns), ""]
    return "\n".join(lines)


def _explained(name: str, text: str, name_width: int, width: int) -> str:
    return textwrap.fill(
        text, width, initial_indent=f"  {name:<{name_width}}", subsequent_indent=" " * (name_width + 2)
    )


class _TextScreen(Screen[None]):  # type: ignore[misc]
    """Text that scrolls, and a line of keys."""

    BINDINGS: ClassVar[Any] = [("escape,q,question_mark", "back", "back")]
    CSS = "#text { height: 1fr; } #keys { height: 1; text-style: bold; }"
    keys_text = "up, down, PgUp, PgDn: scroll   Escape: back"

    def compose(self) -> Any:
        """Yield the text and the keys."""
        with VerticalScroll(id="text"):
            yield Static("", id="body", markup=False)
        yield Static(self.keys_text, id="keys", markup=False)

    def show(self, text: str) -> None:
        """Show another text."""
        self.query_one("#body", Static).update(text)

    def action_back(self) -> None:
        """Return to the screen below."""
        self.app.pop_screen()


class HelpScreen(_TextScreen):
    """The keys and the columns."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def on_mount(self) -> None:
        """Show the text."""
        self.show(self._text)


class ChoiceScreen(Screen[Any]):  # type: ignore[misc]
    """A list of processes; the result is the chosen number, None for none."""

    BINDINGS: ClassVar[Any] = [("escape,q", "leave", "back")]
    CSS = "OptionList { height: 1fr; border: none; } Static { height: 1; text-style: bold; }"

    def __init__(self, title: str, choices: Sequence[tuple[int, str]]) -> None:
        super().__init__()
        self._title, self._choices = title, choices

    def compose(self) -> Any:
        """Yield the title, the list and the keys."""
        yield Static(self._title, markup=False)
        yield OptionList(*(text for _, text in self._choices), markup=False)
        yield Static("up, down: select   Enter: choose   Escape: back", markup=False)

    def on_option_list_option_selected(self, event: Any) -> None:
        """Return the chosen number."""
        self.dismiss(self._choices[event.option_index][0])

    def action_leave(self) -> None:
        """Return nothing."""
        self.dismiss(None)


class TaskScreen(_TextScreen):
    """A task in detail: its await chain, its creation stack, and the tasks before and after it."""

    BINDINGS: ClassVar[Any] = [("w", "follow('waiters')", "waiter"), ("a", "follow('awaited_tasks')", "awaited")]
    keys_text = "w: first waiter  a: first awaited task  up, down: scroll  Escape: back"

    def __init__(self, pid: int, number: int, follow: Callable[[int, int], None]) -> None:
        super().__init__()
        self.pid, self.number = pid, number
        self._follow = follow
        self._answer: Mapping[str, Any] = {}

    def on_mount(self) -> None:
        """Show that the answer is awaited."""
        self.show(f"task {self.number}: asking")

    def take(self, state: TopState) -> None:
        """Show the newest answer; the former one stays while there is none."""
        if state.inspected == (self.pid, self.number):
            self._answer = state.inspection or self._answer
            self.show(task_text(self.number, self._answer, state.inspection_problem))

    def action_follow(self, key: str) -> None:
        """Look at the first task before or after this one."""
        others = [each for each in self._answer.get(key) or () if each.get("number")]
        if others:
            self._follow(self.pid, others[0]["number"])


def task_text(number: int, answer: Mapping[str, Any], problem: str) -> str:
    """Return a task in detail as lines."""
    lines = [f"! {printable(problem)}", ""] if problem else []
    row = answer.get("task")
    if not row:
        return "\n".join([*lines, f"task {number}"])
    lines += [
        f"task {number}  {printable(row.get('name'))}",
        f"state    {row.get('state')} in loop {printable(row.get('loop'))}",
    ]
    times = (("age", "age_s"), ("ran", "running_s"), ("was ready", "ready_s"), ("waits", "waiting_s"))
    lines.append("time     " + "   ".join(f"{name} {short_s(row.get(key))}" for name, key in times))
    lines += [f"steps    {row.get('steps')}", ""]
    awaits = answer.get("awaits") or {}
    lines += ["Await chain, innermost last", *_frames(answer.get("chain"))]
    lines += [f"  awaits {printable(awaits.get('text') or 'nothing')}", ""]
    lines += ["Waited for by", *_tasks(answer.get("waiters")), ""]
    lines += ["Awaits the tasks", *_tasks(answer.get("awaited_tasks")), ""]
    lines += ["Creation stack", *_frames(answer.get("creation_stack"), NO_STACK)]
    return "\n".join(lines)


def _frames(frames: Sequence[Mapping[str, Any]] | None, none: str = "none is known") -> list[str]:
    found = [printable(f"  {each.get('file')}:{each.get('line')} in {each.get('function')}") for each in frames or ()]
    return found or [f"  {none}"]


def _tasks(tasks: Sequence[Mapping[str, Any]] | None) -> list[str]:
    return [f"  {each.get('number')}  {printable(each.get('name'))}" for each in tasks or ()] or ["  none"]
