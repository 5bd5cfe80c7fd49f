"""Numbers, places and names as text for people: in a sentence, or in a cell of a table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.tasks.place import Place

__all__ = ["count_text", "duration", "often", "place_text", "printable", "share_text", "size", "where"]

MIB_BYTES = 1 << 20
# from here on hours are shown, not minutes
LONG_S = 7200.0


def duration(seconds: float) -> str:
    """Return seconds with at most three digits and their unit."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs" if seconds > 0 else "0 s"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.2g} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < LONG_S else f"{seconds / 3600:.0f} h"


def share_text(share: float) -> str:
    """Return a share in per cent."""
    return f"{share * 100:.0f} %"


def size(count_bytes: float) -> str:
    """Return bytes as MiB or GiB."""
    mib = count_bytes / MIB_BYTES
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


def count_text(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural for all but one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def often(count: int, seconds: float) -> str:
    """Return how often something happened in an interval."""
    return f"{'once' if count == 1 else f'{count:,} times'} in {duration(seconds)}"


def where(place: Place | None) -> str:
    """Return the file, without its folder, and the line; the function alone for a place without a file."""
    if place is None:
        return "an unknown place"
    return f"{os.path.basename(place.file)}:{place.line}" if place.file else place.function


def place_text(place: Place | Mapping[str, Any] | None) -> str:
    """Return a place in short, "app.py:41 in handler"; a dash for an unknown one."""
    if not place:
        return "-"
    if isinstance(place, Mapping):
        file, line, function = place.get("file"), place.get("line"), place.get("function")
    else:
        file, line, function = place.file, place.line, place.function
    if not file:
        return printable(function or "-")
    return printable(f"{os.path.basename(str(file))}:{line}" + (f" in {function}" if function else ""))


def printable(text: object) -> str:
    """Return text with a question mark in place of each control character; a program's names may have any."""
    line = str(text)
    return line if line.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in line)
