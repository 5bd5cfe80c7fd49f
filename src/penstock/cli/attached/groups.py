"""Groups of tasks with the same stack, and cycles of tasks that wait for each other, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.cli.attached import cells

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["cycle_lines", "group_lines", "matching_groups"]


def group_lines(groups: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a head and the frames, the innermost first, of each group of tasks."""
    for group in groups:
        number = group.get("count")
        names = group.get("names")
        listed = [cells.text(name) for name in names] if isinstance(names, list) else []
        more = ", ..." if isinstance(number, int) and number > len(listed) else ""
        yield f"{cells.count(number)} task{'' if number == 1 else 's'}: {', '.join(listed)}{more}"
        yield f"  awaits {cells.text(group.get('awaits'))}"
        yield from (f"    {cells.place(frame)}" for frame in reversed(cells.items(group, "frames")))


def cycle_lines(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each cycle of tasks."""
    cycles = answer.get("cycles")
    for cycle in cycles if isinstance(cycles, list) else []:
        names = [cells.text(name) for name in cycle] if isinstance(cycle, list) else []
        if names:
            yield f"cycle: {' -> '.join([*names, names[0]])}"


def matching_groups(groups: Sequence[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """Return the groups with the text in a name, a frame or the awaited object."""
    return [group for group in groups if text.lower() in " ".join(group_lines([group])).lower()]
