"""Times in buckets: a histogram of fixed memory, and the frozen picture of it that statistics hand out.

Log-linear: 16 buckets to each power of two, so that a quantile is off by at most 3 %. Native where the extension is
built; the Python class is the same one, for everywhere else. Knows no task, lane or exporter.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from penstock.purity import is_refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["BUCKETS", "LONGEST_NS", "Histogram", "PlainHistogram", "Times", "merged", "since", "taken", "upper_ns"]

# The bucket of a time below 32 ns is the time; of any other it is its five highest bits and how far they are shifted.
HIGH_BITS = 5
# 2**45 ns are 9.8 hours; what takes longer counts as that
MOST_BITS = 45
LONGEST_NS = (1 << MOST_BITS) - 1
BUCKETS = ((MOST_BITS - HIGH_BITS) << (HIGH_BITS - 1)) + (1 << HIGH_BITS)


def upper_ns(bucket: int) -> int:
    """The first time beyond a bucket: it holds whole nanoseconds below this one."""
    shift = max(0, (bucket >> (HIGH_BITS - 1)) - 1)
    return (bucket - (shift << (HIGH_BITS - 1)) + 1) << shift


def _middle_ns(bucket: int) -> float:
    lower_ns = upper_ns(bucket - 1) if bucket else 0
    return (lower_ns + upper_ns(bucket) - 1) / 2


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took, in seconds, each time so far. Zeros where `count` is 0.

    `buckets` are the buckets that hold something, by rank: (index, how many). Quantiles are within 3 %.
    """

    count: int = 0
    total_s: float = 0.0
    max_s: float = 0.0
    buckets: tuple[tuple[int, int], ...] = ()

    @property
    def mean_s(self) -> float:
        """The mean, exact."""
        return self.total_s / self.count if self.count else 0.0

    @property
    def p50_s(self) -> float:
        """The median."""
        return self.quantile_s(0.5)

    @property
    def p90_s(self) -> float:
        """Nine in ten took at most this long."""
        return self.quantile_s(0.9)

    @property
    def p99_s(self) -> float:
        """All but one in a hundred took at most this long."""
        return self.quantile_s(0.99)

    def quantile_s(self, share: float) -> float:
        """What `share` (0 to 1) of the times were not longer than."""
        rank, seen = share * self.count, 0
        for bucket, held in self.buckets:
            seen += held
            if seen >= rank:
                return min(_middle_ns(bucket) / 1e9, self.max_s)
        return self.max_s

    def cumulative(self, bounds_s: Sequence[float]) -> list[int]:
        """How many were at most as long as each of the ascending bounds: what Prometheus calls `le` buckets.

        A bucket counts with the bound at or above its middle, so a time within 3 % of a bound may be on either side.
        """
        middles_s = [_middle_ns(bucket) / 1e9 for bucket, _ in self.buckets]
        so_far = [0, *accumulate(held for _, held in self.buckets)]
        return [so_far[bisect_right(middles_s, bound_s)] for bound_s in bounds_s]


class PlainHistogram:
    """The histogram without native code. Not thread-safe: whoever owns one confines it."""

    __slots__ = ("_buckets", "count", "longest_ns", "total_ns")

    def __init__(self) -> None:
        self._buckets = [0] * BUCKETS
        self.count = self.total_ns = self.longest_ns = 0

    def add(self, ns: int) -> None:
        """Count a time, in nanoseconds; a negative one as 0."""
        ns = max(ns, 0)
        self.count += 1
        self.total_ns += ns
        self.longest_ns = max(self.longest_ns, ns)
        ns = min(ns, LONGEST_NS)
        shift = ns.bit_length() - HIGH_BITS
        self._buckets[ns if shift <= 0 else (shift << (HIGH_BITS - 1)) + (ns >> shift)] += 1

    def buckets(self) -> tuple[tuple[int, int], ...]:
        """The buckets that hold something: (index, how many), ascending."""
        return tuple((bucket, held) for bucket, held in enumerate(self._buckets) if held)


if TYPE_CHECKING:
    Histogram = PlainHistogram
else:
    Histogram = PlainHistogram
    if not is_refused():
        try:
            from penstock._core.tasks.histogram import Histogram
        except ImportError:
            pass  # not built, or a subinterpreter


def taken(histogram: PlainHistogram) -> Times:
    """The picture of a histogram as it is now."""
    return Times(histogram.count, histogram.total_ns / 1e9, histogram.longest_ns / 1e9, histogram.buckets())


def merged(pictures: Iterable[Times]) -> Times:
    """All the times of several histograms, as one."""
    counts: Counter[int] = Counter()
    count, total_s, max_s = 0, 0.0, 0.0
    for times in pictures:
        counts.update(dict(times.buckets))
        count, total_s, max_s = count + times.count, total_s + times.total_s, max(max_s, times.max_s)
    return Times(count, total_s, max_s, tuple(sorted(counts.items())))


def since(now: Times, before: Times) -> Times:
    """The times that came between two pictures of one histogram. Its longest is within 3 %, the rest exact."""
    counts = Counter(dict(now.buckets))
    counts.subtract(dict(before.buckets))
    buckets = tuple(sorted((bucket, held) for bucket, held in counts.items() if held > 0))
    max_s = min(now.max_s, upper_ns(buckets[-1][0]) / 1e9) if buckets else 0.0
    return Times(now.count - before.count, now.total_s - before.total_s, max_s, buckets)
