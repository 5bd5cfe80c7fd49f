"""Who may cancel a task, and what is cancelled with it: timeouts, whatever wraps them, and those that await the task.

A timeout is a context manager that refers to its task, and is held by a timer; it is looked for in what the frames of
the chain have entered. Knows no timer, and nothing of who holds whom.
"""

from __future__ import annotations

import asyncio
import gc
import types
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock.tasks.awaits.chain import TASKS, parts

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Inside", "Over", "inside", "over"]

# objects looked at for one task; a container with more than so many is no context manager's bookkeeping
MOST = 300
LARGEST, LARGEST_SET = 64, 5000
EXITS = frozenset({"__exit__", "__aexit__"})
METHODS = (types.MethodType, types.BuiltinMethodType)
CONTAINERS = (dict, list, tuple, deque)
RESUMABLE = (types.GeneratorType, types.AsyncGeneratorType, types.CoroutineType)


@dataclass(frozen=True, slots=True)
class Inside:
    """What a task is inside of: `guards`, which may cancel it, and the tasks that are `cancelled` when it is."""

    guards: list[Any]
    cancelled: list[asyncio.Task[Any]]


@dataclass(frozen=True, slots=True)
class Over:
    """What is over a task: the tasks that await it, and the futures whose end tells one of them to give it up."""

    awaiters: list[asyncio.Task[Any]]
    releases: list[Any]


def inside(task: asyncio.Task[Any]) -> Inside | None:
    """What the frames of the task's chain show. None: there is too much to look through.

    A group of tasks guards the task that opened it, not its members: it cancels those only when one of them fails.
    """
    found = Inside([], list(_below(getattr(task, "_fut_waiter", None))))
    seen: set[int] = set()
    # holds what is looked at: an id is a name only as long as its object lives
    queue: list[Any] = [held for part in parts(task.get_coro()) for held in _entered(part)]
    for thing in queue:
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if len(seen) > MOST:
            return None
        held = _held(thing)
        if held is None:
            return None
        members = [each for each in held if isinstance(each, TASKS)]
        if type(thing) is set:
            found.cancelled.extend(member for member in members if member is not task)
        elif any(member is task for member in members):
            found.guards.append(thing)
        queue.extend(each for each in held if _leads_on(each))
    return found


def over(task: asyncio.Task[Any]) -> Over:
    """What the task's callbacks show: of an await, a gather, wait, wait_for, shield, a TaskGroup (anyio's too)."""
    found = Over([], [])
    seen: set[int] = set()
    queue: list[Any] = [task]
    for future in queue:
        if id(future) in seen or len(seen) > MOST:
            continue
        seen.add(id(future))
        for callback in _callbacks(future):
            _look_over(callback, found, queue)
    return found


def _look_over(callback: Any, found: Over, queue: list[Any]) -> None:
    for held in _served(callback):
        if isinstance(held, TASKS):
            found.awaiters.append(held)
        elif asyncio.isfuture(held):
            queue.append(held)
            if _is_release(callback):
                found.releases.append(held)
        elif _is_manager(type(held)):
            near = gc.get_referents(held)
            for _ in range(2):
                # a dictionary of attributes, a scope inside of a group
                near += gc.get_referents(*(each for each in near if type(each) is dict or _is_manager(type(each))))
            found.awaiters.extend(each for each in near if isinstance(each, TASKS))


def _is_release(callback: Any) -> bool:
    """Whether it belongs to asyncio.wait(), or to 3.11's wait_for(): who goes on before the awaited task has ended."""
    if isinstance(callback, partial):
        return getattr(callback.func, "__name__", "") == "_release_waiter"
    return getattr(callback, "__qualname__", "") == "_wait.<locals>._on_completion"


def _served(callback: Any) -> Iterator[Any]:
    owner = getattr(callback, "__self__", None)
    if owner is not None:
        yield owner
    if isinstance(callback, partial):
        yield from callback.args
    for cell in getattr(callback, "__closure__", None) or ():
        yield from gc.get_referents(cell)


def _callbacks(future: Any) -> list[Any]:
    return [callback for callback, _ in getattr(future, "_callbacks", None) or ()]


def _below(future: Any) -> Iterator[asyncio.Task[Any]]:
    """The tasks that cancelling a future cancels."""
    stack, seen = [future], set()
    while stack:
        future = stack.pop()
        if future is None or id(future) in seen:
            continue
        seen.add(id(future))
        if isinstance(future, TASKS):
            yield future
        else:
            stack.extend(getattr(future, "_children", ()))


def _entered(part: Any) -> Iterator[Any]:
    """The context managers that a suspended frame holds, entered or not."""
    for held in gc.get_referents(part):
        kind = type(held)
        # with's own stack slot is the bound method, from 3.14 on the function and the manager itself
        if kind in METHODS:
            if held.__name__ in EXITS:
                yield held.__self__
        elif _is_manager(kind):
            yield held


def _held(thing: Any) -> list[Any] | None:
    kind = type(thing)
    if kind in RESUMABLE:
        # a manager made of a generator: what this one is inside of
        return [held for part in parts(thing) for held in _entered(part)]
    if kind in METHODS:
        return [thing.__self__]
    if kind is set and len(thing) > LARGEST_SET:
        return None
    if kind in CONTAINERS and len(thing) > LARGEST:
        return []
    return gc.get_referents(thing)


def _leads_on(thing: Any) -> bool:
    kind = type(thing)
    return kind is set or kind in CONTAINERS or kind in METHODS or kind in RESUMABLE or _is_manager(kind)


def _is_manager(kind: type) -> bool:
    return hasattr(kind, "__exit__") or hasattr(kind, "__aexit__")
