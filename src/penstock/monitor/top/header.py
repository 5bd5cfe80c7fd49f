"""The first lines of the screen: the first fault, the state of the process and of the connection, the views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.monitor.rules.engine import NOTHING
from penstock.monitor.texts import duration, printable
from penstock.monitor.top.formats import short_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.monitor.top.state import TopState

__all__ = ["fault_line", "status_line", "tabs_line"]


def fault_line(state: TopState) -> str:
    """Return the first fault, and the next step."""
    if state.has_ended:
        return "x the process has ended; its last figures stay"
    if not any(each.has_answered for each in state.shown):
        return f"? {state.problem or next((each.problem for each in state.shown if each.problem), 'asking')}"
    if not state.diagnoses:
        return f"= {NOTHING}"
    pid, found = state.diagnoses[0]
    numbers = {each.pid: each.number for each in state.shown}
    worker = f"worker {numbers.get(pid) or pid}: " if pid is not None else ""
    more = f" (+{len(state.diagnoses) - 1} more: 6)" if len(state.diagnoses) > 1 else ""
    return f"{'!!' if found.severity == 'error' else '!'} {worker}{printable(found.line)}{more}"


def status_line(state: TopState, *, interval_s: float, is_paused: bool, silent_s: float) -> str:
    """Return the process, and how it answers. The urgent parts are first: a narrow terminal cuts the end."""
    parts = [_health(state, silent_s)]
    if is_paused:
        parts.insert(0, "PAUSED (p: go on)")
    parts += [_name(state), f"every {interval_s:g} s"]
    process = state.figures.process
    if process.uptime_s:
        parts.append(f"up {short_s(process.uptime_s)}")
    if process.python:
        parts.append(f"python {process.python}, penstock {process.penstock}")
    return "  ".join(parts)


def _name(state: TopState) -> str:
    if state.is_merged:
        alive = sum(not each.has_ended for each in state.shown)
        return f"{alive} workers together (w: one)"
    if not state.shown:
        return ""
    only = state.shown[0]
    worker = f" worker {only.number}" if only.number is not None else ""
    return f"{printable(state.figures.process.name or 'process')} pid {only.pid}{worker}"


def _health(state: TopState, silent_s: float) -> str:
    if state.has_ended:
        return "ENDED"
    if silent_s > 2.5:
        return f"NO ANSWER for {short_s(silent_s)}"
    problem = next((each.problem for each in state.shown if each.problem and not each.has_ended), "")
    if problem:
        return f"NO ANSWER: {printable(problem)}"
    held = "; the GIL is held" if state.figures.partial else ""
    if state.blocked_s:
        return f"BLOCKED for {duration(state.blocked_s)}{held}"
    return f"PARTIAL{held}" if held else "connected"


def tabs_line(names: Sequence[str], chosen: int) -> str:
    """Return the names of the views with their keys; brackets mark the present one."""
    cells = [f"[{at} {name}]" if at == chosen + 1 else f" {at} {name} " for at, name in enumerate(names, 1)]
    return "".join(cells)
