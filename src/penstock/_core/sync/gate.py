# cython: annotation_typing=False, nonecheck=True
"""The enforcement of a limit: permits, the queue for them, and sheds, at once or after a wait.

Native where it is built (`gate.pxd` has the types), this very source elsewhere. It imports only modules of the core:
exceptions, measurement windows and statistics are `penstock.pressure.admission.gate`'s. Long because permits, queue and
samples are one state, and a call between classes costs more than the work that it would separate.
"""

from __future__ import annotations

import logging
import math
import time
from asyncio import CancelledError, base_events, current_task, get_running_loop
from typing import TYPE_CHECKING, Any
from weakref import ref

# relative, so that the plain source finds its plain parts where native ones are built too
from .estimator import ServiceEstimator
from .waiting import DONE, Done
from .waitqueue import GateWaiter, WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["REASONS", "Entry", "GateCore"]

# The reasons of sheds. The counts in `sheds` are in this order.
REASONS = ("limit", "full", "wait", "expired", "deadline", "share", "displaced", "closed", "left", "streams")
LIMIT, FULL, WAIT, EXPIRED, DEADLINE, SHARE, DISPLACED, CLOSED, LEFT = 0, 1, 2, 3, 4, 5, 6, 7, 8
CRITICAL, NORMAL = 0, 2

# The part of `max_wait_s` that estimated waits may fill. Estimates err: with all of it, a few calls in a hundred would
# be shed late, at its end.
BUDGETED = 0.7
# Of calls without an `Entry`, at most so many are measured at a time. Where service is shorter than 50 us, only every
# 32nd is: a measurement costs at most a hundredth of the call.
MOST_SAMPLED, SHORT_S, SAMPLE_EVERY = 16, 50e-6, 32
MOST_RTTS = 512
# A loop may run a timer this much before its time. A timer that then finds nothing would be set again and again.
EARLY_S = 1e-6
INFINITE_S = math.inf
UNKNOWN_S = -math.inf

logger = logging.getLogger("penstock.pressure")


new_exception: Any = BaseException.__new__


def check_priority(priority: int) -> None:
    """Raise ValueError for a priority that is no class."""
    if not 0 <= priority <= 3:
        raise ValueError(f"priority is 0 (critical) to 3 (low), not {priority!r}")


class Entry:
    """One call's way through a gate, with its priority class, its key and its times. `gate.entry()` makes it.

    Use it as `async with gate.entry(...)`, or `await entry.enter()` and `entry.leave()`. An integration that has other
    work while the call waits uses `ask()`, awaits the waiter that it returns, and ends with `abandon()`.
    Ownership: it has its waiter while that waits.
    """

    # set by `new_entry`: a constructor would parse arguments
    gate: GateCore
    priority: int
    key: Hashable
    arrived_s: float
    deadline_s: float
    started_s: float
    is_inside: bool
    is_begun: bool
    waiter: GateWaiter | None

    def __aenter__(self) -> Any:
        if self.is_begun:
            raise RuntimeError("this entry is in use: make one for each call, by gate.entry()")
        return self.gate.begin(self.priority, self.key, self.arrived_s, self.deadline_s, self)

    def __aexit__(self, kind: Any, value: Any, traceback: Any) -> Done:
        if kind is not None:
            self.gate.count_timeout(kind)
        self.leave()
        return DONE

    def ask(self) -> GateWaiter | None:
        """Ask for a permit. Return None if the entry has one now, else the waiter, to be awaited by one task.

        Raises Overloaded when it is shed, here or where the waiter is awaited.
        """
        waiter: GateWaiter | Done = self.__aenter__()
        return None if isinstance(waiter, Done) else waiter

    def abandon(self) -> None:
        """Give the permit back or stop waiting, whichever applies; do nothing if neither does."""
        if self.is_inside:
            self.leave()
        elif self.waiter is not None:
            self.waiter.abandon()

    def __await__(self) -> Any:
        return self.__aenter__()

    def enter(self) -> Entry:
        """Return an awaitable of a permit: `await entry.enter()`. The await raises Overloaded when it is shed."""
        return self

    def leave(self) -> None:
        """Give the permit back. Raises RuntimeError if the entry has none."""
        if not self.is_inside:
            raise RuntimeError("this entry has no permit: leave() comes once, after enter()")
        self.is_begun = self.is_inside = False
        self.gate.release_entry(self)


def new_entry(gate: GateCore, priority: int, key: Hashable, arrived_s: float, deadline_s: float) -> Entry:
    """Return an entry that has not begun."""
    entry = Entry.__new__(Entry)
    entry.gate = gate
    entry.priority = priority
    entry.key = key
    entry.arrived_s = arrived_s
    entry.deadline_s = deadline_s
    entry.started_s = UNKNOWN_S
    entry.is_inside = entry.is_begun = False
    entry.waiter = None
    return entry


def admit_entry(entry: Entry, now_s: float) -> None:
    """Give a permit to an entry that waited."""
    entry.waiter = None
    entry.is_inside = True
    entry.started_s = now_s


def end_wait(entry: Entry) -> None:
    """Make an entry whose wait ended without a permit ready for another use."""
    entry.is_begun = False
    entry.waiter = None


class GateCore:
    """A gate without statistics and exceptions: a subclass has `error`, `name`, the histograms and `end_window`.

    `inflight` counts the permits in use. It includes those granted to waiters whose tasks have not run yet (`granted`),
    so that no later call overtakes them. Ownership: the queue owns the waiters; `loop` is the loop of the first use.
    """

    def __init__(self, limit: int, max_wait_s: float, deadline_s: float, reserve: int, max_queued: int) -> None:
        self.limit = limit
        self.factor = 1.0
        # the bound of `inflight`: 0 without a loop and after `shut`, so that the fast path needs no other check
        self.bound = 0
        self.reserve = reserve
        self.inflight = self.granted = self.admitted = self.waited = self.most_inflight = 0
        self.max_wait_s = max_wait_s
        # the longest wait of any call
        self.longest_wait_s = min(max_wait_s, deadline_s)
        self.queue_budget_s = BUDGETED * max_wait_s
        self.deadline_s = deadline_s
        self.max_queued = max_queued
        self.estimator = ServiceEstimator()
        self.queue = WaitQueue()
        self.sheds = [0] * len(REASONS)
        self.on_shed: Callable[[Any, str], object] | None = None
        self.is_closed = False
        self.loop: Any = None
        self.clock: Callable[[], float] = time.monotonic
        self.timer: Any = None
        self.timer_at_s = INFINITE_S
        self.backlog_since_s = INFINITE_S
        # set by a subclass: returns the caller's deadline on the loop's clock, or None
        self.expires_at: Callable[[], float | None] | None = None
        self.starts: dict[int, tuple[ref[Any], float]] = {}
        self.sampled = 0
        self.sample_at = 1
        self.window_at_s = self.full_at_s = INFINITE_S
        self.epoch_s = -INFINITE_S
        self.was_full = False
        self.dropped = 0
        self.rtts_s: list[float] = []
        self.begins_s: list[float] = []
        # set by a subclass: the type of refusals, with the arguments that `make_error` passes, and two histograms
        self.name = ""
        self.error: type[BaseException] = Exception
        self.waits: Any = None
        self.services: Any = None

    # --- entering ---

    def __aenter__(self) -> Any:
        if self.inflight < self.bound:
            self.inflight += 1
            self.admitted += 1
            if self.inflight > self.most_inflight:
                self.most_inflight = self.inflight
            if self.admitted >= self.sample_at:
                self.begin_sample()
            return DONE
        return self.begin(NORMAL, None, UNKNOWN_S, UNKNOWN_S, None)

    def __aexit__(self, kind: Any, value: Any, traceback: Any) -> Done:
        if kind is not None:
            self.count_timeout(kind)
        self.release_permit(True)
        return DONE

    def through(
        self,
        priority: int = NORMAL,
        key: Hashable = None,
        arrived_s: float | None = None,
        deadline_s: float | None = None,
    ) -> Any:
        """Return an awaitable of a permit, to be awaited at once. Raises Overloaded when the call is shed now."""
        check_priority(priority)
        arrived = UNKNOWN_S if arrived_s is None else arrived_s
        return self.begin(priority, key, arrived, UNKNOWN_S if deadline_s is None else deadline_s, None)

    def entry(
        self,
        *,
        priority: int = NORMAL,
        key: Hashable = None,
        arrived_s: float | None = None,
        deadline_s: float | None = None,
    ) -> Entry:
        """Return a new entry of this priority class and fairness key.

        `arrived_s` is the time of arrival on `loop.time()`'s clock (default: now), `deadline_s` the seconds from then
        on in which the call must finish (default: the gate's). Raises ValueError for a priority that is no class.
        """
        check_priority(priority)
        arrived = UNKNOWN_S if arrived_s is None else arrived_s
        return new_entry(self, priority, key, arrived, UNKNOWN_S if deadline_s is None else deadline_s)

    def try_enter(self, *, priority: int = NORMAL, key: Hashable = None) -> bool:
        """Take a permit if one is free, and return whether it did. False counts as a shed. `leave()` gives it back."""
        # without a loop and after `shut`, `bound` is 0 and no reserve applies
        if self.inflight < self.bound or (
            priority == CRITICAL and self.bound and self.inflight < self.bound + self.reserve
        ):
            self.admit()
            return True
        if self.loop is None and not self.is_closed:
            self.bind()
            return self.try_enter(priority=priority, key=key)
        self.was_full = True
        self.count_shed(CLOSED if self.is_closed else LIMIT)
        return False

    def leave(self) -> None:
        """Give a permit back. Raises RuntimeError if none is in use."""
        self.release_permit(True)

    def begin(self, priority: int, key: Hashable, arrived_s: float, deadline_s: float, entry: Entry | None) -> Any:
        """Return `DONE` with a permit or a waiter for one, either to be awaited; raise when the call is shed."""
        if get_running_loop() is not self.loop:
            self.bind()
        now_s = self.clock()
        if now_s >= self.window_at_s:
            self.end_window(now_s)
        if deadline_s == UNKNOWN_S:
            deadline_s = self.deadline_s
        if arrived_s == UNKNOWN_S:
            arrived_s = now_s
        if self.is_closed:
            raise self.shed_new(CLOSED, now_s)
        if self.inflight >= self.bound and now_s >= self.full_at_s:
            self.on_full(now_s)
        if self.inflight < self.bound or (priority == CRITICAL and self.inflight < self.bound + self.reserve):
            # a late health check is admitted as well: its refusal would be taken for a failure
            is_late = arrived_s < now_s and priority != CRITICAL
            if is_late and self.estimator.is_too_late(now_s - arrived_s, deadline_s):
                raise self.shed_new(DEADLINE, now_s)
            self.admit()
            if entry is not None:
                entry.is_begun = entry.is_inside = True
                entry.started_s = now_s
            elif self.admitted >= self.sample_at:
                self.begin_sample()
            return DONE
        self.was_full = True
        until_s = INFINITE_S
        if self.expires_at is not None:
            asked_s = self.expires_at()
            if asked_s is not None:
                until_s = asked_s
                deadline_s = min(deadline_s, until_s - arrived_s)
        if until_s <= now_s:
            raise self.shed_new(DEADLINE, now_s)
        reason = self.reason_not_to_queue(priority, key, now_s)
        if reason >= 0:
            raise self.shed_new(reason, now_s)
        waiter = GateWaiter()
        waiter.owner, waiter.loop, waiter.priority, waiter.key = self, self.loop, priority, key
        waiter.queued_s, waiter.arrived_s, waiter.deadline_s, waiter.entry = now_s, arrived_s, deadline_s, entry
        if entry is not None:
            entry.is_begun = True
            entry.waiter = waiter
        try:
            self.enqueue(waiter)
            if until_s < now_s + self.longest_wait_s and not waiter.done():
                waiter.timer = self.loop.call_at(until_s, self.on_deadline, waiter)
        except BaseException:
            self.withdraw(waiter)
            raise
        return waiter

    def admit(self) -> None:
        """Account for a permit that is taken."""
        self.inflight += 1
        self.admitted += 1
        if self.inflight > self.most_inflight:
            self.most_inflight = self.inflight

    def bind(self) -> None:
        """Bind the gate to the running loop. Raises RuntimeError if it belongs to another one that is not closed."""
        loop = get_running_loop()
        if self.loop is not None and not self.loop.is_closed():
            raise RuntimeError(f"{self!r} belongs to another event loop: make one for each loop")
        self.loop = loop
        plain = getattr(type(loop), "time", None) is base_events.BaseEventLoop.time
        self.clock = time.monotonic if plain else loop.time
        # calls of a closed loop will not come back
        self.queue = WaitQueue()
        self.inflight = self.granted = 0
        self.starts.clear()
        self.sampled = 0
        self.timer = None
        self.timer_at_s = self.backlog_since_s = INFINITE_S
        self.estimator.reset()
        self.update_bound()

    # --- leaving ---

    def release_permit(self, is_bare: bool) -> None:
        """Take a permit back, which goes to the next waiter."""
        if self.inflight <= self.granted:
            raise RuntimeError("leave() without enter(): no permit of the gate is in use")
        self.inflight -= 1
        if is_bare and self.sampled:
            self.end_sample()
        if self.queue.count:
            self.release_to_next(self.clock())

    def count_timeout(self, kind: type[BaseException]) -> None:
        """Count an entry that a timeout or a cancellation ended."""
        if issubclass(kind, CancelledError | TimeoutError):
            self.dropped += 1

    def release_entry(self, entry: Entry) -> None:
        """Take an entry's permit back, and record its service time."""
        if self.inflight <= self.granted:
            raise RuntimeError("leave() without enter(): no permit of the gate is in use")
        self.inflight -= 1
        now_s = self.clock()
        self.record_service(entry.started_s, now_s)
        if self.queue.count:
            self.release_to_next(now_s)

    def release_to_next(self, now_s: float) -> None:
        """Grant waiters the permit that has come back."""
        self.estimator.add_departure(now_s, self.backlog_since_s, self.bound)
        self.grant_waiters(now_s)

    # --- the queue ---

    def reason_not_to_queue(self, priority: int, key: Hashable, now_s: float) -> int:
        """Return the reason to shed a call that would have to wait, -1 if it may wait.

        It may take the place of a waiter of lower rank, which is then shed.
        """
        if self.max_wait_s <= 0:
            return LIMIT
        count = self.queue.count
        gap_s = self.estimator.departure_gap_s(now_s, self.bound)
        if count < self.max_queued and (count + 1) * gap_s <= self.queue_budget_s:
            return -1
        ahead = self.queue.count_ahead(priority, key)
        if ahead < self.max_queued and (ahead + 1) * gap_s <= self.queue_budget_s:
            victim = self.queue.newest_of_lowest(priority)
            reason = DISPLACED
            if victim is None and not self.queue.is_over_share(priority, key):
                victim = self.queue.newest_of_longest(priority, key)
                reason = SHARE
            if victim is not None:
                self.shed(victim, reason)
                return -1
        if self.queue.is_over_share(priority, key):
            return SHARE
        return FULL if count >= self.max_queued else WAIT

    def enqueue(self, waiter: GateWaiter) -> GateWaiter:
        """Put a waiter into the queue."""
        if not self.queue.count:
            self.backlog_since_s = waiter.queued_s
        self.queue.push(waiter)
        if self.longest_wait_s < INFINITE_S:
            self.arm_timer(waiter.queued_s + self.estimator.timeout_s(waiter.queued_s, self.longest_wait_s))
        # a shed's listener may have raised the limit meanwhile
        if self.inflight < self.bound:
            self.grant_waiters(waiter.queued_s)
        return waiter

    def withdraw(self, waiter: GateWaiter) -> None:
        """Undo `enqueue` after an exception: a key without a hash, a KeyboardInterrupt."""
        if waiter.key_queue is not None or waiter.done():
            waiter.abandon()
        if waiter.entry is not None:
            end_wait(waiter.entry)

    def grant_waiters(self, now_s: float) -> None:
        """Grant the free permits to waiters."""
        if self.longest_wait_s < INFINITE_S:
            self.shed_expired(now_s)
        while self.queue.count:
            room = self.bound + self.reserve if self.queue.critical_count() else self.bound
            if self.inflight >= room:
                return
            waiter = self.queue.pop(self.estimator.is_overloaded(now_s))
            if not self.queue.count:
                self.backlog_since_s = INFINITE_S
            is_critical = waiter.priority == CRITICAL
            if not is_critical and self.estimator.is_too_late(now_s - waiter.arrived_s, waiter.deadline_s):
                self.shed_removed(waiter, DEADLINE)
                continue
            self.inflight += 1
            self.granted += 1
            self.waited += 1
            if self.inflight > self.most_inflight:
                self.most_inflight = self.inflight
            self.estimator.add_outcome(False, now_s, self.max_wait_s)
            self.waits.add(int((now_s - waiter.queued_s) * 1e9))
            waiter.grant()

    def shed_expired(self, now_s: float) -> None:
        """Shed the waiters that have waited too long, oldest first."""
        timeout_s = self.estimator.timeout_s(now_s, self.longest_wait_s)
        while True:
            oldest = self.queue.oldest()
            if oldest is None or oldest.queued_s + timeout_s > now_s + EARLY_S:
                return
            self.estimator.add_outcome(True, now_s, self.max_wait_s)
            self.shed(oldest, EXPIRED)

    def arm_timer(self, at_s: float) -> None:
        """Set the timer of the oldest waiter, unless it is set for an earlier time."""
        if self.timer is not None:
            if self.timer_at_s <= at_s:
                return
            self.timer.cancel()
        self.timer_at_s = at_s
        self.timer = self.loop.call_at(at_s, self.on_timer)

    def on_timer(self) -> None:
        """Shed the expired waiters, and set the timer for the next one."""
        self.timer = None
        now_s = self.clock()
        self.shed_expired(now_s)
        oldest = self.queue.oldest()
        if oldest is not None:
            self.arm_timer(max(now_s, oldest.queued_s + self.estimator.timeout_s(now_s, self.longest_wait_s)))

    def on_deadline(self, waiter: GateWaiter) -> None:
        """Shed a waiter whose caller's deadline has passed."""
        waiter.timer = None
        if not waiter.done():
            self.shed(waiter, DEADLINE)

    def shed(self, waiter: GateWaiter, reason: int) -> None:
        """Take a waiter out of the queue and shed it."""
        self.queue.remove(waiter)
        if not self.queue.count:
            self.backlog_since_s = INFINITE_S
        self.shed_removed(waiter, reason)

    def shed_removed(self, waiter: GateWaiter, reason: int) -> None:
        """Shed a waiter that is out of the queue."""
        if waiter.entry is not None:
            end_wait(waiter.entry)
        waiter.shed(reason)
        self.count_shed(reason)

    # --- notifications of waiters ---

    def _admitted(self, waiter: GateWaiter) -> None:
        """Account for a waiter whose task runs with its permit."""
        self.granted -= 1
        self.admitted += 1
        if waiter.entry is not None:
            admit_entry(waiter.entry, self.clock())
        elif self.admitted >= self.sample_at:
            self.begin_sample()

    def _abandoned(self, waiter: GateWaiter) -> None:
        """Take a waiter out of the queue: its task was cancelled or does not want the permit."""
        self.queue.remove(waiter)
        if not self.queue.count:
            self.backlog_since_s = INFINITE_S
        if waiter.entry is not None:
            end_wait(waiter.entry)

    def _forfeited(self, waiter: GateWaiter) -> None:
        """Grant the permit of a waiter that cannot use it to the next one."""
        self.granted -= 1
        self.inflight -= 1
        if waiter.entry is not None:
            end_wait(waiter.entry)
        if self.queue.count:
            self.grant_waiters(self.clock())

    def _shed_error(self, waiter: GateWaiter) -> BaseException:
        """Return the exception of a waiter that was shed."""
        return self.make_error(waiter.reason, self.clock() - waiter.queued_s)

    # --- sheds ---

    def shed_new(self, reason: int, now_s: float) -> BaseException:
        """Count a shed of a call that did not wait; return its exception."""
        age_s = 0.0
        if self.queue.count:
            oldest = self.queue.oldest()
            if oldest is not None:
                age_s = now_s - oldest.queued_s
        error = self.make_error(reason, age_s)
        self.count_shed(reason)
        return error

    def make_error(self, reason: int, age_s: float) -> BaseException:
        """Return the exception of a shed. Its message is made when it is read."""
        retry_s = self.estimator.retry_s(self.queue.count)
        retry_after_s = None if retry_s == 0.0 or reason == CLOSED else retry_s
        # without __init__, which would take longer than all the rest
        error: BaseException = new_exception(
            self.error, None, REASONS[reason], self.queue.count, self.bound, retry_after_s, age_s, self.name
        )
        return error

    def count_shed(self, reason: int) -> None:
        """Count a shed, and notify the listener."""
        self.sheds[reason] += 1
        if self.on_shed is not None:
            self.notify(REASONS[reason])

    def count_disconnected(self) -> None:
        """Count a call that was given up as its client had disconnected while it waited. Integrations call it."""
        self.count_shed(LEFT)

    def notify(self, reason: str) -> None:
        """Call the listener of sheds. A listener that raises is logged and removed."""
        listener = self.on_shed
        if listener is None:
            return
        try:
            listener(self, reason)
        except Exception:
            self.on_shed = None
            logger.exception("%r: its on_shed raised, and is removed", self)

    def end_window(self, now_s: float) -> None:
        """End a measurement window, whose data are `rtts_s`, `begins_s`, `most_inflight` and the counts."""
        raise NotImplementedError

    def on_full(self, now_s: float) -> None:
        """Ask the limit for more permits before a call is queued or shed; do nothing in this class."""

    # --- measuring ---

    def begin_sample(self) -> None:
        """Start to measure the running task's call."""
        if self.sampled >= MOST_SAMPLED:
            if self.inflight >= self.sampled:
                self.sample_at = self.admitted + SAMPLE_EVERY
                return
            # some calls ended in another task, and are not found any more
            self.starts.clear()
        task = current_task(self.loop)
        if task is not None:
            # with a reference, as the address may be another task's by then
            self.starts[id(task)] = (ref(task), self.clock())
        self.sampled = len(self.starts)
        is_short = self.estimator.service_count > 0 and self.estimator.service_s < SHORT_S
        self.sample_at = self.admitted + (SAMPLE_EVERY if is_short else 1)

    def end_sample(self) -> None:
        """Record the service time of the running task's call, if it is measured."""
        task = current_task(self.loop)
        found = self.starts.pop(id(task), None)
        if found is not None:
            self.sampled = len(self.starts)
            if found[0]() is task:
                self.record_service(found[1], self.clock())

    def record_service(self, started_s: float, now_s: float) -> None:
        """Record the service time of a call that began at `started_s` and ends now."""
        # the loop's lag is included: an admitted call waits for the loop as well, and must finish by its deadline
        rtt_s = max(0.0, now_s - started_s)
        self.estimator.add_service(rtt_s, self.bound)
        self.services.add(int(rtt_s * 1e9))
        if self.window_at_s < INFINITE_S:
            if started_s >= self.epoch_s and len(self.rtts_s) < MOST_RTTS:
                self.rtts_s.append(rtt_s)
                self.begins_s.append(started_s)
            if now_s >= self.window_at_s:
                self.end_window(now_s)

    # --- the limit ---

    def update_bound(self) -> None:
        """Apply a limit or a scale that has changed."""
        before = self.bound
        open_ = self.loop is not None and not self.is_closed
        self.bound = max(1, int(self.limit * self.factor)) if open_ else 0
        if before and self.bound:
            self.estimator.rescale(before, self.bound)
        if self.bound > before and self.queue.count:
            self.grant_waiters(self.clock())

    def shut(self) -> None:
        """Shed every call from now on, and those that wait."""
        self.is_closed = True
        self.bound = 0
        while True:
            oldest = self.queue.oldest()
            if oldest is None:
                return
            self.shed(oldest, CLOSED)

    def queued(self) -> int:
        """Return the number of waiters."""
        return self.queue.count

    def oldest_wait_s(self) -> float:
        """Return how long the oldest waiter has waited, in seconds; 0 without waiters."""
        oldest = self.queue.oldest()
        return 0.0 if oldest is None else self.clock() - oldest.queued_s
