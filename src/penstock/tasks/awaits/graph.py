"""The await graph: tasks in groups with the same stack, as in a goroutine profile, edges between tasks, and cycles.

Everything is read at once, in the thread of the tasks' loop. asyncio's gather, wait, shield and TaskGroup are known by
the objects that their callbacks hold.
"""

from __future__ import annotations

import asyncio
import gc
import types
from collections import Counter
from dataclasses import dataclass
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from penstock.tasks.awaits.awaited import TASKS, Awaited
from penstock.tasks.awaits.chain import AwaitChain, await_chain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from penstock.tasks.place import Place

__all__ = ["AwaitGraph", "Edge", "StackGroup", "await_cycles", "await_graph", "awaited_tasks"]

# names in a group, and the bounds of the report
MOST_NAMES = 5
SHOWN_GROUPS, SHOWN_FRAMES, SHOWN_EDGES, SHOWN_CYCLES, SHOWN_CYCLE_TASKS = 20, 12, 20, 10, 12
WIDTH = 160


@dataclass(frozen=True, slots=True)
class StackGroup:
    """Tasks with the same stack that await the same kind of object."""

    count: int
    # of the first five
    names: tuple[str, ...]
    frames: tuple[Place, ...]
    # the object that the first of them awaits
    awaited: Awaited


@dataclass(frozen=True, slots=True)
class Edge:
    """A dependency: the waiter cannot continue before the awaited task, or one of several, has ended."""

    waiter: str
    awaited: str


@dataclass(frozen=True, slots=True)
class AwaitGraph:
    """A snapshot of tasks and their waits. `str` is a report.

    A task is given by its name, with its address where several tasks have the same name.
    """

    task_count: int
    # the largest first
    groups: tuple[StackGroup, ...]
    edges: tuple[Edge, ...]
    # each in order: a task awaits the next one, and the last awaits the first
    cycles: tuple[tuple[str, ...], ...]
    # tasks left out for lack of time
    skipped_count: int = 0

    def __str__(self) -> str:
        return "\n".join(_report(self))


def _go_on() -> None:
    """Do nothing between two tasks."""


def await_graph(
    tasks: Iterable[asyncio.Task[Any]], budget_s: float | None = None, rest: Callable[[], object] = _go_on
) -> AwaitGraph:
    """Return the graph of `tasks` without the ended ones. Takes about 20 us a task, at most `budget_s` if given.

    `rest()` is called between two tasks, so that a walk in another thread than the loop's need not keep the GIL.
    """
    deadline_ns = None if budget_s is None else monotonic_ns() + int(budget_s * 1e9)
    given = [task for task in tasks if not task.done()]
    chains: dict[asyncio.Task[Any], AwaitChain] = {}
    for task in given:
        if deadline_ns is not None and monotonic_ns() > deadline_ns:
            break
        chains[task] = await_chain(task)
        rest()
    awaits = awaited_tasks(list(chains), rest)
    name = _namer({*chains, *(other for others in awaits.values() for other in others)})
    return AwaitGraph(
        len(given),
        _groups(chains, name),
        tuple(Edge(name[task], name[other]) for task, others in awaits.items() for other in others),
        tuple(tuple(name[task] for task in cycle) for cycle in _cycles(awaits)),
        len(given) - len(chains),
    )


def await_cycles(tasks: Iterable[asyncio.Task[Any]]) -> list[tuple[asyncio.Task[Any], ...]]:
    """Return the cycles among `tasks`, disjoint: a task awaits the next one, and the last awaits the first."""
    return _cycles(awaited_tasks([task for task in tasks if not task.done()]))


def _groups(chains: dict[asyncio.Task[Any], AwaitChain], name: dict[asyncio.Task[Any], str]) -> tuple[StackGroup, ...]:
    members: dict[tuple[tuple[Place, ...], str], list[asyncio.Task[Any]]] = {}
    for task, found in chains.items():
        members.setdefault((found.frames, found.awaited.kind), []).append(task)
    groups = (
        StackGroup(len(alike), tuple(name[task] for task in alike[:MOST_NAMES]), frames, chains[alike[0]].awaited)
        for (frames, _), alike in members.items()
    )
    return tuple(sorted(groups, key=lambda group: -group.count))


def _namer(tasks: set[asyncio.Task[Any]]) -> dict[asyncio.Task[Any], str]:
    counts = Counter(task.get_name() for task in tasks)
    return {task: plain if counts[plain := task.get_name()] == 1 else f"{plain} {id(task):#x}" for task in tasks}


Awaits = dict[asyncio.Task[Any], list[asyncio.Task[Any]]]


def awaited_tasks(tasks: Sequence[asyncio.Task[Any]], rest: Callable[[], object] = _go_on) -> Awaits:
    """Return the tasks that each task awaits: from its awaited future downward, and from its callbacks upward."""
    found: dict[asyncio.Task[Any], dict[asyncio.Task[Any], None]] = {}
    waiting = {id(future): task for task in tasks if (future := _awaited_future(task)) is not None}
    for task in tasks:
        for other in _below(_awaited_future(task)):
            found.setdefault(task, {})[other] = None
        rest()
    for task in tasks:
        for other in _above(task, waiting):
            found.setdefault(other, {})[task] = None
        rest()
    return {task: list(others) for task, others in found.items()}


def _awaited_future(task: Any) -> Any:
    future = task._fut_waiter
    return None if future is None or future.done() else future


def _below(future: Any) -> Iterator[asyncio.Task[Any]]:
    """Yield the pending tasks at the leaves of a future: itself, a gather's children, a shielded task."""
    stack, seen = [future], set()
    while stack:
        future = stack.pop()
        if future is None or id(future) in seen or future.done():
            continue
        seen.add(id(future))
        if isinstance(future, TASKS):
            yield future
            continue
        stack.extend(reversed(getattr(future, "_children", ())))
        stack.extend(_shielded(future))


def _shielded(future: Any) -> Iterator[Any]:
    for callback in _callbacks(future):
        if getattr(callback, "__qualname__", "") == "shield.<locals>._outer_done_callback":
            at = callback.__code__.co_freevars.index("inner")
            yield from gc.get_referents(callback.__closure__[at])


def _above(task: asyncio.Task[Any], waiting: dict[int, asyncio.Task[Any]]) -> Iterator[asyncio.Task[Any]]:
    """Yield the tasks that the task's end wakes, as its callbacks show."""
    for callback in _callbacks(task):
        for held in _held(callback):
            if isinstance(held, TASKS):
                # a callback of the program's own may hold a task for another reason, to cancel it for example
                if getattr(callback, "__name__", "").endswith("wakeup"):
                    yield held
            elif isinstance(held, asyncio.TaskGroup):
                # only in __aexit__: before that, the parent does not wait for its children
                future = held._on_completed_fut  # type: ignore[attr-defined]
                if future is not None and id(future) in waiting:
                    yield waiting[id(future)]
            elif id(held) in waiting:
                yield waiting[id(held)]


def _held(callback: Any) -> Iterator[Any]:
    """Yield the objects that a callback holds: its `self`, its closure's contents, a partial's arguments."""
    owner = getattr(callback, "__self__", None)
    if owner is not None:
        yield owner
    if isinstance(callback, types.FunctionType):
        for cell in callback.__closure__ or ():
            # an empty cell has no referent
            yield from gc.get_referents(cell)
    elif isinstance(callback, partial):
        yield from callback.args


def _callbacks(future: Any) -> list[Any]:
    return [callback for callback, _ in getattr(future, "_callbacks", None) or ()]


def _cycles(awaits: Awaits) -> list[tuple[asyncio.Task[Any], ...]]:
    """Return the cycles that a depth-first search closes, each without a task of an earlier cycle."""
    found: list[tuple[asyncio.Task[Any], ...]] = []
    done: set[asyncio.Task[Any]] = set()
    in_cycle: set[asyncio.Task[Any]] = set()
    for start in awaits:
        # the path from the start, with the edges left to follow at each of its tasks
        path: dict[asyncio.Task[Any], Iterator[asyncio.Task[Any]]] = {}
        task: asyncio.Task[Any] | None = start if start not in done else None
        while task is not None:
            path[task] = iter(awaits.get(task, ()))
            task = _step(path, done, in_cycle, found)
    return found


def _step(
    path: dict[asyncio.Task[Any], Iterator[asyncio.Task[Any]]],
    done: set[asyncio.Task[Any]],
    in_cycle: set[asyncio.Task[Any]],
    found: list[tuple[asyncio.Task[Any], ...]],
) -> asyncio.Task[Any] | None:
    """Return the next task to enter. Tasks without a new edge leave the path."""
    while path:
        last = next(reversed(path))
        for other in path[last]:
            if other in path:
                order = list(path)
                cycle = tuple(order[order.index(other) :])
                if in_cycle.isdisjoint(cycle):
                    found.append(cycle)
                    in_cycle.update(cycle)
            elif other not in done:
                return other
        done.add(last)
        del path[last]
    return None


def _report(graph: AwaitGraph) -> Iterator[str]:
    skipped = "" if not graph.skipped_count else f", {graph.skipped_count} of them not inspected"
    yield f"{graph.task_count} tasks, {len(graph.groups)} stacks{skipped}"
    for group in graph.groups[:SHOWN_GROUPS]:
        yield from _group_lines(group)
    yield from _rest(len(graph.groups) - SHOWN_GROUPS, "stacks")
    if graph.edges:
        yield "awaits:"
    for edge in graph.edges[:SHOWN_EDGES]:
        yield _cut(f"  {edge.waiter} -> {edge.awaited}")
    yield from _rest(len(graph.edges) - SHOWN_EDGES, "pairs")
    for cycle in graph.cycles[:SHOWN_CYCLES]:
        links = [*cycle[:SHOWN_CYCLE_TASKS], *(["..."] if len(cycle) > SHOWN_CYCLE_TASKS else []), cycle[0]]
        yield f"cycle: {' -> '.join(_cut(link) for link in links)}"
    yield from _rest(len(graph.cycles) - SHOWN_CYCLES, "cycles")


def _group_lines(group: StackGroup) -> Iterator[str]:
    names = ", ".join(group.names) + (", ..." if group.count > len(group.names) else "")
    yield _cut(f"{group.count} x {group.awaited.kind}: {names}")
    hidden = len(group.frames) - SHOWN_FRAMES
    head = SHOWN_FRAMES // 2 if hidden > 0 else len(group.frames)
    for frame in group.frames[:head]:
        yield _cut(f"  {frame}")
    if hidden > 0:
        yield f"  ... {hidden} more frames"
        for frame in group.frames[-(SHOWN_FRAMES - head) :]:
            yield _cut(f"  {frame}")
    if group.awaited.kind != "nothing":
        yield _cut(f"  waits for {group.awaited.text}")


def _rest(count: int, noun: str) -> Iterator[str]:
    if count > 0:
        yield f"... {count} more {noun}"


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."
