"""The geometric mean of the ratios of many rows, with a bootstrap interval over rounds."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

from benchmarks.method.interval import COVERAGE, RESAMPLES, SEED, Interval

__all__ = ["geometric_mean"]

Ratios = dict[int, float]  # by round


def geometric_mean(rows: Sequence[Ratios]) -> Interval | None:
    """Return the geometric mean of the rows' median ratios, None without rows.

    Rounds are resampled for all rows at once: what a round has in common moves all of its rows. The interval's count
    is the least number of rounds of a row.
    """
    if not rows or not all(rows):
        return None
    numbers = sorted({number for ratios in rows for number in ratios})
    dice = random.Random(SEED)
    means = sorted(_mean(rows, dice.choices(numbers, k=len(numbers))) for _ in range(RESAMPLES))
    tail = round(RESAMPLES * (1 - COVERAGE) / 2)
    return Interval(_mean(rows, numbers), means[tail], means[-1 - tail], min(map(len, rows)))


def _mean(rows: Sequence[Ratios], numbers: Sequence[int]) -> float:
    medians = (statistics.median(_chosen(ratios, numbers)) for ratios in rows)
    return math.exp(statistics.fmean(map(math.log, medians)))


def _chosen(ratios: Ratios, numbers: Sequence[int]) -> list[float]:
    return [ratios[number] for number in numbers if number in ratios] or list(ratios.values())
