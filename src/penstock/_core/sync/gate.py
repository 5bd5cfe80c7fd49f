# cython: annotation_typing=False, nonecheck=True
"""What enforces a limit: permits, the queue before them, and who is refused at once, or after a while.

Native where it is built (`gate.pxd` has the types), this very source elsewhere. Imports nothing from penstock but the
core's own: what an exception, a window of measurements or a statistic is, `penstock.pressure.admission.gate` says.
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
from .waitqueue import Waiter, WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["REASONS", "Entry", "GateCore"]

# By number; the counts in `sheds` are in this order.
REASONS = ("limit", "full", "wait", "expired", "deadline", "share", "displaced", "closed", "left", "streams")
LIMIT, FULL, WAIT, EXPIRED, DEADLINE, SHARE, DISPLACED, CLOSED, LEFT = 0, 1, 2, 3, 4, 5, 6, 7, 8
CRITICAL, NORMAL = 0, 2

# An estimate is off by some: with all of `max_wait_s` promised, a few in a hundred would be refused at its end, late.
PROMISED = 0.7
# Of bare entries, at most so many are measured at a time; where service is shorter than 50 us only every 32nd is, so
# that measuring costs at most a hundredth of what is measured.
MOST_SAMPLED, SHORT_S, SAMPLE_EVERY = 16, 50e-6, 32
MOST_RTTS = 512
# a loop may run a timer so much before its time: one that then finds nothing would be set again and again
EARLY_S = 1e-6
INFINITE_S = math.inf
UNKNOWN_S = -math.inf

logger = logging.getLogger("penstock.pressure")


new_exception: Any = BaseException.__new__


def check_priority(priority: int) -> None:
    """ValueError if it is no class."""
    if not 0 <= priority <= 3:
        raise ValueError(f"priority is 0 (critical) to 3 (low), not {priority!r}")


class Entry:
    """One passage through a gate, with its class, key and times: made by `gate.entry()`, for one passage at a time.

    Use it as `async with gate.entry(...)`, or `await entry.enter()` and `entry.leave()`.
    """

    # made by `new_entry`, without arguments to parse
    gate: GateCore
    priority: int
    key: Hashable
    arrived_s: float
    deadline_s: float
    started_s: float
    is_inside: bool
    is_begun: bool

    def __aenter__(self) -> Any:
        if self.is_begun:
            raise RuntimeError("this entry is in use: make one for each passage, by gate.entry()")
        return self.gate.begin(self.priority, self.key, self.arrived_s, self.deadline_s, self)

    def __aexit__(self, kind: Any, value: Any, traceback: Any) -> Done:
        if kind is not None:
            self.gate.ended_with(kind)
        self.leave()
        return DONE

    def __await__(self) -> Any:
        return self.__aenter__()

    def enter(self) -> Entry:
        """`await entry.enter()`: wait for a permit; `Overloaded` when refused."""
        return self

    def leave(self) -> None:
        """Give the permit back. RuntimeError if it is not inside."""
        if not self.is_inside:
            raise RuntimeError("this entry is not inside its gate: leave() comes once, after enter()")
        self.is_begun = self.is_inside = False
        self.gate.finish(self)


def new_entry(gate: GateCore, priority: int, key: Hashable, arrived_s: float, deadline_s: float) -> Entry:
    """An entry that has not begun."""
    entry = Entry.__new__(Entry)
    entry.gate = gate
    entry.priority = priority
    entry.key = key
    entry.arrived_s = arrived_s
    entry.deadline_s = deadline_s
    entry.started_s = UNKNOWN_S
    entry.is_inside = entry.is_begun = False
    return entry


class GateCore:
    """The gate without its statistics and exceptions: a subclass has `error`, `name`, the histograms and `window_over`.

    Ownership: the queue owns the waiters; `loop` is the loop of the first use. `inflight` counts permits that are held,
    those of granted waiters whose tasks have not run yet (`granted`) among them: so nobody overtakes them.
    """

    def __init__(self, limit: int, max_wait_s: float, deadline_s: float, reserve: int, max_queued: int) -> None:
        self.limit = limit
        self.factor = 1.0
        # what `inflight` may be now: 0 until there is a loop, and once it is closed: the short way need not look
        self.bound = 0
        self.reserve = reserve
        self.inflight = self.granted = self.entered = self.waited = self.most_inflight = 0
        self.max_wait_s = max_wait_s
        # nobody waits longer than this
        self.patience_s = min(max_wait_s, deadline_s)
        self.promised_s = PROMISED * max_wait_s
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
        # of a subclass: until when the caller's answer is wanted, on the loop's clock, or None
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
        # of a subclass: the type of refusals, which takes these arguments, and histograms
        self.name = ""
        self.error: type[BaseException] = Exception
        self.waits: Any = None
        self.services: Any = None

    # --- entering ---

    def __aenter__(self) -> Any:
        if self.inflight < self.bound:
            self.inflight += 1
            self.entered += 1
            if self.inflight > self.most_inflight:
                self.most_inflight = self.inflight
            if self.entered >= self.sample_at:
                self.begin_sample()
            return DONE
        return self.begin(NORMAL, None, UNKNOWN_S, UNKNOWN_S, None)

    def __aexit__(self, kind: Any, value: Any, traceback: Any) -> Done:
        if kind is not None:
            self.ended_with(kind)
        self.depart(True)
        return DONE

    def through(
        self,
        priority: int = NORMAL,
        key: Hashable = None,
        arrived_s: float | None = None,
        deadline_s: float | None = None,
    ) -> Any:
        """Enter, or raise; what it gives is to be awaited at once."""
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
        """A passage of a class and key; `arrived_s` is when it came, on `loop.time()`'s clock (default: now).

        `deadline_s` is the time it has in all, from then on (default: the gate's).
        """
        check_priority(priority)
        arrived = UNKNOWN_S if arrived_s is None else arrived_s
        return new_entry(self, priority, key, arrived, UNKNOWN_S if deadline_s is None else deadline_s)

    def try_enter(self, *, priority: int = NORMAL, key: Hashable = None) -> bool:
        """Take a permit if one is free now; False otherwise. `leave()` gives it back."""
        # where there is no loop yet, or it is closed, `bound` is 0 and nothing is in reserve
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
        """Give a permit back. RuntimeError if none is held."""
        self.depart(True)

    def begin(self, priority: int, key: Hashable, arrived_s: float, deadline_s: float, entry: Entry | None) -> Any:
        """Enter, be refused (raises), or wait: what is to be awaited."""
        if get_running_loop() is not self.loop:
            self.bind()
        now_s = self.clock()
        if now_s >= self.window_at_s:
            self.window_over(now_s)
        if deadline_s == UNKNOWN_S:
            deadline_s = self.deadline_s
        if arrived_s == UNKNOWN_S:
            arrived_s = now_s
        if self.is_closed:
            raise self.refused(CLOSED, now_s)
        if self.inflight >= self.bound and now_s >= self.full_at_s:
            self.met_full(now_s)
        if self.inflight < self.bound or (priority == CRITICAL and self.inflight < self.bound + self.reserve):
            # a health check is let in late as well: its refusal would be taken for a failure
            is_late = arrived_s < now_s and priority != CRITICAL
            if is_late and self.estimator.is_too_late(now_s - arrived_s, deadline_s):
                raise self.refused(DEADLINE, now_s)
            self.admit()
            if entry is not None:
                entry.is_begun = entry.is_inside = True
                entry.started_s = now_s
            elif self.entered >= self.sample_at:
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
            raise self.refused(DEADLINE, now_s)
        reason = self.why_not_wait(priority, key, now_s)
        if reason >= 0:
            raise self.refused(reason, now_s)
        waiter = Waiter()
        waiter.owner, waiter.loop, waiter.priority, waiter.key = self, self.loop, priority, key
        waiter.queued_s, waiter.arrived_s, waiter.deadline_s, waiter.entry = now_s, arrived_s, deadline_s, entry
        if entry is not None:
            entry.is_begun = True
        try:
            self.enqueue(waiter)
            if until_s < now_s + self.patience_s and not waiter.done():
                waiter.timer = self.loop.call_at(until_s, self.overdue, waiter)
        except BaseException:
            self.withdraw(waiter)
            raise
        return waiter

    def admit(self) -> None:
        """A permit is taken."""
        self.inflight += 1
        self.entered += 1
        if self.inflight > self.most_inflight:
            self.most_inflight = self.inflight

    def bind(self) -> None:
        """Belong to the running loop. RuntimeError if it belongs to another one that is not closed."""
        loop = get_running_loop()
        if self.loop is not None and not self.loop.is_closed():
            raise RuntimeError(f"{self!r} belongs to another event loop: make one for each loop")
        self.loop = loop
        plain = getattr(type(loop), "time", None) is base_events.BaseEventLoop.time
        self.clock = time.monotonic if plain else loop.time
        # what a closed loop left behind will not come back
        self.queue = WaitQueue()
        self.inflight = self.granted = 0
        self.starts.clear()
        self.sampled = 0
        self.timer = None
        self.timer_at_s = self.backlog_since_s = INFINITE_S
        self.estimator.forget()
        self.rebound()

    # --- leaving ---

    def depart(self, is_bare: bool) -> None:
        """A permit comes back, and goes to whoever is next."""
        if self.inflight <= self.granted:
            raise RuntimeError("leave() without enter(): the gate has no permit out")
        self.inflight -= 1
        if is_bare and self.sampled:
            self.end_sample()
        if self.queue.count:
            self.hand_on_at(self.clock())

    def ended_with(self, kind: type[BaseException]) -> None:
        """An exception ends an entry: whether time ran out, counts."""
        if issubclass(kind, CancelledError | TimeoutError):
            self.dropped += 1

    def finish(self, entry: Entry) -> None:
        """An entry leaves: it is measured."""
        if self.inflight <= self.granted:
            raise RuntimeError("leave() without enter(): the gate has no permit out")
        self.inflight -= 1
        now_s = self.clock()
        self.measured(entry.started_s, now_s)
        if self.queue.count:
            self.hand_on_at(now_s)

    def hand_on_at(self, now_s: float) -> None:
        """A permit has come back while others wait."""
        self.estimator.departed(now_s, self.backlog_since_s, self.bound)
        self.pump(now_s)

    # --- the queue ---

    def why_not_wait(self, priority: int, key: Hashable, now_s: float) -> int:
        """The reason to refuse one that would have to wait; -1 if it may wait. One of lower worth may have to go."""
        if self.max_wait_s <= 0:
            return LIMIT
        count = self.queue.count
        gap_s = self.estimator.gap(now_s, self.bound)
        if count < self.max_queued and (count + 1) * gap_s <= self.promised_s:
            return -1
        ahead = self.queue.before_next(priority, key)
        if ahead < self.max_queued and (ahead + 1) * gap_s <= self.promised_s:
            victim = self.queue.lowest_newest(priority)
            reason = DISPLACED
            if victim is None and not self.queue.is_over_share(priority, key):
                victim = self.queue.heaviest_newest(priority, key)
                reason = SHARE
            if victim is not None:
                self.shed(victim, reason)
                return -1
        if self.queue.is_over_share(priority, key):
            return SHARE
        return FULL if count >= self.max_queued else WAIT

    def enqueue(self, waiter: Waiter) -> Waiter:
        """Let it wait."""
        if not self.queue.count:
            self.backlog_since_s = waiter.queued_s
        self.queue.push(waiter)
        if self.patience_s < INFINITE_S:
            self.arm(waiter.queued_s + self.estimator.timeout_s(waiter.queued_s, self.patience_s))
        # a listener may have raised the limit meanwhile
        if self.inflight < self.bound:
            self.pump(waiter.queued_s)
        return waiter

    def withdraw(self, waiter: Waiter) -> None:
        """One that nobody will await: a key that cannot be hashed, a Ctrl-C."""
        if waiter.queue is not None or waiter.done():
            waiter.give_up()
        if waiter.entry is not None:
            waiter.entry.is_begun = False

    def pump(self, now_s: float) -> None:
        """Hand out what is free."""
        if self.patience_s < INFINITE_S:
            self.expire(now_s)
        while self.queue.count:
            room = self.bound + self.reserve if self.queue.critical_count() else self.bound
            if self.inflight >= room:
                return
            waiter = self.queue.take(self.estimator.is_overloaded(now_s))
            if not self.queue.count:
                self.backlog_since_s = INFINITE_S
            is_critical = waiter.priority == CRITICAL
            if not is_critical and self.estimator.is_too_late(now_s - waiter.arrived_s, waiter.deadline_s):
                self.shed_waiter(waiter, DEADLINE)
                continue
            self.inflight += 1
            self.granted += 1
            self.waited += 1
            if self.inflight > self.most_inflight:
                self.most_inflight = self.inflight
            self.estimator.noted(False, now_s, self.max_wait_s)
            self.waits.add(int((now_s - waiter.queued_s) * 1e9))
            waiter.grant()

    def expire(self, now_s: float) -> None:
        """Refuse those who have waited too long, from the old end."""
        timeout_s = self.estimator.timeout_s(now_s, self.patience_s)
        while True:
            oldest = self.queue.oldest()
            if oldest is None or oldest.queued_s + timeout_s > now_s + EARLY_S:
                return
            self.estimator.noted(True, now_s, self.max_wait_s)
            self.shed(oldest, EXPIRED)

    def arm(self, at_s: float) -> None:
        """Look at the old end at that time, unless that is done before."""
        if self.timer is not None:
            if self.timer_at_s <= at_s:
                return
            self.timer.cancel()
        self.timer_at_s = at_s
        self.timer = self.loop.call_at(at_s, self.on_time)

    def on_time(self) -> None:
        """The timer: refuse the old end, and look again when the next is due."""
        self.timer = None
        now_s = self.clock()
        self.expire(now_s)
        oldest = self.queue.oldest()
        if oldest is not None:
            self.arm(max(now_s, oldest.queued_s + self.estimator.timeout_s(now_s, self.patience_s)))

    def overdue(self, waiter: Waiter) -> None:
        """The timer of one that waits: its caller's deadline has passed."""
        waiter.timer = None
        if not waiter.done():
            self.shed(waiter, DEADLINE)

    def shed(self, waiter: Waiter, reason: int) -> None:
        """One that waits is refused."""
        self.queue.remove(waiter)
        if not self.queue.count:
            self.backlog_since_s = INFINITE_S
        self.shed_waiter(waiter, reason)

    def shed_waiter(self, waiter: Waiter, reason: int) -> None:
        """One that is out of the queue is refused."""
        if waiter.entry is not None:
            waiter.entry.is_begun = False
        waiter.shed(reason)
        self.count_shed(reason)

    # --- what a waiter tells ---

    def _resumed(self, waiter: Waiter) -> None:
        """Its task runs, with its permit."""
        self.granted -= 1
        self.entered += 1
        if waiter.entry is not None:
            waiter.entry.is_inside = True
            waiter.entry.started_s = self.clock()
        elif self.entered >= self.sample_at:
            self.begin_sample()

    def _gave_up(self, waiter: Waiter) -> None:
        """It leaves the queue by itself."""
        self.queue.remove(waiter)
        if not self.queue.count:
            self.backlog_since_s = INFINITE_S
        if waiter.entry is not None:
            waiter.entry.is_begun = False

    def _passed_on(self, waiter: Waiter) -> None:
        """It has a permit and cannot use it: the next one has it."""
        self.granted -= 1
        self.inflight -= 1
        if waiter.entry is not None:
            waiter.entry.is_begun = False
        if self.queue.count:
            self.pump(self.clock())

    def _refusal(self, waiter: Waiter) -> BaseException:
        """The exception of one that waited."""
        return self.made(waiter.reason, self.clock() - waiter.queued_s)

    # --- refusals ---

    def refused(self, reason: int, now_s: float) -> BaseException:
        """Count a refusal; its exception."""
        age_s = 0.0
        if self.queue.count:
            oldest = self.queue.oldest()
            if oldest is not None:
                age_s = now_s - oldest.queued_s
        error = self.made(reason, age_s)
        self.count_shed(reason)
        return error

    def made(self, reason: int, age_s: float) -> BaseException:
        """The exception; its message is made when somebody reads it."""
        retry_s = self.estimator.retry_s(self.queue.count)
        retry_after_s = None if retry_s == 0.0 or reason == CLOSED else retry_s
        # past __init__, which would take longer than all else
        made: BaseException = new_exception(
            self.error, None, REASONS[reason], self.queue.count, self.bound, retry_after_s, age_s, self.name
        )
        return made

    def count_shed(self, reason: int) -> None:
        self.sheds[reason] += 1
        if self.on_shed is not None:
            self.notify(REASONS[reason])

    def count_left(self) -> None:
        """Count one that waited and was given up because its client had left: who sees that says so."""
        self.count_shed(LEFT)

    def notify(self, reason: str) -> None:
        """Call the listener; one that raises is logged and removed."""
        listener = self.on_shed
        if listener is None:
            return
        try:
            listener(self, reason)
        except Exception:
            self.on_shed = None
            logger.exception("%r: its on_shed raised, and is removed", self)

    def window_over(self, now_s: float) -> None:
        """A window of measurements ends: `rtts_s`, `most_inflight` and the counts are of it."""
        raise NotImplementedError

    def met_full(self, now_s: float) -> None:
        """Ask the limit for more before a call that found no permit free is queued or refused; does nothing here."""

    # --- measuring ---

    def begin_sample(self) -> None:
        """Measure this entry, by the task it runs in."""
        if self.sampled >= MOST_SAMPLED:
            if self.inflight >= self.sampled:
                self.sample_at = self.entered + SAMPLE_EVERY
                return
            # some have left in another task, and are not found any more
            self.starts.clear()
        task = current_task(self.loop)
        if task is not None:
            # with a reference: an address may be another task's by then
            self.starts[id(task)] = (ref(task), self.clock())
        self.sampled = len(self.starts)
        is_short = self.estimator.service_count > 0 and self.estimator.service_s < SHORT_S
        self.sample_at = self.entered + (SAMPLE_EVERY if is_short else 1)

    def end_sample(self) -> None:
        """If this task is measured, its time of service is known now."""
        task = current_task(self.loop)
        found = self.starts.pop(id(task), None)
        if found is not None:
            self.sampled = len(self.starts)
            if found[0]() is task:
                self.measured(found[1], self.clock())

    def measured(self, started_s: float, now_s: float) -> None:
        """One was inside from `started_s` until now."""
        # the loop's lag is in it: who is let in waits for the loop as well, and is to finish by its deadline
        rtt_s = max(0.0, now_s - started_s)
        self.estimator.served(rtt_s, self.bound)
        self.services.add(int(rtt_s * 1e9))
        if self.window_at_s < INFINITE_S:
            if started_s >= self.epoch_s and len(self.rtts_s) < MOST_RTTS:
                self.rtts_s.append(rtt_s)
                self.begins_s.append(started_s)
            if now_s >= self.window_at_s:
                self.window_over(now_s)

    # --- the limit ---

    def rebound(self) -> None:
        """The limit, or what it is multiplied with, has changed."""
        before = self.bound
        open_ = self.loop is not None and not self.is_closed
        self.bound = max(1, int(self.limit * self.factor)) if open_ else 0
        if before and self.bound:
            self.estimator.rescale(before, self.bound)
        if self.bound > before and self.queue.count:
            self.pump(self.clock())

    def shut(self) -> None:
        """Refuse from now on, those who wait as well."""
        self.is_closed = True
        self.bound = 0
        while True:
            oldest = self.queue.oldest()
            if oldest is None:
                return
            self.shed(oldest, CLOSED)

    def queued(self) -> int:
        """How many wait."""
        return self.queue.count

    def oldest_wait_s(self) -> float:
        """How long the oldest has waited, in seconds; 0 if nobody waits."""
        oldest = self.queue.oldest()
        return 0.0 if oldest is None else self.clock() - oldest.queued_s
