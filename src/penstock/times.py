"""A histogram of durations in fixed memory, and its frozen snapshot for statistics.

Log-linear, as in HdrHistogram: 16 buckets for each power of two, so a quantile is within 3 %. The native class is used
where the extension is built.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from penstock.purity import is_pure_requested

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["BUCKETS", "LONGEST_NS", "Histogram", "PlainHistogram", "Times", "merged", "since", "taken", "upper_ns"]

# A duration below 32 ns is its own bucket; a longer one has the bucket of its five highest bits and their shift.
HIGH_BITS = 5
# 2**45 ns are 9.8 hours; a longer duration counts as that
MOST_BITS = 45
LONGEST_NS = (1 << MOST_BITS) - 1
BUCKETS = ((MOST_BITS - HIGH_BITS) << (HIGH_BITS - 1)) + (1 << HIGH_BITS)


def upper_ns(bucket: int) -> int:
    """Return the exclusive upper bound of a bucket, in nanoseconds."""
    shift = max(0, (bucket >> (HIGH_BITS - 1)) - 1)
    return (bucket - (shift << (HIGH_BITS - 1)) + 1) << shift


def _middle_ns(bucket: int) -> float:
    lower_ns = upper_ns(bucket - 1) if bucket else 0
    return (lower_ns + upper_ns(bucket) - 1) / 2


@dataclass(frozen=True, slots=True)
class Times:
    """A snapshot of durations in seconds; all zero if `count` is 0.

    `buckets` are the non-empty buckets, ascending: (index, count). Quantiles are within 3 %.
    """

    count: int = 0
    total_s: float = 0.0
    max_s: float = 0.0
    buckets: tuple[tuple[int, int], ...] = ()

    @property
    def mean_s(self) -> float:
        """The exact mean in seconds."""
        return self.total_s / self.count if self.count else 0.0

    @property
    def p50_s(self) -> float:
        """The median in seconds."""
        return self.quantile_s(0.5)

    @property
    def p90_s(self) -> float:
        """The 90th percentile in seconds."""
        return self.quantile_s(0.9)

    @property
    def p99_s(self) -> float:
        """The 99th percentile in seconds."""
        return self.quantile_s(0.99)

    def quantile_s(self, share: float) -> float:
        """Return the quantile of `share` (0 to 1) in seconds."""
        rank, seen = share * self.count, 0
        for bucket, count in self.buckets:
            seen += count
            if seen >= rank:
                return min(_middle_ns(bucket) / 1e9, self.max_s)
        return self.max_s

    def cumulative(self, bounds_s: Sequence[float]) -> list[int]:
        """Return the number of durations up to each of the ascending bounds: the `le` buckets of Prometheus.

        A bucket counts by its middle, so a duration within 3 % of a bound may be on either side.
        """
        middles_s = [_middle_ns(bucket) / 1e9 for bucket, _ in self.buckets]
        so_far = [0, *accumulate(count for _, count in self.buckets)]
        return [so_far[bisect_right(middles_s, bound_s)] for bound_s in bounds_s]


class PlainHistogram:
    """The histogram without native code. It is not thread-safe."""

    __slots__ = ("_buckets", "count", "longest_ns", "total_ns")

    def __init__(self) -> None:
        self._buckets = [0] * BUCKETS
        self.count = self.total_ns = self.longest_ns = 0

    def add(self, ns: int) -> None:
        """Count a duration of `ns` nanoseconds; a negative one counts as 0."""
        ns = max(ns, 0)
        self.count += 1
        self.total_ns += ns
        self.longest_ns = max(self.longest_ns, ns)
        ns = min(ns, LONGEST_NS)
        shift = ns.bit_length() - HIGH_BITS
        self._buckets[ns if shift <= 0 else (shift << (HIGH_BITS - 1)) + (ns >> shift)] += 1

    def buckets(self) -> tuple[tuple[int, int], ...]:
        """Return the non-empty buckets, ascending: (index, count)."""
        return tuple((bucket, count) for bucket, count in enumerate(self._buckets) if count)


if TYPE_CHECKING:
    Histogram = PlainHistogram
else:
    Histogram = PlainHistogram
    if not is_pure_requested():
        try:
            from penstock._core.tasks.histogram import Histogram
        except ImportError:
            pass  # not built, or a subinterpreter


def taken(histogram: PlainHistogram) -> Times:
    """Return a snapshot of a histogram."""
    return Times(histogram.count, histogram.total_ns / 1e9, histogram.longest_ns / 1e9, histogram.buckets())


def merged(snapshots: Iterable[Times]) -> Times:
    """Return the sum of several snapshots."""
    counts: Counter[int] = Counter()
    count, total_s, max_s = 0, 0.0, 0.0
    for times in snapshots:
        counts.update(dict(times.buckets))
        count, total_s, max_s = count + times.count, total_s + times.total_s, max(max_s, times.max_s)
    return Times(count, total_s, max_s, tuple(sorted(counts.items())))


def since(now: Times, before: Times) -> Times:
    """Return the durations between two snapshots of one histogram. The maximum is within 3 %, the rest is exact."""
    counts = Counter(dict(now.buckets))
    counts.subtract(dict(before.buckets))
    buckets = tuple(sorted((bucket, count) for bucket, count in counts.items() if count > 0))
    max_s = min(now.max_s, upper_ns(buckets[-1][0]) / 1e9) if buckets else 0.0
    return Times(now.count - before.count, now.total_s - before.total_s, max_s, buckets)
