"""The first line of the page: what is wrong with a process, and the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.monitor.figures import Blocked
    from penstock.monitor.history import History

__all__ = ["judge"]


def judge(history: History) -> list[dict[str, Any]]:
    """Return rows with `text`, `next` and `severity`; none if nothing is wrong."""
    latest = history.series(1)
    return [_row(loop.name, loop.blocked) for each in latest for loop in each.loops if loop.blocked is not None]


def _row(name: str, blocked: Blocked) -> dict[str, Any]:
    place = f" in {blocked.stack[0]}" if blocked.stack else ""
    text = f"The loop {name} is blocked{place} for {blocked.lasted_s:.1f} s."
    return {"text": text, "next": "Move the call off the loop: penstock.offload.", "severity": blocked.lasted_s}
