"""What was found wrong, kept within bounds: the newest, counts of all by kind, listeners. Knows no way to find things.

Findings come from any thread, and from garbage collections too, so at any point of any other call here: the lock is
one that its owner may take again, and what it guards is whole after each statement.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock.tasks.finding import Finding, Site

__all__ = ["FindingLog", "Listener"]

Listener: TypeAlias = "Callable[[Finding], object]"

logger = logging.getLogger("penstock.tasks")

WINDOW_S = 60.0
# (kind, site) pairs whose rate is kept; of more, those longest quiet begin anew
MOST_KEYS = 1024


class FindingLog:
    """The findings of one loop: the newest `limit`, and at most `per_minute` a minute of each kind and site.

    One beyond that rate is counted, in `counts` and `dropped`, but neither kept, logged nor told to listeners.
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
        # (kind, site) -> (when its window began, how many it has had since)
        self._rates: OrderedDict[tuple[str, Site | None], tuple[float, int]] = OrderedDict()
        self._listeners: tuple[Listener, ...] = ()
        self.dropped = 0

    def add(self, finding: Finding) -> bool:
        """Count it; keep it, log it and tell the listeners unless its kind and site have had their share. Whether."""
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
        """Keep `after` in the place of `before`, of which more is known now; log it, and tell the listeners."""
        with self._lock:
            for index, kept in enumerate(self._kept):
                if kept is before:
                    self._kept[index] = after
            listeners = self._listeners
        self._publish(after, listeners)

    def _publish(self, finding: Finding, listeners: tuple[Listener, ...]) -> None:
        self._log(finding)
        for listener in listeners:
            self._tell(listener, finding)

    def _may_pass(self, key: tuple[str, Site | None]) -> bool:
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

    def _tell(self, listener: Listener, finding: Finding) -> None:
        try:
            listener(finding)
        except Exception:
            self.unlisten(listener)
            logger.exception("a listener of findings raised and is not called again: %r", listener)

    def all(self) -> list[Finding]:
        """The newest that were kept, oldest first."""
        with self._lock:
            return list(self._kept)

    def counts(self) -> dict[str, int]:
        """How many of each kind there were, kept or not."""
        with self._lock:
            return dict(self._counts)

    def mark(self) -> int:
        """Now, for `since`."""
        return self._added

    def since(self, mark: int) -> Sequence[Finding]:
        """Those kept after a `mark`; the oldest may have had to go."""
        with self._lock:
            new = min(self._added - mark, len(self._kept))
            return list(self._kept)[-new:] if new > 0 else []

    def listen(self, listener: Listener) -> None:
        """Call `listener(finding)` for each that is kept, in the thread that found it; one that raises is removed."""
        with self._lock:
            if listener not in self._listeners:
                self._listeners = (*self._listeners, listener)

    def unlisten(self, listener: Listener) -> None:
        """Call it no more."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each != listener)
