"""The first line of the page: what is wrong with a process, and the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["judge"]

Answer = dict[str, Any]


def judge(snapshots: Sequence[Answer]) -> list[Answer]:
    """Return rows with `text`, `next` and `severity`, the worst first; none if nothing is wrong."""
    if not snapshots:
        return []
    return [row for loop in snapshots[-1].get("loops") or () if (row := _blocked(loop)) is not None]


def _blocked(loop: Answer) -> Answer | None:
    blocked = loop.get("blocked")
    if not isinstance(blocked, dict):
        return None
    stack = blocked.get("stack") or ()
    place = f" in {stack[0]}" if stack else ""
    lasted_s = float(blocked.get("lasted_s") or 0.0)
    text = f"The loop {loop.get('name') or ''} is blocked{place} for {lasted_s:.1f} s."
    return {"text": text, "next": "Move the call off the loop: penstock.offload.", "severity": lasted_s}
