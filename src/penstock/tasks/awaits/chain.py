"""Await chains: the coroutines and generators from a task's coroutine down, and the object at the end.

The one walk over suspended coroutines. It never reads `f_locals`, which before 3.13 would keep a copy of every local
alive. Knows the attributes of coroutines; `awaited` knows the objects at the end.
"""

from __future__ import annotations

import asyncio
import gc
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.tasks.awaits.awaited import (
    DESCRIBERS,
    ENCLOSING_DESCRIBERS,
    Awaited,
    described_by_class,
    described_future,
    pending_future,
)
from penstock.tasks.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AwaitChain", "await_chain", "awaitables", "awaited_object", "code_of", "suspended_places"]

# the names of frame, code and awaited object in a coroutine, a generator and an async generator
FRAME_NAMES = ("cr_frame", "gi_frame", "ag_frame")
CODE_NAMES = ("cr_code", "gi_code", "ag_code")
AWAITED_NAMES = ("cr_await", "gi_yieldfrom", "ag_await")
GENERATORS = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)
# C iterators between two coroutines, each of which holds the next one
ITERATORS = frozenset({"async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper"})
# a longer chain is cut: a recursion may be of any depth
MOST_FRAMES = 200


@dataclass(frozen=True, slots=True)
class AwaitChain:
    """The frames of a task, from its coroutine down, and the object that the innermost one awaits."""

    frames: tuple[Place, ...]
    awaited: Awaited


def await_chain(task: asyncio.Task[Any]) -> AwaitChain:
    """Return the await chain of `task`. Call it in the loop's thread, where the task cannot run meanwhile."""
    found = list(awaitables(getattr(task, "_coro", None)))
    return AwaitChain(tuple(_places(found)), _awaited(task, found))


def awaited_object(task: asyncio.Task[Any]) -> Awaited:
    """Return the end of the await chain alone. The same restriction holds as for `await_chain`."""
    return _awaited(task, list(awaitables(getattr(task, "_coro", None))))


def suspended_places(outermost: Any) -> Iterator[Place]:
    """Yield the line at which each coroutine and generator of a chain is suspended, outermost first."""
    return _places(awaitables(outermost))


def awaitables(outermost: Any) -> Iterator[Any]:
    """Yield the coroutines and generators of a chain, outermost first, at most 200."""
    awaitable = outermost
    for _ in range(MOST_FRAMES):
        while _is_iterator(awaitable):
            awaitable = next((held for held in gc.get_referents(awaitable) if _leads_on(held)), None)
        if awaitable is None or code_of(awaitable) is None:
            return
        yield awaitable
        awaitable = _first(awaitable, AWAITED_NAMES)


def code_of(awaitable: Any) -> Any:
    """Return the code of a coroutine or generator; None for anything else."""
    return _first(awaitable, CODE_NAMES)


def _is_iterator(thing: Any) -> bool:
    return type(thing).__name__ in ITERATORS


def _leads_on(held: Any) -> bool:
    return type(held) in GENERATORS or _is_iterator(held)


def _first(awaitable: Any, names: tuple[str, ...]) -> Any:
    # a compiled coroutine (Cython's) has the names, but not always the values
    return next((value for name in names if (value := getattr(awaitable, name, None)) is not None), None)


def _places(found: Any) -> Iterator[Place]:
    for awaitable in found:
        code, frame = code_of(awaitable), _first(awaitable, FRAME_NAMES)
        if frame is not None:
            yield Place(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname)


# --- the end of a chain


def _awaited(task: asyncio.Task[Any], found: list[Any]) -> Awaited:
    future = getattr(task, "_fut_waiter", None)
    if future is None or future.done():
        return Awaited("nothing", _idle_text(task))
    return described_future(future) or _by_enclosing_code(found) or _by_code(found) or pending_future(future)


def _idle_text(task: asyncio.Task[Any]) -> str:
    if task.done():
        return "ended"
    try:
        running = asyncio.current_task(task.get_loop()) is task
    except RuntimeError:
        running = False
    return "running" if running else "ready"


def _by_enclosing_code(found: list[Any]) -> Awaited | None:
    """Return the description by the innermost frame that describes all awaits inside it."""
    for awaitable in reversed(found) if ENCLOSING_DESCRIBERS else ():
        describer = ENCLOSING_DESCRIBERS.get(code_of(awaitable))
        owner = None if describer is None else _owner(awaitable, describer.owner)
        if describer is not None and owner is not None:
            return describer.describe(owner, awaitable)
    return None


def _by_code(found: list[Any]) -> Awaited | None:
    """Return the description by the outermost of the innermost frames that have one.

    asyncio's primitives are built on each other: of Condition.wait and the Lock.acquire inside it, the outer one is the
    object that the program awaits.
    """
    best = None
    for awaitable in reversed(found):
        code = code_of(awaitable)
        describer = DESCRIBERS.get(code)
        owner = _owner(awaitable, None if describer is None else describer.owner)
        described = None
        if owner is not None:
            described = describer.describe(owner, awaitable) if describer else described_by_class(owner, code.co_name)
        if described is None:
            break
        best = described
        if best.kind == "lock":
            # a notified Condition.wait() awaits its lock
            break
    return best


def _owner(awaitable: Any, kind: type | None) -> Any:
    """Return the first local that is of class `kind`; `self` comes first. For None, the first local of any class."""
    held = gc.get_referents(awaitable)
    code = code_of(awaitable)
    # a frame's referents are its function, the function's code, and then its locals
    at = next((at for at in range(1, len(held)) if held[at] is code and _is_of(held[at - 1], code)), len(held))
    # a local that an inner function uses is in a cell
    known = (_content(each) for each in held[at + 1 :])
    return next((each for each in known if kind is None or issubclass(type(each), kind)), None)


def _is_of(function: Any, code: Any) -> bool:
    return type(function) is types.FunctionType and function.__code__ is code


def _content(local: Any) -> Any:
    if type(local) is types.CellType:
        return next(iter(gc.get_referents(local)), None)
    return local
