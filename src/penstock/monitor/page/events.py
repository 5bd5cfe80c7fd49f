"""Server-sent events: the history of the chosen scope once, then its state twice a second."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from penstock.monitor.page.sampler import HISTORY_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.monitor.page.sampler import PageSampler

__all__ = ["event", "state_events"]

# the interval of states: charts move without a jump
EVERY_S = 0.5
# the browser's wait before it connects again
RETRY_MS = 1500
# a stream ends then, and the browser connects again: a forgotten stream does not last for ever
LONGEST_S = 3600.0


def event(name: str, data: Any) -> bytes:
    """Return an event with its data as one line of JSON."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def state_events(
    sampler: PageSampler,
    scope: int,
    state: Callable[[], Any],
    *,
    every_s: float = EVERY_S,
) -> Iterator[bytes | None]:
    """Yield the events of a page that is open, with None between them.

    A state whose newest point was sent already comes without the point.
    """
    yield f"retry: {RETRY_MS}\n\n".encode()
    points = [point.as_json() for point in sampler.history(scope)]
    yield event("history", {"points": points, "seconds": HISTORY_S})
    sent_s = points[-1]["at_s"] if points else 0.0
    until_s = time.monotonic() + LONGEST_S
    while time.monotonic() < until_s:
        now = state()
        point = now.get("point")
        if point is not None and point["at_s"] <= sent_s:
            now = {**now, "point": None}
        elif point is not None:
            sent_s = point["at_s"]
        yield event("state", now)
        yield None
        time.sleep(every_s)
        yield None
