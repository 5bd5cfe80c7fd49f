"""The possible cancellers of a task: timeouts and their wrappers, and the tasks that await it.

A timeout is a context manager that refers to its task and is held by a timer. It is found among the context managers
that the frames of the await chain have entered. Knows neither timers nor reachability.
"""

from __future__ import annotations

import asyncio
import gc
import types
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock.tasks.awaits.awaited import TASKS
from penstock.tasks.awaits.chain import awaitables

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Awaiters", "Cancellers", "awaiters_of", "cancellers_of"]

# objects inspected for one task
MOST_OBJECTS = 300
# a larger container is no context manager's bookkeeping
LARGEST, LARGEST_SET = 64, 5000
EXITS = frozenset({"__exit__", "__aexit__"})
METHODS = (types.MethodType, types.BuiltinMethodType)
CONTAINERS = (dict, list, tuple, deque)
RESUMABLE = (types.GeneratorType, types.AsyncGeneratorType, types.CoroutineType)


@dataclass(frozen=True, slots=True)
class Cancellers:
    """The context managers around a task that may cancel it, and the tasks that are cancelled with it."""

    managers: list[Any]
    cancelled: list[asyncio.Task[Any]]


@dataclass(frozen=True, slots=True)
class Awaiters:
    """The tasks that await a task, and the futures whose end has one of them stop awaiting it."""

    awaiters: list[asyncio.Task[Any]]
    releases: list[Any]


def cancellers_of(task: asyncio.Task[Any]) -> Cancellers | None:
    """Return the cancellers that the frames of the task's await chain show; None if there are too many objects.

    A group of tasks may cancel the task that opened it, not its members: it cancels those only when one of them fails.
    """
    found = Cancellers([], list(_below(getattr(task, "_fut_waiter", None))))
    seen: set[int] = set()
    # holds the inspected objects: an id is unique only while its object lives
    queue: list[Any] = [held for each in awaitables(task.get_coro()) for held in _entered(each)]
    for thing in queue:
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if len(seen) > MOST_OBJECTS:
            return None
        held = _held(thing)
        if held is None:
            return None
        members = [each for each in held if isinstance(each, TASKS)]
        if type(thing) is set:
            found.cancelled.extend(member for member in members if member is not task)
        elif any(member is task for member in members):
            found.managers.append(thing)
        queue.extend(each for each in held if _leads_on(each))
    return found


def awaiters_of(task: asyncio.Task[Any]) -> Awaiters:
    """Return the awaiters that the task's callbacks show: an await, gather, wait, wait_for, shield or TaskGroup.

    anyio's TaskGroup is one too.
    """
    found = Awaiters([], [])
    seen: set[int] = set()
    queue: list[Any] = [task]
    for future in queue:
        if id(future) in seen or len(seen) > MOST_OBJECTS:
            continue
        seen.add(id(future))
        for callback in _callbacks(future):
            _collect_awaiters(callback, found, queue)
    return found


def _collect_awaiters(callback: Any, found: Awaiters, queue: list[Any]) -> None:
    for held in _callback_holds(callback):
        if isinstance(held, TASKS):
            found.awaiters.append(held)
        elif asyncio.isfuture(held):
            queue.append(held)
            if _is_release(callback):
                found.releases.append(held)
        elif _is_manager(type(held)):
            near = gc.get_referents(held)
            for _ in range(2):
                # a dictionary of attributes, a scope inside a group
                near += gc.get_referents(*(each for each in near if type(each) is dict or _is_manager(type(each))))
            found.awaiters.extend(each for each in near if isinstance(each, TASKS))


def _is_release(callback: Any) -> bool:
    """Return whether it is of asyncio.wait() or 3.11's wait_for(), which return before the task has ended."""
    if isinstance(callback, partial):
        return getattr(callback.func, "__name__", "") == "_release_waiter"
    return getattr(callback, "__qualname__", "") == "_wait.<locals>._on_completion"


def _callback_holds(callback: Any) -> Iterator[Any]:
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
    """Yield the tasks that cancelling a future cancels."""
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


def _entered(awaitable: Any) -> Iterator[Any]:
    """Yield the context managers that a suspended frame holds, entered or not."""
    for held in gc.get_referents(awaitable):
        kind = type(held)
        # the stack slot of `with` is the bound method; from 3.14 on the function and the manager
        if kind in METHODS:
            if held.__name__ in EXITS:
                yield held.__self__
        elif _is_manager(kind):
            yield held


def _held(thing: Any) -> list[Any] | None:
    kind = type(thing)
    if kind in RESUMABLE:
        # a manager made of a generator: the managers that the generator has entered
        return [held for each in awaitables(thing) for held in _entered(each)]
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
