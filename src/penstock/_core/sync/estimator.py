# cython: annotation_typing=False, nonecheck=True
"""How fast a gate moves: the time of service, the time between departures, and whether waits are estimated rightly.

Moving averages, the first few of which are plain means. Native where it is built (`estimator.pxd` has the types), this
very source elsewhere. Knows no clock, no queue and no limit.
"""

from __future__ import annotations

import math

__all__ = ["ServiceEstimator"]

# Averages are over about so many, and as many more as there are permits: those who came together leave together.
MEMORY = 8
# Departures tell how fast the queue moves for so long; afterwards the time of service does.
GAP_HOLDS_S = 1.0
# What is left of a deadline must be this many service times; but a fresh arrival always has enough, so that a service
# slower than its deadline is measured again.
MARGIN_SERVICES, LARGEST_MARGIN = 2.0, 0.9
# Estimates fail when service slows or the loop has stood still: more than half of those who leave the queue then are
# expired. For `STANDING_S` or two of its longest waits, the newest is served first and the old end is refused after two
# service times, within these bounds (Fail at Scale, B. Maurer, ACM Queue 2015). Not, as there, whenever the queue has
# stood for 100 ms: it does at the very capacity, and goodput would be 3 to 6 points less, refusals 20 ms late.
STANDING_S = 0.1
SHORTEST_TIMEOUT_S, LONGEST_TIMEOUT_S = 0.005, 0.05
MOSTLY, LATE_WEIGHT = 0.5, 0.0625


class ServiceEstimator:
    """The averages of one gate. All times in seconds."""

    def __init__(self) -> None:
        self.service_s = self.gap_s = 0.0
        self.service_count = self.gap_count = 0
        self.departed_s = -math.inf
        # of those who leave the queue by the gate's doing, the share that is expired; until when it is overloaded
        self.late_share = 0.0
        self.overloaded_until_s = -math.inf

    def forget(self) -> None:
        """Another loop, another clock: only the time of service is known."""
        self.gap_count = 0
        self.departed_s = self.overloaded_until_s = -math.inf

    def served(self, rtt_s: float, bound: int) -> None:
        """One was inside for so long."""
        self.service_count += 1
        self.service_s += (rtt_s - self.service_s) * max(1.0 / self.service_count, 1.0 / (MEMORY + bound))

    def departed(self, now_s: float, backlog_since_s: float, bound: int) -> None:
        """A permit comes back while others wait: two such in one backlog tell how fast it moves."""
        if self.departed_s >= backlog_since_s:
            self.gap_count += 1
            weight = max(1.0 / self.gap_count, 1.0 / (MEMORY + bound))
            self.gap_s += (now_s - self.departed_s - self.gap_s) * weight
        self.departed_s = now_s

    def gap(self, now_s: float, bound: int) -> float:
        """The time from one departure to the next while others wait; 0 if nobody can tell."""
        if self.gap_count > 0 and now_s - self.departed_s < GAP_HOLDS_S:
            return self.gap_s
        self.gap_count = 0
        return self.service_s / bound if bound > 0 else 0.0

    def rescale(self, before: int, bound: int) -> None:
        """The bound has changed: departures are as much faster."""
        # multiplied first: a division of the two would be C's, of whole numbers
        self.gap_s = self.gap_s * before / bound

    def retry_s(self, queued: int) -> float:
        """When so many and one more will have left; 0 if nobody can tell."""
        return self.gap_s * (queued + 1) if self.gap_count > 0 else self.service_s

    def is_too_late(self, waited_s: float, deadline_s: float) -> bool:
        """Whether one that has waited so long could not finish by its deadline."""
        margin_s = min(MARGIN_SERVICES * self.service_s, LARGEST_MARGIN * deadline_s)
        return waited_s + margin_s > deadline_s

    def is_overloaded(self, now_s: float) -> bool:
        """Whether waits were estimated wrongly: then the newest is served first."""
        return now_s < self.overloaded_until_s

    def noted(self, is_late: bool, now_s: float, max_wait_s: float) -> None:
        """One has left the queue, for a permit or because it had waited too long."""
        if now_s < self.overloaded_until_s:
            return
        self.late_share += ((1.0 if is_late else 0.0) - self.late_share) * LATE_WEIGHT
        if self.late_share > MOSTLY:
            self.late_share = 0.0
            self.overloaded_until_s = now_s + max(STANDING_S, 2 * max_wait_s)

    def timeout_s(self, now_s: float, patience_s: float) -> float:
        """How long one may wait now: `patience_s`, or less while it is overloaded."""
        if now_s >= self.overloaded_until_s or self.service_count == 0:
            return patience_s
        longest_s = max(LONGEST_TIMEOUT_S, patience_s)
        return min(patience_s, max(SHORTEST_TIMEOUT_S, min(2 * self.service_s, longest_s)))
