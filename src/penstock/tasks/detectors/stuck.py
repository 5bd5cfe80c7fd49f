"""Stuck tasks: tasks whose awaited object cannot be completed, found by reachability as in Go's goroutine leak profile.

A waiting task can run again if its awaited future is reachable from outside; all that such a task can reach is then
reachable too. The rest, at the fixed point, is stuck. In doubt a task is not reported. Reports only; cancels nothing.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections import deque
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from penstock.tasks.awaits.awaited import TASKS
from penstock.tasks.awaits.chain import AwaitChain, await_chain, awaited_object
from penstock.tasks.awaits.graph import await_cycles
from penstock.tasks.detectors.cancellers import awaiters_of, cancellers_of
from penstock.tasks.detectors.reachability import References, asyncio_future, dict_is_shared

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["StuckSearch", "StuckTask", "stuck_tasks"]

# objects walked for one task, nearest to the awaited one first
NEAR_COUNT = 400
# shares of the budget at which the first walk ends, and the second one, which verifies the first
FIRST_SHARE, SECOND_SHARE = 0.4, 0.65


@dataclass(frozen=True, slots=True)
class StuckTask:
    """A task that only a cancellation can wake. `cycle` has the names of tasks that await each other, if any."""

    name: str
    chain: AwaitChain
    cycle: tuple[str, ...] = ()
    # weak: the record keeps no task alive
    task: weakref.ref[asyncio.Task[Any]] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        if self.cycle:
            return f"task {self.name!r} awaits itself: {' -> '.join((*self.cycle, self.cycle[0]))}"
        return f"task {self.name!r} waits for {self.chain.awaited.text}, which nothing else references"


def stuck_tasks(tasks: Iterable[asyncio.Task[Any]], budget_s: float = 0.005, most: int = 50) -> list[StuckTask]:
    """Return the stuck tasks among `tasks` and the tasks that they wait with, at most `most`.

    Call it in the thread of their loop, or while the loop does not run; tasks of a loop that runs elsewhere are left
    out. Takes at most `budget_s` seconds; tasks beyond that are not reported (`StuckSearch` continues with them). A
    task that a timer, an entered timeout, I/O, a thread or any reference to its awaited object may wake is not stuck. A
    reference to the task itself does not count: cancelling a task does not complete its awaited object.
    """
    return StuckSearch(budget_s, most).check(list(tasks))


class StuckSearch:
    """A search in parts of `budget_s` seconds: each `check` begins where the one before ran out of time.

    Suspects that a check had no time to verify come first in the next one. A stuck task is found in every round.
    """

    def __init__(self, budget_s: float = 0.005, most: int = 50) -> None:
        self.budget_s = budget_s
        self.most = most
        # tasks that the last check walked; 0 if it verified the suspects of the one before
        self.walked_count = 0
        self._suspects: list[weakref.ref[asyncio.Task[Any]]] = []
        self._next = 0

    def check(self, tasks: Sequence[asyncio.Task[Any]]) -> list[StuckTask]:
        """Return the stuck tasks among the next of `tasks`, as `stuck_tasks` does."""
        if not tasks or not _counts_are_true():
            return []
        begun_ns = monotonic_ns()
        budget_ns = int(self.budget_s * 1e9)
        waiting = [task for suspect in self._suspects if (task := suspect()) is not None]
        self.walked_count, self._suspects = 0, []
        found = waiting or self._suspects_among(tasks, begun_ns + int(budget_ns * FIRST_SHARE))
        if not found:
            return []
        # another thread may have moved a reference during the first walk; a stuck task stays stuck
        again = _Search(begun_ns + int(budget_ns * SECOND_SHARE))
        taken = again.take(found, 0)
        both = {id(task) for task in found}
        sure = [task for task in again.stuck(careful=True) if id(task) in both]
        if taken or not waiting:
            # the next check begins with these, unless this one had all the time and completed none
            self._suspects = [weakref.ref(task) for task in found[taken:]]
        return _records(sure, begun_ns + budget_ns, self.most)

    def _suspects_among(self, tasks: Sequence[asyncio.Task[Any]], deadline_ns: int) -> list[asyncio.Task[Any]]:
        # the references of this walk end here: they would count in the second one
        search = _Search(deadline_ns)
        start = self._next % len(tasks)
        self.walked_count = search.take(tasks, start)
        self._next = start + self.walked_count
        return search.stuck()


def _counts_are_true() -> bool:
    """Return whether reference counts are exact. Without a GIL they are split by thread and change meanwhile."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _records(tasks: list[asyncio.Task[Any]], deadline_ns: int, most: int) -> list[StuckTask]:
    cycles = {id(task): cycle for cycle in await_cycles(tasks) for task in cycle}
    found: list[StuckTask] = []
    for task in tasks[:most]:
        if monotonic_ns() > deadline_ns:
            break
        names = tuple(each.get_name() for each in cycles.get(id(task), ()))
        found.append(StuckTask(task.get_name(), await_chain(task), names, weakref.ref(task)))
    return found


class _Search:
    """One walk over the objects that tasks hold, and its result."""

    def __init__(self, deadline_ns: int) -> None:
        self._references = References(deadline_ns)
        self._loop = asyncio._get_running_loop()
        # candidate (a node) -> its coroutine
        self._candidates: dict[int, int] = {}
        # nodes that a reference alone does not make reachable: the candidates and their coroutines
        self._opaque: set[int] = set()
        # node -> the candidates that a holder of it can wake
        self._wakes: dict[int, list[int]] = {}
        # node -> the candidates that it may cancel if it is held outside; candidate -> the tasks cancelled with it
        self._cancels: dict[int, list[int]] = {}
        self._members: dict[int, list[int]] = {}
        # candidate -> the tasks that await it
        self._awaiters: dict[int, list[int]] = {}
        self._able: set[int] = set()
        self._cancelled: set[int] = set()

    def take(self, tasks: Sequence[asyncio.Task[Any]], start: int) -> int:
        """Walk from as many tasks as there is time for, from index `start` on and around. Return their number."""
        for taken in range(len(tasks)):
            if self._references.check_clock():
                return taken
            self._take_with_others(tasks[(start + taken) % len(tasks)])
            if self._references.late and taken:
                # cut short: the next walk begins with it, unless it is too long for any
                return taken
        return len(tasks)

    def stuck(self, careful: bool = False) -> list[asyncio.Task[Any]]:
        """Return the candidates that cannot be woken."""
        if not self._candidates:
            return []
        reached = bytearray(len(self._references.nodes))
        held = self._references.held_outside()
        self._spread(reached, (at for at in held if at not in self._opaque))
        for task in self._awaited_from_outside():
            self._spread(reached, self._cancel(task))
        self._spread(reached, self._tasks_that_run())
        if careful:
            self._spread(reached, self._shared(reached))
        return [self._references.nodes[at] for at in self._candidates if at not in self._able]

    def _take_with_others(self, task: asyncio.Task[Any]) -> None:
        """Walk from a task, then from the tasks met: tasks that wait for each other are judged together."""
        queue = deque([self._references.number(task)])
        while queue and not self._references.late:
            at = queue.popleft()
            if at not in self._candidates and self._may_be_stuck(at):
                queue.extend(self._walk_from(at))

    def _may_be_stuck(self, at: int) -> bool:
        task = self._references.nodes[at]
        if not isinstance(task, TASKS):
            return False
        loop = task.get_loop()
        here = loop is self._loop or (self._loop is None and not loop.is_running())
        return here and _waits(task)

    def _walk_from(self, at: int) -> list[int]:
        """Make a task a candidate if its cancellers are known. Return the tasks met on the walk."""
        references = self._references
        task = references.nodes[at]
        coroutine, awaited = references.number(task.get_coro()), references.number(task._fut_waiter)
        if not coroutine or not awaited or not self._note_cancellers(at, task):
            return []
        references.link(at, _held(task))
        self._candidates[at] = coroutine
        self._opaque.update((at, coroutine))
        self._wakes.setdefault(awaited, []).append(at)
        return [*self._awaiters[at], *references.walk(at, NEAR_COUNT)]

    def _note_cancellers(self, at: int, task: asyncio.Task[Any]) -> bool:
        """Record the task's possible cancellers and the tasks cancelled with it. Return False if unknown."""
        number = self._references.number
        within, above = cancellers_of(task), awaiters_of(task)
        if within is None:
            return False
        cancellers = [number(canceller) for canceller in (*within.managers, *above.releases)]
        if not all(cancellers):
            return False
        for canceller in cancellers:
            self._cancels.setdefault(canceller, []).append(at)
        self._members[at] = [number(member) for member in within.cancelled]
        self._awaiters[at] = [number(awaiter) for awaiter in above.awaiters]
        return True

    def _tasks_that_run(self) -> list[int]:
        """Return the awaited tasks that are no candidates, and the main task that waits for Ctrl+C."""
        nodes = self._references.nodes
        idle = [at for task in self._candidates if _is_idle_main(nodes[task]) for at in self._wake(task)]
        runs = [at for at in self._wakes if self._references.is_task(at) and at not in self._candidates]
        return idle + runs

    def _awaited_from_outside(self) -> list[int]:
        """Return the candidates awaited by a task that is none: it may be cancelled, which was not examined."""
        return [task for task in self._candidates if any(each not in self._candidates for each in self._awaiters[task])]

    def _wake(self, task: int) -> tuple[int, ...]:
        """Return the nodes reached when the task can run: itself, for callbacks and awaiters, and its coroutine."""
        if task in self._able:
            return ()
        self._able.add(task)
        return task, self._candidates[task]

    def _cancel(self, task: int) -> list[int]:
        """Return the nodes reached when the task is cancelled, and with it the tasks it awaits or holds in a group."""
        stack = [task]
        reached: list[int] = []
        while stack:
            at = stack.pop()
            if at in self._candidates and at not in self._cancelled:
                self._cancelled.add(at)
                reached.extend(self._wake(at))
                stack.extend(self._members[at])
        return reached

    def _shared(self, reached: bytearray) -> list[int]:
        nodes = self._references.nodes
        return [at for at in range(1, len(nodes)) if not reached[at] and dict_is_shared(nodes[at])]

    def _spread(self, reached: bytearray, starts: Iterable[int]) -> None:
        """Mark the nodes, all that they lead to, and the tasks that these can wake, as reached."""
        # a start is reached even if it is opaque; another opaque node is not
        stack = list(starts)
        while stack:
            at = stack.pop()
            if reached[at]:
                continue
            reached[at] = 1
            stack.extend(to for to in self._references.outward(at) if not reached[to] and to not in self._opaque)
            for task in self._wakes.get(at, ()):
                stack.extend(self._wake(task))
            for task in self._cancels.get(at, ()):
                stack.extend(self._cancel(task))


def _held(task: Any) -> list[Any]:
    """Return the relevant objects to which the task owns one reference; its other references stay unaccounted."""
    callbacks = task._callbacks or []
    if not isinstance(task, asyncio.tasks._PyTask):  # type: ignore[attr-defined]
        # the C task makes a new list for each caller
        callbacks = [callback for callback, _ in callbacks]
        return [task.get_coro(), task._fut_waiter, *callbacks]
    return [task.get_coro(), task._fut_waiter, callbacks]


def _waits(task: Any) -> bool:
    """Return whether the task waits for a future of asyncio's, with no wakeup or cancellation pending."""
    future = task._fut_waiter
    if future is None or task.done() or task._must_cancel or not asyncio_future(type(future)):
        return False
    return not future.done()


def _is_idle_main(task: Any) -> bool:
    """Return whether it is the loop's main task and waits for an event or future: Ctrl+C may cancel it."""
    callbacks = (callback for callback, _ in task._callbacks or ())
    if not any("run_until_complete" in getattr(callback, "__qualname__", "") for callback in callbacks):
        return False
    return awaited_object(task).kind in {"event", "future"}
