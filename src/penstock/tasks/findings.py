"""What was found wrong, kept within bounds: the newest of each kind, counts of all, callbacks, one logger a subject."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.tasks.records import Finding

__all__ = ["FindingLog"]

MOST_KEPT = 256


class FindingLog:
    """The findings of one loop."""

    def __init__(self) -> None:
        self._kept: deque[Finding] = deque(maxlen=MOST_KEPT)
        self._counts: Counter[str] = Counter()

    def add(self, finding: Finding) -> None:
        """Keep it and count it."""
        self._counts[finding.kind] += 1
        self._kept.append(finding)

    def newest(self) -> list[Finding]:
        """What is kept, oldest first."""
        return list(self._kept)

    def counts(self) -> dict[str, int]:
        """Kind -> how many so far."""
        return dict(self._counts)
