"""Tasks that wait for what nobody can complete, found as Go's leak profile finds goroutines: by what can be reached.

No waiting task is believed to run again, but for those whose awaited future somebody outside can reach; what such a
task can reach is reachable too, until nothing changes. Errs on the side of silence. Reports; does not act.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections import deque
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from penstock.tasks.awaits.chain import TASKS, Chain, awaited_by, chain
from penstock.tasks.awaits.graph import await_cycles
from penstock.tasks.detectors.cancellers import inside, over
from penstock.tasks.detectors.reachability import References, asyncio_future, dict_is_shared

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Stuck", "StuckSearch", "stuck_tasks"]

# objects walked for one task; those nearest to what it awaits tell
NEAR_COUNT = 400
# of the budget: until when the first search walks, and until when the second one, which looks again at what was found
FIRST_SHARE, SECOND_SHARE = 0.4, 0.65


@dataclass(frozen=True, slots=True)
class Stuck:
    """A task that nothing but a cancellation can wake. `cycle`: the names of those that await each other, if any."""

    name: str
    chain: Chain
    cycle: tuple[str, ...] = ()
    # the record keeps no task alive
    task: weakref.ref[asyncio.Task[Any]] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        if self.cycle:
            return f"task {self.name!r} awaits itself: {' -> '.join((*self.cycle, self.cycle[0]))}"
        return f"task {self.name!r} waits for {self.chain.awaited.text}, which nobody else can reach"


def stuck_tasks(tasks: Iterable[asyncio.Task[Any]], budget_s: float = 0.005, most: int = 50) -> list[Stuck]:
    """Which of `tasks`, or of those that they wait with, are stuck: `most` at most.

    To be called in the thread of their loop, or while it does not run; tasks of a loop that runs elsewhere are passed
    over. Takes `budget_s` at most: what it has no time for is not reported (`StuckSearch` goes on where it ended).
    Nor is a task whose end a timer, an open timeout it is inside of, I/O, a thread or anybody's reference may bring. A
    reference to the task itself is none: to cancel it is not to complete what it awaits.
    """
    return StuckSearch(budget_s, most).look(list(tasks))


class StuckSearch:
    """A search in pieces of `budget_s`: each `look` begins where the one before ran out of time.

    What a look found and had no time to make sure of, the next one begins with. A stuck task is found on every round.
    """

    def __init__(self, budget_s: float = 0.005, most: int = 50) -> None:
        self.budget_s = budget_s
        self.most = most
        # how many tasks the last look had time for; 0 if it made sure of what the one before found
        self.looked_count = 0
        self._suspects: list[weakref.ref[asyncio.Task[Any]]] = []
        self._next = 0

    def look(self, tasks: Sequence[asyncio.Task[Any]]) -> list[Stuck]:
        """As `stuck_tasks`."""
        if not tasks or not _counts_are_true():
            return []
        begun_ns = monotonic_ns()
        budget_ns = int(self.budget_s * 1e9)
        waiting = [task for suspect in self._suspects if (task := suspect()) is not None]
        self.looked_count, self._suspects = 0, []
        found = waiting or self._first_look(tasks, begun_ns + int(budget_ns * FIRST_SHARE))
        if not found:
            return []
        # another thread may have moved a reference under the first look's eyes; what is stuck stays so
        again = _Search(begun_ns + int(budget_ns * SECOND_SHARE))
        taken = again.take(found, 0)
        both = {id(task) for task in found}
        sure = [task for task in again.stuck(careful=True) if id(task) in both]
        if taken or not waiting:
            # for the next look to begin with, unless it had all this time and did not get through one of them
            self._suspects = [weakref.ref(task) for task in found[taken:]]
        return _records(sure, begun_ns + budget_ns, self.most)

    def _first_look(self, tasks: Sequence[asyncio.Task[Any]], deadline_ns: int) -> list[asyncio.Task[Any]]:
        # its references end with it: they would count in the second look
        search = _Search(deadline_ns)
        start = self._next % len(tasks)
        self.looked_count = search.take(tasks, start)
        self._next = start + self.looked_count
        return search.stuck()


def _counts_are_true() -> bool:
    """Not where threads run at once: objects change while they are counted, and counts are split by thread."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _records(tasks: list[asyncio.Task[Any]], deadline_ns: int, most: int) -> list[Stuck]:
    cycles = {id(task): cycle for cycle in await_cycles(tasks) for task in cycle}
    found: list[Stuck] = []
    for task in tasks[:most]:
        if monotonic_ns() > deadline_ns:
            break
        names = tuple(each.get_name() for each in cycles.get(id(task), ()))
        found.append(Stuck(task.get_name(), chain(task), names, weakref.ref(task)))
    return found


class _Search:
    """One walk over what tasks hold, and what it tells."""

    def __init__(self, deadline_ns: int) -> None:
        self._references = References(deadline_ns)
        self._loop = asyncio._get_running_loop()
        # by node: the candidates, each with its coroutine
        self._candidates: dict[int, int] = {}
        # the nodes that a reference does not let one reach: these tasks, and the coroutines that they run
        self._opaque: set[int] = set()
        # node -> the candidates that whoever reaches it can wake
        self._wakes: dict[int, list[int]] = {}
        # node -> the candidates that it may cancel, if it is held outside; candidate -> who is cancelled with it
        self._guards: dict[int, list[int]] = {}
        self._members: dict[int, list[int]] = {}
        # the candidates that await each
        self._awaiters: dict[int, list[int]] = {}
        self._able: set[int] = set()
        self._cancelled: set[int] = set()

    def take(self, tasks: Sequence[asyncio.Task[Any]], start: int) -> int:
        """Walk from as many of the tasks as there is time for, from `start` on and round. How many that were."""
        for taken in range(len(tasks)):
            if self._references.check_clock():
                return taken
            self._take_with_others(tasks[(start + taken) % len(tasks)])
            if self._references.late and taken:
                # cut short: the next walk begins with it, unless it is too long for any
                return taken
        return len(tasks)

    def stuck(self, careful: bool = False) -> list[asyncio.Task[Any]]:
        """The candidates that nobody can wake."""
        if not self._candidates:
            return []
        reached = bytearray(len(self._references.nodes))
        held = self._references.held_outside()
        self._spread(reached, (at for at in held if at not in self._opaque))
        for task in self._given_up():
            self._spread(reached, self._cancel(task))
        self._spread(reached, self._tasks_that_run())
        if careful:
            self._spread(reached, self._shared(reached))
        return [self._references.nodes[at] for at in self._candidates if at not in self._able]

    def _take_with_others(self, task: asyncio.Task[Any]) -> None:
        """Walk from a task, then from those that were met: who waits for each other is judged together."""
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
        """Make it a candidate, if it can be told, and give the tasks met on the way."""
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
        """Who may cancel the task, and whom that cancels too; False if that cannot be told."""
        number = self._references.number
        within, above = inside(task), over(task)
        if within is None:
            return False
        cancellers = [number(canceller) for canceller in (*within.guards, *above.releases)]
        if not all(cancellers):
            return False
        for canceller in cancellers:
            self._guards.setdefault(canceller, []).append(at)
        self._members[at] = [number(member) for member in within.cancelled]
        self._awaiters[at] = [number(awaiter) for awaiter in above.awaiters]
        return True

    def _tasks_that_run(self) -> list[int]:
        """The awaited tasks that are no candidates, and what waits for Ctrl+C."""
        nodes = self._references.nodes
        idle = [at for task in self._candidates if _is_idle_main(nodes[task]) for at in self._wake(task)]
        runs = [at for at in self._wakes if self._references.is_task(at) and at not in self._candidates]
        return idle + runs

    def _given_up(self) -> list[int]:
        """The candidates that a task awaits which is none itself: nobody has looked whether that one is cancelled."""
        return [task for task in self._candidates if any(each not in self._candidates for each in self._awaiters[task])]

    def _wake(self, task: int) -> tuple[int, ...]:
        """What is reached when it can run: its node, for its callbacks and those that await it, and its coroutine."""
        if task in self._able:
            return ()
        self._able.add(task)
        return task, self._candidates[task]

    def _cancel(self, task: int) -> list[int]:
        """What is reached when the task is cancelled, and those it awaits or holds in a group with it."""
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
        """Reach these nodes, what they lead to, and the tasks that this can wake with all they hold."""
        # a start is reached, whatever it is; what is led to is not if it is opaque
        stack = list(starts)
        while stack:
            at = stack.pop()
            if reached[at]:
                continue
            reached[at] = 1
            stack.extend(to for to in self._references.outward(at) if not reached[to] and to not in self._opaque)
            for task in self._wakes.get(at, ()):
                stack.extend(self._wake(task))
            for task in self._guards.get(at, ()):
                stack.extend(self._cancel(task))


def _held(task: Any) -> list[Any]:
    """What the task owns one reference to, of what matters here; what else it holds stays uncounted."""
    callbacks = task._callbacks or []
    if not isinstance(task, asyncio.tasks._PyTask):  # type: ignore[attr-defined]
        # the C task's list is made for whoever asks
        callbacks = [callback for callback, _ in callbacks]
        return [task.get_coro(), task._fut_waiter, *callbacks]
    return [task.get_coro(), task._fut_waiter, callbacks]


def _waits(task: Any) -> bool:
    """Whether it waits for a future of asyncio's, with nothing on its way to it."""
    future = task._fut_waiter
    if future is None or task.done() or task._must_cancel or not asyncio_future(type(future)):
        return False
    return not future.done()


def _is_idle_main(task: Any) -> bool:
    """Whether it is what the loop runs, and waits for an event or a future: that is, for Ctrl+C, which cancels it."""
    callbacks = (callback for callback, _ in task._callbacks or ())
    if not any("run_until_complete" in getattr(callback, "__qualname__", "") for callback in callbacks):
        return False
    return awaited_by(task).kind in {"event", "future"}
