"""Numbers, places and names as the words of a sentence."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.tasks.place import Place

__all__ = ["count_text", "duration", "often", "share_text", "size", "where"]

MIB_BYTES = 1 << 20


def duration(seconds: float) -> str:
    """Return seconds with two or three digits and their unit."""
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.2g} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


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
