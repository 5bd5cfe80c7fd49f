"""Lag: the time for which ready handles wait for their turn, between two watermarks. Knows no reactor and no clock.

The wait at the start of a turn is that of the oldest handle, or of the last handle of the turn before. The average
weighs each turn by its length, and idle time as no wait. The loop is overloaded when the average has been above the
high watermark for a time, or when reads have been deferred without a break for as long: deferred reads keep the
average down. The overload ends when both have ended for as long.

Deferring begins with the first turn that is longer than the high watermark, even for a single callback. Data that
came meanwhile is still in the kernel, and its reads are deferred at once. Deferring also begins with a poll that
brings more reads than the loop can run within the high watermark. So the ready queue does not fill with handles that
will be late. From then on a turn admits a few deferred reads if nothing is ready, or if the ready handles have waited
less than the low watermark: the queue is neither empty nor long. Their number follows from the cost of a read so far,
with all that it started: as many as take half of the low watermark. Deferring ends when nothing has been deferred or
late for a time.

With a bound on the time of deferring, the backlog holds as many entries as are admitted well within that time. A
connection that finds it full can be shed at once, and an entry that has waited a quarter longer than the bound too.
The oldest is admitted first until even the oldest has waited longer than the bound; then the newest, for the oldest
are too late already. Without a bound, always the newest.
"""

import logging

from libc.stdint cimport SIZE_MAX, int64_t, uint64_t

cdef enum:
    LEAST_AT_ONCE = 4
    MOST_AT_ONCE = 128
    # The period, in low watermarks, over which the cost of a read is measured if the ready queue never empties.
    LONG_ENOUGH = 8

logger = logging.getLogger("penstock.pressure")

# The share of the bound that the backlog may fill: later reads may cost more than earlier ones.
cdef double PROMISED_PART = 0.75
# A single cost counts at most as this multiple of the usual cost.
cdef double BELIEVED_PART = 2.0
# Of the bound: for so long after a rest the line is not full, however long it is.
cdef double RECOVERY_PART = 0.25


cdef class Lag:
    """The watermarks of one loop, in nanoseconds; `report()` is called between two turns when `is_overloaded` changes.

    `defer_ns` bounds how long a read may be deferred and still be worth an answer; 0: no bound. ValueError for times that
    are out of order.
    """

    def __init__(self, int64_t high_ns, int64_t low_ns, int64_t for_ns, report=None, int64_t defer_ns=0):
        if not 0 < low_ns <= high_ns or for_ns < 0 or defer_ns < 0:
            raise ValueError(
                f"0 < low_ns <= high_ns, 0 <= for_ns and 0 <= defer_ns, not {low_ns}, {high_ns}, {for_ns}, {defer_ns}"
            )
        self.high_ns, self.low_ns, self.for_ns, self.defer_ns, self.report = high_ns, low_ns, for_ns, defer_ns, report
        # one at a time, until it is known
        self.cost_ns = self.usual_ns = low_ns

    cdef int observe(self, int64_t now_ns, int64_t idle_ns, size_t ready, int64_t oldest_ns, size_t deferred) except -1:
        """Observe the beginning of a turn at `now_ns`. The turn before waited `idle_ns` nanoseconds in the poll.

        `ready` handles are left, the oldest from `oldest_ns` (0: unknown); `deferred` is the backlog's length.
        """
        cdef int64_t busy_ns
        if not self.seen_ns:
            self.seen_ns, self.rested_ns, idle_ns = now_ns, now_ns, 0
        elif idle_ns:
            self.rested_ns = now_ns
        busy_ns = max(now_ns - self.seen_ns - idle_ns, 0)
        self.seen_ns = now_ns
        self.spent_ns += busy_ns
        self.pardon(now_ns, busy_ns)
        if not ready or self.spent_ns >= LONG_ENOUGH * self.low_ns:
            self.measure()
        self.waited_ns = busy_ns - busy_ns // <int64_t>self.ran if self.ran else 0
        if ready and oldest_ns and now_ns - oldest_ns > self.waited_ns:
            self.waited_ns = now_ns - oldest_ns
        self.average(busy_ns, idle_ns)
        self.update_deferring(now_ns, busy_ns, deferred)
        return self.decide(now_ns, deferred)

    cdef int update_deferring(self, int64_t now_ns, int64_t busy_ns, size_t deferred) noexcept:
        if max(self.waited_ns, busy_ns) > self.high_ns:
            self.is_deferring = True
        if deferred or self.is_overloaded or self.waited_ns >= self.low_ns:
            self.calm_since_ns = 0
        elif not self.calm_since_ns:
            self.calm_since_ns = now_ns
        elif now_ns - self.calm_since_ns >= self.for_ns:
            self.is_deferring = False
        return 0

    cdef int average(self, int64_t busy_ns, int64_t idle_ns) noexcept:
        # half of what is seen for this long is the new average
        cdef double half_ns = max(<double>self.for_ns / 2, 1.0)
        if idle_ns:
            self.lag_ns *= half_ns / (half_ns + idle_ns)
        if busy_ns:
            self.lag_ns += (self.waited_ns - self.lag_ns) * (busy_ns / (half_ns + busy_ns))
        return 0

    cdef int decide(self, int64_t now_ns, size_t deferred) except -1:
        cdef bint turns
        if self.is_overloaded:
            turns = self.lag_ns < self.low_ns and not deferred
        else:
            turns = self.lag_ns > self.high_ns or (self.is_deferring and deferred)
        if not turns:
            self.turning_since_ns = 0
            return 0
        if not self.turning_since_ns:
            self.turning_since_ns = now_ns
        return self.change(now_ns) if now_ns - self.turning_since_ns >= self.for_ns else 0

    cdef int change(self, int64_t now_ns) except -1:
        self.turning_since_ns = 0
        self.is_overloaded = not self.is_overloaded
        if self.is_overloaded:
            self.overloaded_count += 1
            self.overloaded_since_ns = now_ns
        else:
            self.overloaded_ns += now_ns - self.overloaded_since_ns
        self.notify()
        return 0

    cdef int notify(self) except -1:
        """Call the listener. Log its error, for it must not end the loop; SystemExit and KeyboardInterrupt pass."""
        if self.report is None:
            return 0
        try:
            self.report()
        except Exception:
            logger.exception("a report of overload raised, and the loop goes on")
        return 0

    cdef int64_t budget(self) noexcept:
        """Return how many reads the poll of this turn may bring before reads are deferred."""
        return 0 if self.is_deferring else <int64_t>max(self.high_ns / self.cost_ns, <double>LEAST_AT_ONCE)

    cdef size_t share(self, size_t ready, size_t deferred) noexcept:
        """Return how many of `deferred` entries this turn admits beside `ready` handles."""
        cdef size_t count = 0
        if deferred:
            self.is_deferring = True
            if not ready or self.waited_ns < self.low_ns:
                count = <size_t>max(min(self.low_ns / 2 / self.cost_ns, <double>MOST_AT_ONCE), 1.0)
                count = min(count, deferred)
                self.admitted += count
        return count

    cdef bint is_late(self) noexcept:
        """Return whether this turn should accept no new connection."""
        return self.is_deferring and self.waited_ns >= self.low_ns

    cdef size_t backlog_limit(self, int64_t oldest_since_ns) noexcept:
        """Return the bound of the backlog, whose oldest entry is of `oldest_since_ns` (0: it is empty)."""
        if not self.defer_ns:
            return SIZE_MAX
        if self.is_stale(oldest_since_ns):
            return 0
        if self.seen_ns - self.rested_ns < RECOVERY_PART * self.defer_ns:
            return SIZE_MAX
        return <size_t>max(PROMISED_PART * self.defer_ns / self.usual_ns, 1.0)

    cdef bint is_stale(self, int64_t oldest_since_ns) noexcept:
        """Return whether even the oldest entry has waited longer than the bound."""
        return not self.defer_ns or self.waited_since(oldest_since_ns) > self.defer_ns

    cdef bint is_expired(self, int64_t oldest_since_ns) noexcept:
        """Return whether the oldest entry has waited a quarter longer than the bound."""
        return self.defer_ns and self.waited_since(oldest_since_ns) > self.defer_ns + self.defer_ns // 4

    cdef int pardon(self, int64_t now_ns, int64_t busy_ns) noexcept:
        """Remember the longest recent stall: its backlog makes the turns after it long, too."""
        cdef int64_t late_ns = busy_ns - max(self.high_ns, <int64_t>(BELIEVED_PART * self.usual_ns * self.admitted))
        if late_ns > 0 and (late_ns >= self.pardon_ns or now_ns - self.pardoned_ns > self.defer_ns):
            self.pardoned_ns = self.rested_ns = now_ns
            self.pardon_ns = late_ns
        return 0

    cdef int64_t waited_since(self, int64_t since_ns) noexcept:
        """Return the wait since `since_ns` without the remembered stall; 0 for no time."""
        if not since_ns:
            return 0
        return self.seen_ns - since_ns - (self.pardon_ns if since_ns < self.pardoned_ns else 0)

    cdef int measure(self) noexcept:
        """Measure the cost of a read. A higher cost counts at once, a lower one step by step."""
        cdef double cost_ns
        if self.admitted:
            cost_ns = max(<double>self.spent_ns / self.admitted, 1.0)
            self.cost_ns = max(cost_ns, self.cost_ns + (cost_ns - self.cost_ns) / 4)
            self.usual_ns += (min(cost_ns, max(BELIEVED_PART * self.usual_ns, self.last_ns)) - self.usual_ns) / 4
            self.last_ns = cost_ns
        self.spent_ns, self.admitted = 0, 0
        return 0

    def stand_still(self):
        """Forget the turn: the loop does not run, and the time until it does is no lag."""
        self.seen_ns, self.ran, self.pardoned_ns = 0, 0, 0
        self.spent_ns, self.admitted = 0, 0

    def overloaded_for_ns(self):
        """Return the total time of overload, in nanoseconds."""
        return self.overloaded_ns + (self.seen_ns - self.overloaded_since_ns if self.is_overloaded and self.seen_ns else 0)

    # For tests: the steps of the reactor in each turn.

    def turn(self, int64_t now_ns, *, int64_t idle_ns=0, size_t ready=0, int64_t oldest_ns=0, size_t deferred=0, size_t ran=0):
        """Observe after a turn that ran `ran` handles. Return the budget of reads."""
        self.ran = ran
        self.observe(now_ns, idle_ns, ready, oldest_ns, deferred)
        return self.budget()

    def let_go(self, size_t ready, size_t deferred):
        """Return `share`."""
        return self.share(ready, deferred)

    def line(self, int64_t oldest_since_ns=0):
        """Return `backlog_limit`, `is_stale` and `is_expired`."""
        return self.backlog_limit(oldest_since_ns), self.is_stale(oldest_since_ns), self.is_expired(oldest_since_ns)
