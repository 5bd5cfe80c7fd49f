# cython: annotation_typing=False, nonecheck=True
"""Estimates of a gate's speed: the service time, the time between departures, and whether such estimates have failed.

They are moving averages; the first few are plain means. Native where it is built (`estimator.pxd` has the types), this
very source elsewhere. The estimator knows no clock, no queue and no limit.
"""

from __future__ import annotations

import math

__all__ = ["ServiceEstimator"]

# The length of an average in samples, to which the number of permits is added: calls that came together leave together.
MEMORY = 8
# The age at which the gap between departures is out of date; the service time is used then.
GAP_HOLDS_S = 1.0
# The rest of a deadline must be this many service times. A new arrival always has enough, so that a service slower than
# its deadline is measured again.
MARGIN_SERVICES, LARGEST_MARGIN = 2.0, 0.9
# Estimates fail when service slows or the loop has stood still: then more than half of the departures from the queue
# are expirations. For `STANDING_S` or twice the longest wait, whichever is more, the newest waiter is served first and
# the oldest is shed after two service times, within the bounds below (B. Maurer, "Fail at Scale", ACM Queue 2015). The
# article does so whenever the queue has stood for 100 ms. It does at the very capacity: goodput would be 3 to 6 points
# less, and refusals 20 ms late.
STANDING_S = 0.1
SHORTEST_TIMEOUT_S, LONGEST_TIMEOUT_S = 0.005, 0.05
MOSTLY, LATE_WEIGHT = 0.5, 0.0625


class ServiceEstimator:
    """The averages of one gate. All times are in seconds."""

    def __init__(self) -> None:
        self.service_s = self.gap_s = 0.0
        self.service_count = self.gap_count = 0
        self.departed_s = -math.inf
        # the expired share of the departures from the queue; the end of the overload
        self.late_share = 0.0
        self.overloaded_until_s = -math.inf

    def reset(self) -> None:
        """Forget all but the service time: the gate has another loop, with another clock."""
        self.gap_count = 0
        self.departed_s = self.overloaded_until_s = -math.inf

    def add_service(self, rtt_s: float, bound: int) -> None:
        """Take in the service time of one call, under a limit of `bound` permits."""
        self.service_count += 1
        self.service_s += (rtt_s - self.service_s) * max(1.0 / self.service_count, 1.0 / (MEMORY + bound))

    def add_departure(self, now_s: float, backlog_since_s: float, bound: int) -> None:
        """Take in a departure while calls wait: two within one backlog give a gap."""
        if self.departed_s >= backlog_since_s:
            self.gap_count += 1
            weight = max(1.0 / self.gap_count, 1.0 / (MEMORY + bound))
            self.gap_s += (now_s - self.departed_s - self.gap_s) * weight
        self.departed_s = now_s

    def departure_gap_s(self, now_s: float, bound: int) -> float:
        """Return the time from one departure to the next while calls wait; 0 if unknown."""
        if self.gap_count > 0 and now_s - self.departed_s < GAP_HOLDS_S:
            return self.gap_s
        self.gap_count = 0
        return self.service_s / bound if bound > 0 else 0.0

    def rescale(self, before: int, bound: int) -> None:
        """Scale the gap to a bound that has changed."""
        # multiplied first: a division of the two would be C's division of integers
        self.gap_s = self.gap_s * before / bound

    def retry_s(self, queued: int) -> float:
        """Return the time in which `queued` calls and one more leave; 0 if unknown."""
        return self.gap_s * (queued + 1) if self.gap_count > 0 else self.service_s

    def is_too_late(self, waited_s: float, deadline_s: float) -> bool:
        """Return whether a call that has waited so long cannot finish by its deadline."""
        margin_s = min(MARGIN_SERVICES * self.service_s, LARGEST_MARGIN * deadline_s)
        return waited_s + margin_s > deadline_s

    def is_overloaded(self, now_s: float) -> bool:
        """Return whether the estimates have failed: the newest waiter is then served first."""
        return now_s < self.overloaded_until_s

    def add_outcome(self, is_late: bool, now_s: float, max_wait_s: float) -> None:
        """Take in a departure from the queue: with a permit, or expired (`is_late`)."""
        if now_s < self.overloaded_until_s:
            return
        self.late_share += ((1.0 if is_late else 0.0) - self.late_share) * LATE_WEIGHT
        if self.late_share > MOSTLY:
            self.late_share = 0.0
            self.overloaded_until_s = now_s + max(STANDING_S, 2 * max_wait_s)

    def timeout_s(self, now_s: float, longest_wait_s: float) -> float:
        """Return how long a call may wait now: `longest_wait_s`, or less during an overload."""
        if now_s >= self.overloaded_until_s or self.service_count == 0:
            return longest_wait_s
        longest_s = max(LONGEST_TIMEOUT_S, longest_wait_s)
        return min(longest_wait_s, max(SHORTEST_TIMEOUT_S, min(2 * self.service_s, longest_s)))
