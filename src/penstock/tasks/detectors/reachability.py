"""A part of the graph of references, and its nodes that can be reached from outside, by trial deletion.

Trial deletion is the method of CPython's cycle collector: a node with more references than the walk has found is held
from outside. The references of objects that are not walked stay unaccounted, so an incomplete walk errs toward
"reachable". Knows which types to walk, not the purpose.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import types
from asyncio import futures
from collections import OrderedDict, defaultdict, deque
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any
from weakref import getweakrefcount

from penstock.tasks.awaits.awaited import TASKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["References", "asyncio_future", "dict_is_shared"]

# bits of a type's __flags__
IMMUTABLE, HEAP, COLLECTED = 1 << 8, 1 << 9, 1 << 14
# from 3.13 on: the attributes are in the object itself
INLINE_VALUES = 1 << 2
SHARES = sys.version_info >= (3, 13)
# larger containers are not walked: one of them would take the whole budget
LARGEST = 1000
CLOCK_EVERY = 32
# ways to walk a type; a task is a node whose edges the caller gives
SKIP, WALK, MEASURED, FUNCTION, ONCE, TASK = range(6)

# Before 3.14 every slot of a suspended frame owns its reference. From then on a slot of the stack may borrow from a
# local of the same frame, and get_referents() shows both. A coroutine that is suspended in an await owns all of them:
# a value that lives across an await lives across a branch, and the compiler allows no borrowing there. A generator's
# plain yield is no branch. So each referent of a generator counts once: one too few if two slots own it, which is the
# safe side.
BORROWS = sys.version_info >= (3, 14)

SIZED = (dict, list, tuple, set, frozenset, deque, OrderedDict, defaultdict)
EMPTY: tuple[Any, ...] = ([], (), set(), {}, {}.keys(), {}.values(), {}.items())
ITERATORS: tuple[type, ...] = (
    *(type(iter(empty)) for empty in EMPTY),
    *(type(view) for view in EMPTY[4:]),
    enumerate,
    zip,
    map,
    filter,
)
# C types that are walked; any other may hold objects without a counted reference, or be held by its address alone
KNOWN: dict[type, int] = {
    types.CoroutineType: WALK,
    types.GeneratorType: ONCE if BORROWS else WALK,
    types.AsyncGeneratorType: ONCE if BORROWS else WALK,
    types.FunctionType: FUNCTION,
    **dict.fromkeys(
        (types.MethodType, types.BuiltinMethodType, types.MethodWrapperType, types.CellType, partial), WALK
    ),
    **dict.fromkeys(ITERATORS, WALK),
    **dict.fromkeys(SIZED, MEASURED),
}
# the iterators between coroutines have no public name
NAMED = frozenset(
    {"FutureIter", "async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper"}
)
# held by loops and the operating system, without references that can be counted
OUTSIDE = (asyncio.AbstractEventLoop, asyncio.Handle, asyncio.BaseTransport, asyncio.AbstractServer)
FUTURES: tuple[type, ...] = (asyncio.Future, futures._PyFuture)  # type: ignore[attr-defined]


def asyncio_future(kind: type) -> bool:
    """Return whether the class is asyncio's future or a Python subclass: only a holder of one can complete it."""
    return issubclass(kind, FUTURES) and _made_of_known(kind)


def _made_of_known(kind: type) -> bool:
    """Return whether a class is Python code, except for known C types."""
    return all(
        base in KNOWN
        or base in FUTURES
        or base in TASKS
        or issubclass(base, BaseException)
        or (base.__flags__ & (HEAP | IMMUTABLE)) == HEAP
        or (base.__module__ == "builtins" and not base.__flags__ & COLLECTED)
        for base in kind.__mro__
    )


def _how_to_walk(kind: type) -> int:
    if not kind.__flags__ & COLLECTED:
        return SKIP
    if issubclass(kind, TASKS):
        return TASK
    known = KNOWN.get(kind)
    if known is not None:
        return known
    if kind.__name__ in NAMED and kind.__flags__ & IMMUTABLE:
        return WALK
    if issubclass(kind, OUTSIDE) or hasattr(kind, "get_extra_info") or not _made_of_known(kind):
        return SKIP
    return MEASURED if issubclass(kind, SIZED) else WALK


class References:
    """Objects as numbered nodes, and the references found between them. Number 0 is no node."""

    __slots__ = ("_deadline_ns", "_ends", "_index", "_inward", "_kinds", "_starts", "edges", "late", "nodes")

    def __init__(self, deadline_ns: int) -> None:
        # The list holds one reference to each node, and this object holds no other. The first node is held by the list
        # alone: its count is the part that counting adds.
        self.nodes: list[Any] = [object()]
        # flat: one list for each node would trigger the collector
        self.edges: list[int] = []
        # whether the time was up before the walk was complete
        self.late = False
        self._index: dict[int, int] = {}
        self._inward = [0]
        self._starts = [0]
        self._ends = [0]
        self._kinds: dict[type, int] = {}
        self._deadline_ns = deadline_ns

    def number(self, thing: object) -> int:
        """Return the node of `thing`, made if needed; 0 for an object that is not walked."""
        at = self._index.get(id(thing))
        if at is None:
            at = self._add(thing)
        return at

    def find(self, thing: object) -> int | None:
        """Return the node of `thing`, None if it has none."""
        return self._index.get(id(thing))

    def is_task(self, at: int) -> bool:
        """Return whether the node is a task, whose edges are given by `link`."""
        return self._kinds.get(type(self.nodes[at])) == TASK

    def walked(self, at: int) -> bool:
        """Return whether the node's edges are known."""
        return self._starts[at] >= 0

    def outward(self, at: int) -> list[int]:
        """Return the nodes that the node refers to."""
        return self.edges[self._starts[at] : self._ends[at]] if self._starts[at] >= 0 else []

    def link(self, at: int, held: Iterable[object]) -> None:
        """Record that the node owns one reference to each of `held`."""
        self._starts[at] = len(self.edges)
        for thing in held:
            to = self._index.get(id(thing))
            if to is None:
                to = self._add(thing)
            if to:
                self._inward[to] += 1
                self.edges.append(to)
        self._ends[at] = len(self.edges)

    def walk(self, start: int, most: int) -> list[int]:
        """Walk from a node outward, nearest first, at most `most` nodes. Return the tasks met; they are not walked."""
        met = []
        queue = deque(self.outward(start))
        while queue and most and not self.late:
            at = queue.popleft()
            if self._starts[at] >= 0:
                continue
            if self.is_task(at):
                met.append(at)
                continue
            self._walk_one(at)
            queue.extend(self.edges[self._starts[at] : self._ends[at]])
            most -= 1
            if most % CLOCK_EVERY == 0:
                self.check_clock()
        return met

    def check_clock(self) -> bool:
        """Return whether the time is up."""
        self.late = self.late or monotonic_ns() > self._deadline_ns
        return self.late

    def held_outside(self) -> list[int]:
        """Return the nodes with references from outside the walk, or with a weak reference.

        A count below the number found means a change during the walk, or a slot that borrows: held, to be safe.
        """
        counts = list(map(sys.getrefcount, self.nodes))
        weak = list(map(getweakrefcount, self.nodes))
        own = counts[0]
        return [
            at
            for at, (count, inward) in enumerate(zip(counts, self._inward, strict=True))
            if count - own != inward or (weak[at] and not self._is_loops(at, weak[at]))
        ]

    def _is_loops(self, at: int, weak: int) -> bool:
        # a loop has one weak reference to each asynchronous generator, to close it when the loop ends
        return weak == 1 and type(self.nodes[at]) is types.AsyncGeneratorType

    def _add(self, thing: object) -> int:
        kind = type(thing)
        how = self._kinds.get(kind)
        if how is None:
            how = self._kinds[kind] = _how_to_walk(kind)
        if how == SKIP:
            return 0
        at = self._index[id(thing)] = len(self.nodes)
        self.nodes.append(thing)
        self._inward.append(0)
        self._starts.append(-1)
        self._ends.append(-1)
        return at

    def _walk_one(self, at: int) -> None:
        self.link(at, _referents(self.nodes[at], self._kinds.get(type(self.nodes[at]), SKIP)))


def _referents(thing: Any, how: int) -> Iterable[object]:
    if how == SKIP or (how == MEASURED and _size(thing) > LARGEST):
        # SKIP: the object's class has changed meanwhile
        return ()
    if how == FUNCTION:
        # without its globals, which are shared
        return (thing.__closure__, thing.__defaults__, thing.__kwdefaults__)
    held = gc.get_referents(thing)
    return {id(each): each for each in held}.values() if how == ONCE else held


def _size(thing: Any) -> int:
    # a subclass's own __len__ is not to be called
    kind = next(kind for kind in SIZED if isinstance(thing, kind))
    return int(kind.__len__(thing))


class _Plain:
    """A class with a dictionary, for the reference count of one that is not shared."""


def _own_dict(thing: object) -> Iterator[int]:
    """Yield the reference count of the object's dictionary, if that shares the object's memory."""
    for kind in type(thing).__mro__:
        descriptor = kind.__dict__.get("__dict__")
        if type(descriptor) is types.GetSetDescriptorType:
            yield sys.getrefcount(descriptor.__get__(thing))
            return


def dict_is_shared(thing: object) -> bool:
    """Return whether the object's `__dict__` has another holder.

    From 3.13 on the attributes stay in the object when its dictionary is made, and the collector sees no edge from the
    dictionary to them. A holder of `vars(thing)` still reaches them.
    """
    if not SHARES or not type(thing).__flags__ & INLINE_VALUES:
        return False
    alone = next(_own_dict(_Plain()))
    return any(count > alone for count in _own_dict(thing))
