"""Values of an answer as the cells of a table. A value that is missing or of another type is a dash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.monitor.texts import duration, place_text, printable

__all__ = ["count", "items", "place", "seconds", "share", "tally", "text"]

DASH = "-"


def text(value: object) -> str:
    """Return a text in one line without control characters: names come from the observed program."""
    if value is None:
        return DASH
    return printable(" ".join(str(value).split()))


def count(value: object) -> str:
    """Return a whole number with separators."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else DASH


def seconds(value: object) -> str:
    """Return a time with its unit."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return DASH
    return duration(value) if value > 0 else "0"


def share(value: object) -> str:
    """Return a share in per cent."""
    return f"{value * 100:.0f}%" if isinstance(value, int | float) and not isinstance(value, bool) else DASH


def place(value: object) -> str:
    """Return a place as the file without its folder, the line, and the function."""
    return text(place_text(value)) if isinstance(value, Mapping) else DASH


def tally(value: object) -> str:
    """Return counts by kind, largest first: `3 stall, 1 hung`."""
    if not isinstance(value, Mapping):
        return DASH
    counts = {kind: each for kind, each in value.items() if isinstance(each, int) and each}
    if not counts:
        return "0"
    return ", ".join(f"{each:,} {text(kind)}" for kind, each in sorted(counts.items(), key=lambda item: -item[1]))


def items(answer: object, key: str) -> list[dict[str, Any]]:
    """Return the objects in a list of an answer; none if there is no such list."""
    found = answer.get(key) if isinstance(answer, Mapping) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
