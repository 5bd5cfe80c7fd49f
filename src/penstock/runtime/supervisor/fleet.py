"""The workers of a supervisor, in numbered slots: which of them are to be started, replaced, drained or killed.

A replacement starts beside the worker that it replaces; only once it serves is the old one drained. One replacement is
under way at a time, whatever its reason: a new generation, a signal, a bound of recycling.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from penstock.runtime.supervisor.recycling import RecycleBounds
from penstock.runtime.supervisor.restarts import STABLE_S, Restarts
from penstock.runtime.supervisor.worker_process import State, WorkerProcess

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator

    from penstock.runtime.supervisor.generation import Generation

__all__ = ["KILL_GRACE_S", "Fleet", "FleetOptions", "Launcher"]

# the time for clean-up and lifespan shutdown after a drain; then the worker is killed
KILL_GRACE_S = 1.0
# a signal to a worker counts after so long: it may have come to the supervisor as well
SIGNAL_SETTLE_S = 0.1
# of a worker that is to be killed: the wait for its stack
STACK_WAIT_S = 0.5


class Launcher(Protocol):
    """Starts worker processes."""

    def launch(self, worker: WorkerProcess) -> None:
        """Start the process of a worker. Raises OSError."""


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """The bounds of a fleet; None for no bound. `waits_for_change`: a failed start waits for new orders."""

    drain_s: float | None = 10.0
    start_s: float | None = None
    hang_s: float | None = None
    max_restarts: int | None = None
    recycling: RecycleBounds = field(default_factory=RecycleBounds)
    waits_for_change: bool = False


@dataclass(slots=True)
class Slot:
    """A place for one worker. `successor` starts beside `worker` and replaces it."""

    number: int
    worker: WorkerProcess | None = None
    successor: WorkerProcess | None = None
    # no start and no replacement before
    due_s: float = -math.inf
    # whether its last start has failed
    has_failed: bool = False


class Fleet:
    """The workers in their slots. Not safe for threads: the supervisor's loop owns it."""

    def __init__(
        self,
        launcher: Launcher,
        options: FleetOptions,
        logger: logging.Logger,
        *,
        rss_bytes: Callable[[int], int | None],
        chance: random.Random | None = None,
        make_worker: type[WorkerProcess] = WorkerProcess,
    ) -> None:
        self._launcher, self._options, self._logger = launcher, options, logger
        self._rss_bytes = rss_bytes
        self._chance = chance or random.Random()
        self._make_worker = make_worker
        self.slots: dict[int, Slot] = {}
        # workers without a slot: drained, killed
        self.leaving: list[WorkerProcess] = []
        self.restarts = Restarts(options.max_restarts)
        self.current: Generation | None = None
        # the generation that is being rolled out; the current one if none is
        self.target: Generation | None = None
        # whether all workers of the first generation have served
        self.is_ready = False
        self.is_stopping = False
        # the reason and the exit code with which the supervisor is to end
        self.fatal: tuple[str, int] | None = None
        # set by a roll-out: why it failed, or an empty text
        self.on_rolled: Callable[[str], object] = bool

    # --- what is asked of it

    def begin(self, count: int, generation: Generation) -> None:
        """Fill `count` slots with workers of the first generation, at the next tick."""
        self.current = self.target = generation
        self.slots = {number: Slot(number) for number in range(1, count + 1)}

    def scale(self, count: int, now_s: float) -> None:
        """Have `count` slots: new ones are filled at the next tick, the last ones are drained."""
        for number in [number for number in self.slots if number > count]:
            slot = self.slots.pop(number)
            for worker in (slot.worker, slot.successor):
                if worker is not None:
                    self._drain(worker, now_s)
        for number in range(len(self.slots) + 1, count + 1):
            self.slots[number] = Slot(number)

    def roll(self, generation: Generation) -> None:
        """Replace each worker by one of this generation, beginning at the next tick."""
        self.target = generation
        for slot in self.slots.values():
            slot.due_s = -math.inf
        if not self.is_ready and self._options.waits_for_change:
            self.current = generation

    @property
    def is_rolling(self) -> bool:
        """Whether a generation is being rolled out."""
        return self.target is not self.current

    def workers(self) -> Iterator[WorkerProcess]:
        """Yield the processes that have not ended."""
        for slot in self.slots.values():
            yield from (each for each in (slot.worker, slot.successor) if each is not None)
        yield from self.leaving

    def serving(self) -> list[WorkerProcess]:
        """Return the workers that serve and are not draining."""
        return [each for each in self.workers() if each.state is State.SERVING]

    def starting(self) -> list[WorkerProcess]:
        """Return the workers that start."""
        return [each for each in self.workers() if each.state is State.STARTING]

    # --- time passes

    def tick(self, now_s: float, now_ns: int) -> None:
        """Start, replace and kill the workers that are due."""
        for worker in list(self.workers()):
            self._check(worker, now_s, now_ns)
        if self.is_stopping or self.fatal is not None:
            return
        for slot in self.slots.values():
            if slot.worker is None and slot.successor is None and now_s >= slot.due_s:
                slot.worker = self._launched(slot, self._generation(slot), now_s)
        self._replace_next(now_s)
        self._finish_roll()

    def _generation(self, slot: Slot) -> Generation:
        """Return the generation of a restarted worker: the newest of which a worker has started.

        Where the present one does not start, the one that is rolled out may: it is tried there first.
        """
        assert self.current is not None and self.target is not None
        return self.target if self.target.has_started or slot.has_failed else self.current

    def _launched(self, slot: Slot, generation: Generation, now_s: float) -> WorkerProcess | None:
        bounds = self._options.recycling.of_worker(self._chance)
        worker = None
        try:
            worker = self._make_worker(slot.number, generation, bounds, now_s)
            self._launcher.launch(worker)
        except OSError as error:
            if worker is not None:
                worker.close()
            self._start_failed(slot, generation, f"cannot start a process: {error.strerror or error}", 1, "", now_s)
            return None
        return worker

    def _replace_next(self, now_s: float) -> None:
        """Start the successor of one worker, if each slot has a serving worker and none is leaving."""
        if self.leaving:
            return
        slots = list(self.slots.values())
        if any(slot.successor or slot.worker is None or slot.worker.state is not State.SERVING for slot in slots):
            return
        for slot in sorted(slots, key=self._urgency):
            reason = self._reason(slot, now_s)
            if reason and now_s >= slot.due_s:
                self._logger.info("%s is replaced: %s", slot.worker, reason)
                slot.successor = self._launched(slot, self.target or self._generation(slot), now_s)
                return

    def _urgency(self, slot: Slot) -> tuple[bool, float]:
        assert slot.worker is not None
        return slot.worker.generation is self.target, slot.worker.launched_s

    def _reason(self, slot: Slot, now_s: float) -> str:
        """Return the reason for which the slot's worker is to be replaced now, or an empty text."""
        worker = slot.worker
        assert worker is not None and self.target is not None
        if worker.generation is not self.target:
            return f"generation {self.target.number} begins"
        if worker.signalled_s is not None and now_s - worker.signalled_s >= SIGNAL_SETTLE_S:
            return "it was asked to end by a signal"
        rss_bytes = None if worker.bounds.rss_bytes is None else self._rss_bytes(worker.pid or 0)
        return worker.bounds.exceeded(worker.page.read().served, worker.served_s(now_s), rss_bytes)

    def _finish_roll(self) -> None:
        if not self.is_rolling or self.leaving:
            return
        if all(
            slot.worker and slot.worker.state is State.SERVING and slot.worker.generation is self.target
            for slot in self.slots.values()
        ):
            self.current = self.target
            self.on_rolled("")

    # --- one worker's health

    def _check(self, worker: WorkerProcess, now_s: float, now_ns: int) -> None:
        if worker.shown_at_s is not None and now_s >= worker.shown_at_s:
            self._finish_show(worker)
        if worker.state is State.STARTING:
            if worker.kill_reason:
                self._finish_kill(worker, now_s)
            else:
                self._check_start(worker, now_s)
            return
        is_late = worker.killed_at_s is not None and now_s >= worker.killed_at_s
        hung_s = 0.0 if self._options.hang_s is None else worker.hang.check(worker.page.read(), now_ns)
        is_hung = self._options.hang_s is not None and hung_s >= self._options.hang_s
        if worker.kill_reason:
            if is_hung or is_late:
                self._finish_kill(worker, now_s)
            else:
                self._spare(worker)
        elif is_late:
            self._kill(worker, f"its drain has not ended in time, {_work(worker)}", now_s)
        elif is_hung:
            self._kill(worker, f"its loop has been blocked for {hung_s:.1f} s", now_s)

    def _check_start(self, worker: WorkerProcess, now_s: float) -> None:
        start_s, age_s = self._options.start_s, now_s - worker.launched_s
        if age_s >= worker.slow_start_s:
            worker.slow_start_s = 2 * age_s
            self._logger.warning("%s has been starting for %.0f s", worker, age_s)
            self.show_stack(worker, now_s)
        if start_s is not None and age_s >= start_s:
            self._kill(worker, f"it has not started within {start_s:g} s", now_s)
        elif worker.killed_at_s is not None and now_s >= worker.killed_at_s:
            self._kill(worker, "its start has not ended within the drain", now_s)

    def _kill(self, worker: WorkerProcess, reason: str, now_s: float) -> None:
        """Ask the worker for its stack, and kill it a moment later."""
        worker.kill_reason, worker.kill_asked_s = reason, now_s
        if worker.pid is not None:
            worker.stack.ask(worker.pid)

    def show_stack(self, worker: WorkerProcess, now_s: float) -> None:
        """Log the stacks of a worker's threads a moment later."""
        if worker.pid is not None and worker.shown_at_s is None:
            worker.stack.ask(worker.pid)
            worker.shown_at_s = now_s + STACK_WAIT_S

    def _finish_show(self, worker: WorkerProcess) -> None:
        worker.shown_at_s = None
        self._logger.warning("%s %s:\n%s", worker, worker.state.value, worker.stack.take().rstrip())

    def _spare(self, worker: WorkerProcess) -> None:
        """Give up a kill whose reason has gone while the stack was awaited. One that is sent is not taken back."""
        if not math.isinf(worker.kill_asked_s):
            self._logger.warning("%s is not killed after all: %s, but no more", worker, worker.kill_reason)
            worker.kill_reason = ""

    def _finish_kill(self, worker: WorkerProcess, now_s: float) -> None:
        if now_s - worker.kill_asked_s < STACK_WAIT_S:
            return
        if worker.pid is None:
            # the template has not forked it: it ends with its channel
            worker.channel.close()
        stack = worker.stack.take().rstrip()
        self._logger.error("%s is killed: %s%s", worker, worker.kill_reason, "\n" + stack if stack else "")
        worker.kill()
        worker.kill_asked_s = math.inf

    # --- events

    def on_message(self, worker: WorkerProcess, message: dict[str, Any], now_s: float) -> None:
        """Take a message of a worker."""
        if worker.pid is None and isinstance(message.get("pid"), int):
            worker.pid = message["pid"]
        if "started" in message and worker.state is State.STARTING:
            self._started(worker, now_s)
        if "failed" in message:
            worker.failure = message["failed"], message.get("code", 3), message.get("details", "")
        if "ending" in message:
            worker.is_ending = True
        if "signal" in message:
            worker.signalled_s = now_s

    def _started(self, worker: WorkerProcess, now_s: float) -> None:
        if worker in self.leaving:
            # it was told to drain while it started
            worker.state = State.DRAINING
            return
        if worker.kill_reason:
            self._spare(worker)
            if worker.kill_reason:
                return
        worker.state, worker.serving_since_s = State.SERVING, now_s
        worker.generation.has_started = True
        self._logger.info("%s serves, after %.1f s", worker, now_s - worker.launched_s)
        slot = self.slots.get(worker.number)
        if slot is not None:
            slot.has_failed = False
        if slot is not None and slot.successor is worker:
            old, slot.worker, slot.successor = slot.worker, worker, None
            if old is not None:
                self._drain(old, now_s)
        self.is_ready = self.is_ready or all(
            each.worker is not None and each.worker.state is State.SERVING for each in self.slots.values()
        )

    def on_end(self, worker: WorkerProcess, status: str, now_s: float) -> None:
        """Take the end of a worker's process. `status` describes it: its exit code or its signal."""
        was, served_s = worker.state, worker.served_s(now_s)
        worker.close()
        if worker in self.leaving:
            self.leaving.remove(worker)
            return
        slot = self.slots[worker.number]
        if slot.successor is worker:
            slot.successor = None
        else:
            slot.worker = None
        if self.is_stopping:
            return
        if was is State.STARTING:
            reason, code, details = worker.failure or (f"{worker} {status} before it served", 3, "")
            if worker.kill_reason:
                reason = f"{worker} was killed: {worker.kill_reason}"
            self._start_failed(slot, worker.generation, reason, code, details, now_s)
            return
        delay_s = self.restarts.record(slot.number, served_s, now_s)
        slot.due_s = now_s + delay_s
        if not worker.kill_reason:
            self._logger.error("%s %s; it is started again%s", worker, status, f" in {delay_s:.1f} s" * (delay_s > 0))
        self._check_restarts(now_s)

    def _start_failed(
        self, slot: Slot, generation: Generation, reason: str, code: int, details: str, now_s: float
    ) -> None:
        slot.has_failed = True
        text = f"{reason}\n{details}" if details and self._options.waits_for_change else reason
        if self.is_rolling and generation is self.target and self.is_ready:
            self._roll_back(text)
        elif self._options.waits_for_change:
            self._logger.error("%s", text)
            slot.due_s = math.inf
        elif not self.is_ready:
            self.fatal = self.fatal or (reason, code)
        else:
            delay_s = self.restarts.record(slot.number, 0.0, now_s)
            slot.due_s = now_s + delay_s
            self._logger.error("%s; the next start is in %.1f s", text, delay_s)
            self._check_restarts(now_s)

    def _roll_back(self, reason: str) -> None:
        assert self.target is not None and self.current is not None
        self._logger.error("%s; generation %d goes on", reason, self.current.number)
        self.target = self.current
        self.on_rolled(reason)

    def _check_restarts(self, now_s: float) -> None:
        if not self.restarts.is_exceeded(now_s) or any(each.served_s(now_s) >= STABLE_S for each in self.serving()):
            return
        self.fatal = self.fatal or (f"more than {self._options.max_restarts} restarts of workers in five minutes", 3)

    # --- the end

    def _drain(self, worker: WorkerProcess, now_s: float) -> None:
        """Drain a worker that has left its slot. One that starts is told too: its start has the time of the drain."""
        drain_s = self._options.drain_s
        if worker.state is State.SERVING:
            worker.state = State.DRAINING
        worker.killed_at_s = None if drain_s is None else now_s + drain_s + KILL_GRACE_S
        worker.send({"drain": drain_s})
        self.leaving.append(worker)

    def hasten(self) -> None:
        """Start missing workers without a delay, at the next tick."""
        for slot in self.slots.values():
            slot.due_s = -math.inf

    def drain_all(self, now_s: float) -> None:
        """Drain every worker; none is started any more."""
        self.is_stopping = True
        for slot in self.slots.values():
            for worker in (slot.worker, slot.successor):
                if worker is not None:
                    self._drain(worker, now_s)
        self.slots.clear()

    def kill_all(self) -> None:
        """End every worker at once; none is started any more."""
        self.is_stopping = True
        for worker in self.workers():
            worker.kill()
            worker.channel.close()


def _work(worker: WorkerProcess) -> str:
    reading = worker.page.read()
    counts = {"request": reading.requests, "connection": reading.connections}
    named = ", ".join(f"{count} {noun}{'s' * (count != 1)}" for noun, count in counts.items() if count)
    if named:
        return f"it waited for {named}"
    # a blocked loop does not note its work
    return "its loop is blocked" if reading.callback_since_ns else "its clean-up was not done"
