"""The log of a loop's findings, within bounds: the newest findings, counts by kind, and listeners.

A finding may come from any thread, and from a garbage collection, so in the middle of another call here. The lock is
therefore reentrant, and the guarded state is consistent after each statement. Knows no detector.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock.tasks.finding import Finding
    from penstock.tasks.place import Place

__all__ = ["FindingLog", "Listener"]

Listener: TypeAlias = "Callable[[Finding], object]"

logger = logging.getLogger("penstock.tasks")

WINDOW_S = 60.0
# (kind, site) pairs whose rate is kept; of more, the least recently seen start again
MOST_KEYS = 1024


class FindingLog:
    """The newest `limit` findings of one loop, at most `per_minute` a minute of each kind and site.

    A finding beyond that rate is counted in `counts` and `dropped`, but not kept, logged or delivered. `clock` returns
    seconds. Raises ValueError for a bound below 1.
    """

    def __init__(self, limit: int = 256, per_minute: int = 12, clock: Callable[[], float] = time.monotonic) -> None:
        if limit < 1 or per_minute < 1:
            raise ValueError(f"limit and per_minute are at least 1, not {limit} and {per_minute}")
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.RLock()
        self._kept: deque[Finding] = deque(maxlen=limit)
        self._added = 0
        self._counts: defaultdict[str, int] = defaultdict(int)
        # (kind, site) -> (the start of its window, its findings since then)
        self._rates: OrderedDict[tuple[str, Place | None], tuple[float, int]] = OrderedDict()
        self._listeners: tuple[Listener, ...] = ()
        self.dropped = 0

    def add(self, finding: Finding) -> bool:
        """Count the finding; keep, log and deliver it unless its rate is exceeded. Return whether it was kept."""
        with self._lock:
            self._counts[finding.kind] += 1
            if not self._may_pass((finding.kind, finding.site)):
                self.dropped += 1
                return False
            self._kept.append(finding)
            self._added += 1
            listeners = self._listeners
        self._publish(finding, listeners)
        return True

    def replace(self, before: Finding, after: Finding) -> None:
        """Keep `after` in the place of `before`; log and deliver it. `after` has more data about the same fault."""
        with self._lock:
            for index, kept in enumerate(self._kept):
                if kept is before:
                    self._kept[index] = after
            listeners = self._listeners
        self._publish(after, listeners)

    def _publish(self, finding: Finding, listeners: tuple[Listener, ...]) -> None:
        self._log(finding)
        for listener in listeners:
            self._notify(listener, finding)

    def _may_pass(self, key: tuple[str, Place | None]) -> bool:
        now_s = self._clock()
        began_s, count = self._rates.pop(key, (now_s, 0))
        if now_s - began_s >= WINDOW_S:
            began_s, count = now_s, 0
        self._rates[key] = began_s, count + 1
        if len(self._rates) > MOST_KEYS:
            self._rates.popitem(last=False)
        return count < self._per_minute

    @staticmethod
    def _log(finding: Finding) -> None:
        from penstock.tasks.finding_fields import log_finding

        log_finding(finding)

    def _notify(self, listener: Listener, finding: Finding) -> None:
        try:
            listener(finding)
        except Exception:
            self.unlisten(listener)
            logger.exception("a listener of findings raised and is not called again: %r", listener)

    def all(self) -> list[Finding]:
        """Return the kept findings, oldest first."""
        with self._lock:
            return list(self._kept)

    def counts(self) -> dict[str, int]:
        """Return the number of findings by kind, kept or not."""
        with self._lock:
            return dict(self._counts)

    def mark(self) -> int:
        """Return a mark for `since`."""
        return self._added

    def since(self, mark: int) -> Sequence[Finding]:
        """Return the findings kept after a `mark`, without those that `limit` has displaced."""
        with self._lock:
            new = min(self._added - mark, len(self._kept))
            return list(self._kept)[-new:] if new > 0 else []

    def listen(self, listener: Listener) -> None:
        """Call `listener(finding)` for each kept finding, in the thread that adds it; one that raises is removed."""
        with self._lock:
            if listener not in self._listeners:
                self._listeners = (*self._listeners, listener)

    def unlisten(self, listener: Listener) -> None:
        """Remove the listener."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each != listener)
