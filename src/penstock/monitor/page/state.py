"""The state of the page: the processes, their diagnoses, and the newest figures of the chosen ones."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from penstock.monitor.page.sampler import MERGED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.monitor.history import History
    from penstock.monitor.page.sampler import PageSampler, PageSeries

__all__ = ["page_state", "state_name"]

Answer = dict[str, Any]
# diagnoses that are shown
MOST_WRONG = 8
# without an answer for this time, a process counts as silent
SILENT_S = 3.0
LOOP_KEYS = (
    *("name", "implementation", "level", "running", "utilization", "ready_count", "timer_count", "turns"),
    *("blocked", "stalls", "findings", "connections", "overload"),
)
LANE_KEYS = (
    *("name", "kind", "workers", "workers_busy", "workers_limit", "queued", "running", "queue_limit"),
    *("completed", "shed", "restarts"),
)
GATE_KEYS = ("name", "limit", "inflight", "queued", "oldest_wait_s", "admitted", "finished", "sheds", "limit_reason")


def page_state(sampler: PageSampler, scope: int) -> Answer:
    """Return the state for a scope: a pid, or MERGED for all processes."""
    every = sampler.series()
    chosen = every if scope == MERGED else [each for each in every if each.pid == scope]
    shown = sampler.of(scope)
    live = [each for each in chosen if each.ended_s is None]
    point = shown.points[-1].as_json() if shown is not None and shown.points else None
    only = chosen[0] if len(chosen) == 1 else live[0] if len(live) == 1 else None
    return {
        "wall_time_s": time.time(),
        "scope": scope,
        "processes": [_row(each) for each in every],
        "wrong": _wrong(live, is_one=len(every) == 1),
        "notices": _notices(sampler, chosen),
        "point": point,
        "details": None if only is None else _details(only.history),
        "finding_mark": sum(each.history.mark for each in every),
        "ended": bool(chosen) and not live,
    }


def state_name(series: PageSeries) -> str:
    """Return running, partial, silent, starting or ended."""
    if series.ended_s is not None:
        return "ended"
    latest = series.history.latest
    if latest is None:
        return "silent" if series.problem else "starting"
    if series.problem and time.monotonic() - series.answered_s > SILENT_S:
        return "silent"
    return "partial" if latest.get("partial") else "running"


def _row(series: PageSeries) -> Answer:
    process = (series.history.latest_whole or {}).get("process") or {}
    point = series.points[-1].as_json() if series.points else {}
    return {
        "pid": series.pid,
        "number": series.number,
        "name": process.get("name"),
        "state": state_name(series),
        "problem": series.problem,
        "uptime_s": process.get("uptime_s"),
        "python": process.get("python"),
        "penstock": process.get("penstock"),
        "actions": bool(process.get("actions")),
        **{key: point.get(key) for key in ("utilization", "p99_s", "live", "rss_bytes", "cpu", "blocked_s")},
    }


def _details(history: History) -> Answer | None:
    """Return the tables of one process; while the GIL is held, of the last whole snapshot, with its age."""
    latest, full = history.latest, history.latest_whole or history.latest
    if latest is None or full is None:
        return None
    loops = [loop for loop in full.get("loops") or [] if isinstance(loop, dict)]
    lanes = [lane for loop in loops for lane in loop.get("lanes") or ()]
    return {
        "process": full.get("process"),
        "loops": [_picked(loop, LOOP_KEYS) for loop in loops],
        "lanes": [_picked(lane, LANE_KEYS) for lane in lanes],
        "gates": [_picked(gate, GATE_KEYS) for gate in full.get("gates") or ()],
        "age_s": max(0.0, (latest.get("at_s") or 0.0) - (full.get("at_s") or 0.0)),
        "threads": latest.get("threads") if latest.get("partial") else None,
    }


def _picked(row: Mapping[str, Any], keys: Sequence[str]) -> Answer:
    return {key: row[key] for key in keys if key in row}


def _wrong(live: Sequence[PageSeries], *, is_one: bool) -> list[Answer]:
    """Return the diagnoses, the cause first; a fault that several workers have is one row."""
    rows: dict[tuple[str, str], Answer] = {}
    for series in live:
        for place, found in enumerate(series.diagnoses):
            text = _as_sentence(found.sentence)
            key = found.kind, str(found.place or text)
            order = place, found.severity != "error", -found.rank
            row = rows.setdefault(
                key, {"text": text, "next": _as_sentence(found.next_step), "order": order, "workers": []}
            )
            row["order"] = min(row["order"], order)
            if not is_one:
                row["workers"].append(series.pid if series.number is None else series.number)
    return sorted(rows.values(), key=lambda row: row["order"])[:MOST_WRONG]


def _as_sentence(text: str) -> str:
    """Return the text with a capital letter, unless it begins with a name of code, and with a full stop."""
    word = text.partition(" ")[0]
    begin = text[:1].upper() if word.isalpha() and word.islower() else text[:1]
    return f"{begin}{text[1:]}{'' if text.endswith(('.', '?')) else '.'}"


def _notices(sampler: PageSampler, chosen: Sequence[PageSeries]) -> list[str]:
    """Return the notices about missing figures, each with its reason."""
    notices = []
    if sampler.problem:
        notices.append(f"The list of workers is not known: {sampler.problem}.")
    for series in chosen:
        label = _label(series)
        state = state_name(series)
        if state == "ended":
            if len(chosen) == 1:
                notices.append(f"{label} has ended. The charts show its last minutes.")
        elif state == "silent":
            notices.append(f"{label} does not answer: {series.problem}.")
        elif state == "partial":
            notices.append(_partial_notice(label, series.history.latest or {}, series.points[-1].blocked_s))
    return notices


def _partial_notice(label: str, answer: Mapping[str, Any], blocked_s: float | None) -> str:
    since = f" for {blocked_s:.1f} s" if blocked_s is not None else ""
    unread = [str(name) for name in answer.get("unread") or ()]
    missing = f" Not known meanwhile: {', '.join(unread)}." if unread else ""
    return f"{label}: the GIL is held{since}. These are the figures that need no GIL.{missing}"


def _label(series: PageSeries) -> str:
    return f"Process {series.pid}" if series.number is None else f"Worker {series.number} ({series.pid})"
