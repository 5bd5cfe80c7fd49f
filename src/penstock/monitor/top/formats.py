"""Numbers as text of five characters or less, for the narrow cells of a terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from penstock.monitor.texts import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "amount",
    "counts_text",
    "memory",
    "per_second",
    "percent",
    "short_s",
    "spark",
    "wrapped",
]

BARS = " ▁▂▃▄▅▆▇█"
# (least seconds, seconds in the unit, unit)
UNITS = (
    (86_400.0, 86_400.0, "d"),
    (3600.0, 3600.0, "h"),
    (120.0, 60.0, "m"),
    (0.9995, 1.0, "s"),
    (0.9995e-3, 1e-3, "ms"),
)


def short_s(seconds: float | None) -> str:
    """Return seconds in five characters or less."""
    if not seconds:
        return "0" if seconds is not None else "-"
    for least_s, unit_s, unit in UNITS:
        if seconds >= least_s:
            return f"{_digits(seconds / unit_s)}{unit}"
    return f"{seconds * 1e6:.0f}us"


def _digits(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def amount(count: float | None) -> str:
    """Return a count in five characters or less."""
    if count is None:
        return "-"
    for least, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= least:
            return f"{_digits(count / (1e3 if unit == 'k' else least))}{unit}"
    return f"{count:.0f}"


def per_second(rate: float) -> str:
    """Return a rate; one digit behind the point if it is small."""
    return f"{rate:.1f}" if 0 < rate < 9.95 else amount(rate)


def percent(share: float) -> str:
    """Return a share in per cent."""
    return f"{share * 100:.1f}%" if 0 < share < 0.0995 else f"{share * 100:.0f}%"


def memory(count_bytes: float | None) -> str:
    """Return bytes with a binary unit."""
    if count_bytes is None:
        return "-"
    for least, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count_bytes >= least:
            return f"{_digits(count_bytes / least)}{unit}"
    return f"{count_bytes:.0f}B"


def counts_text(counts: Mapping[str, float]) -> str:
    """Return counts that are not 0 with their names, or "none"."""
    return ", ".join(f"{printable(name)} {amount(count)}" for name, count in counts.items() if count) or "none"


def wrapped(text: str, width: int, most: int) -> str:
    """Return text in lines of `width`, at most `most`; an ellipsis ends a text that is longer."""
    return "\n".join(textwrap.wrap(text, max(10, width), max_lines=most, placeholder=" …"))


def spark(values: list[float], most: float | None = None) -> str:
    """Return values as bars; `most` is the value of the highest bar, else the highest value."""
    top = most or max(values, default=0.0)
    steps = len(BARS) - 1
    return "".join(
        BARS[min(steps, -(-int(value / top * steps * 1000) // 1000))] if top else BARS[0] for value in values
    )
