"""The delay before an ended worker is started again, and the bound on such restarts."""

from __future__ import annotations

from collections import deque

__all__ = ["LONGEST_DELAY_S", "STABLE_S", "WINDOW_S", "Restarts"]

# the delay of the second start in a row; it doubles with each further one
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 30.0
# a worker that has served for so long is no failure of its start
STABLE_S = 60.0
# the bound counts the restarts of this time
WINDOW_S = 300.0


class Restarts:
    """The unplanned ends of workers. `most` bounds those within `WINDOW_S`; None for no bound. Times are monotonic."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._ends_s: deque[float] = deque(maxlen=None if most is None else most + 1)
        self._in_a_row: dict[int, int] = {}
        self.total = 0

    def record(self, number: int, served_s: float, now_s: float) -> float:
        """Record the end of a worker with this number that had served for `served_s`. Return the delay of its restart
        in seconds."""
        self.total += 1
        self._ends_s.append(now_s)
        count = 0 if served_s >= STABLE_S else self._in_a_row.get(number, 0)
        self._in_a_row[number] = count + 1
        # the first restart is at once: a single crash costs no capacity
        return 0.0 if count == 0 else min(FIRST_DELAY_S * 2.0 ** min(count - 1, 30), LONGEST_DELAY_S)

    def is_exceeded(self, now_s: float) -> bool:
        """Return whether there were more restarts than allowed within the last `WINDOW_S`."""
        if self._most is None:
            return False
        return sum(now_s - end_s <= WINDOW_S for end_s in self._ends_s) > self._most
