"""What may cancel a task from within: the timeouts it is inside of, whatever wraps them.

A timeout is a context manager that refers to the task, and is held by a timer. Looked for in what the chain's frames
have entered; knows no timer.
"""

from __future__ import annotations

import gc
import types
from collections import deque
from typing import TYPE_CHECKING, Any

from penstock.tasks.waits import parts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator

__all__ = ["guards"]

# objects looked at for one task; a container with more than so many is no context manager's bookkeeping
MOST = 300
LARGEST = 64
EXITS = frozenset({"__exit__", "__aexit__"})
METHODS = (types.MethodType, types.BuiltinMethodType)
CONTAINERS = (dict, list, tuple, deque)
RESUMABLE = (types.GeneratorType, types.AsyncGeneratorType, types.CoroutineType)


def guards(task: asyncio.Task[Any]) -> list[Any] | None:
    """The objects that refer to `task` among the context managers it is inside of. None: too many to look through.

    Not a set that holds it: a group of tasks cancels its own when one of them fails, and that does not wake a task.
    """
    seen: set[int] = set()
    # holds what is looked at: an id is a name only as long as its object lives
    queue: list[Any] = [held for part in parts(task.get_coro()) for held in _entered(part)]
    found = []
    for thing in queue:
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if len(seen) > MOST:
            return None
        held = list(_inside(thing))
        if any(each is task for each in held):
            found.append(thing)
        queue.extend(each for each in held if _leads_on(each))
    return found


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


def _inside(thing: Any) -> Iterable[Any]:
    kind = type(thing)
    if kind in RESUMABLE:
        # a manager made of a generator: what this one is inside of
        return [held for part in parts(thing) for held in _entered(part)]
    if kind in METHODS:
        return [thing.__self__]
    if kind in CONTAINERS and len(thing) > LARGEST:
        return []
    return gc.get_referents(thing)


def _leads_on(thing: Any) -> bool:
    kind = type(thing)
    return kind in CONTAINERS or kind in METHODS or kind in RESUMABLE or _is_manager(kind)


def _is_manager(kind: type) -> bool:
    return hasattr(kind, "__exit__") or hasattr(kind, "__aexit__")
