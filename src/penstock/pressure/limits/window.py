"""What a limit is told, and what it answers: the contract between the gate, which counts, and the arithmetic.

The gate closes a window when the limit's `window_s` have passed and `LEAST_SAMPLES` have come, hands it to `update()`,
and enforces the number that comes back. Neither side knows more of the other than this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LEAST_SAMPLES", "MOST_SAMPLES", "Limit", "Window"]

# A median of fewer says little; more than the most cost time to sort and say nothing new.
LEAST_SAMPLES = 10
MOST_SAMPLES = 512


@dataclass(frozen=True, slots=True)
class Window:
    """What happened at a gate in `duration_s` seconds.

    `rtts_s`: service times after admission, with the loop's lag or without, in seconds, any order; a sample of at most
    `MOST_SAMPLES`, only of entries that began after the previous window began, so that what an older limit let in says
    nothing of this one. `completed` and `dropped` count all that ended in the window: in order, or for want of time.
    `most_inflight` is the highest count of permits held at once, `inflight` the count at the end; `was_full` says that
    somebody found no permit free.
    """

    duration_s: float
    rtts_s: Sequence[float] = ()
    completed: int = 0
    dropped: int = 0
    most_inflight: int = 0
    inflight: int = 0
    was_full: bool = False

    @property
    def throughput(self) -> float:
        """Completions a second."""
        return self.completed / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def median_s(self) -> float:
        """The middle of the service times, in seconds; the upper one of two. 0.0 without any."""
        return sorted(self.rtts_s)[len(self.rtts_s) // 2] if self.rtts_s else 0.0

    @property
    def mean_s(self) -> float:
        """The mean of the service times, in seconds. 0.0 without any."""
        return sum(self.rtts_s) / len(self.rtts_s) if self.rtts_s else 0.0

    def joined(self, later: Window) -> Window:
        """This window and the one right after it, as one."""
        return Window(
            duration_s=self.duration_s + later.duration_s,
            rtts_s=(*self.rtts_s, *later.rtts_s)[-MOST_SAMPLES:],
            completed=self.completed + later.completed,
            dropped=self.dropped + later.dropped,
            most_inflight=max(self.most_inflight, later.most_inflight),
            inflight=later.inflight,
            was_full=self.was_full or later.was_full,
        )


@runtime_checkable
class Limit(Protocol):
    """How many may be in flight at once, and what moves that number.

    `value` is the number, at least 1; `reason` a short phrase of why it last moved; `window_s` how long a window
    should be, in seconds. `update()` takes a window and returns the new `value`: deterministic, never raises, and
    reads no clock.
    """

    value: int
    reason: str
    window_s: float

    def update(self, window: Window) -> int:
        """Take what happened into account; the number from now on."""
        ...
