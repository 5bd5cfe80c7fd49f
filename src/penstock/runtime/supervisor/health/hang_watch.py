"""The judgement whether a worker hangs, by what its supervisor itself has observed. Arithmetic without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.runtime.supervisor.health.page import DRAINING, SERVING

if TYPE_CHECKING:
    from penstock.runtime.supervisor.health.page import HealthReading

__all__ = ["HangWatch"]

# a pause of the supervisor itself, such as of a stopped machine, counts for at most so long
MOST_STEP_NS = 1_000_000_000
# a writer that is late by less is only busy
LATE_NS = 500_000_000


class HangWatch:
    """The hang of one worker: one callback that does not end, or a page that is not written any more.

    A turn of many callbacks that end is busy, and no hang.
    """

    def __init__(self) -> None:
        self._seen_ns = 0
        self._callback, self._silence = _Span(), _Span()

    def check(self, reading: HealthReading, now_ns: int) -> float:
        """Return for how many seconds the worker has hung, at the time `now_ns` of this reading."""
        step_ns, self._seen_ns = min(max(now_ns - self._seen_ns, 0), MOST_STEP_NS), now_ns
        serves = reading.state in (SERVING, DRAINING) and reading.written_ns
        is_silent = now_ns - reading.written_ns > LATE_NS
        callback_ns = self._callback.passed(reading.callback_since_ns if serves else 0, now_ns, step_ns)
        silence_ns = self._silence.passed(reading.written_ns if serves and is_silent else 0, now_ns, step_ns)
        return max(callback_ns, silence_ns) / 1e9


class _Span:
    """A time that goes on: how much of it has been observed."""

    def __init__(self) -> None:
        self._since_ns = self._observed_ns = 0

    def passed(self, since_ns: int, now_ns: int, step_ns: int) -> int:
        """Return how much has been observed of what began at `since_ns`; 0 for nothing."""
        if since_ns != self._since_ns:
            self._since_ns, self._observed_ns = since_ns, 0
            # it began after the last check, or a little before
            step_ns = min(step_ns, max(now_ns - since_ns, 0))
        self._observed_ns = self._observed_ns + step_ns if since_ns else 0
        return self._observed_ns
