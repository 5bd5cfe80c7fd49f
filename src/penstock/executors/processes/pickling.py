"""Pickles of calls and results, with large buffers outside the pickle, and errors that name the object at fault.

A `Pickled` is a pickle of protocol 5 and the large buffers outside it, in two kinds: bytes and bytearrays, which pickle
would copy into its text, and buffers that objects export (NumPy, Arrow, memoryviews).
"""

from __future__ import annotations

import copyreg
import io
import pickle
import types
import weakref
from collections import ChainMap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock.core_source import chosen
from penstock.errors import UnpicklableError
from penstock.executors.call import function_name
from penstock.executors.notebook_pickling import is_interactive, session_pickler
from penstock.executors.processes.claims import LargeBytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from penstock._core.workers.pickled import LARGE_BYTES, Pickled, small_pickle
    from penstock.executors.call import Call
else:
    _pickled = chosen("workers", "pickled")
    LARGE_BYTES, Pickled, small_pickle = _pickled.LARGE_BYTES, _pickled.Pickled, _pickled.small_pickle

__all__ = ["LARGE_BYTES", "Pickled", "call_fault", "dump", "dump_function", "fault", "load", "small_pickle"]

# The depth of the search for an unpicklable object, and the number of members that it checks in each.
DEPTH, BREADTH = 6, 1000


def dump(item: Any) -> Pickled:
    """Pickle the item. Raises the exceptions of pickle and of the item's own methods."""
    small = small_pickle(item)
    if small is not None:
        return small
    stream, large = io.BytesIO(), LargeBytes(LARGE_BYTES)
    lent: list[memoryview] = []
    make: Any = session_pickler(VIEWS) if is_interactive() else _Pickler
    pickler = make(stream, 5, buffer_callback=_lender(lent))
    # on the instance: it is called for each object, and so goes straight to native code
    pickler.persistent_id = large.persistent_id
    pickler.dump(item)
    return Pickled(stream.getvalue(), large.found, lent)


def _lender(lent: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    """Return a callback that takes large buffers out of the pickle, into `lent`. A closure, not a method: a pickler
    that holds itself would keep the pickled objects until the next garbage collection."""

    def stays(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < LARGE_BYTES:
            return True
        lent.append(view)
        return False

    return stays


def load(text: bytes | memoryview, bytes_like: Sequence[Any] = (), lent: Sequence[Any] = ()) -> Any:
    """Load an item. Buffers of `bytes_like`, pairs of a type and a buffer, are copied; the item may keep those of
    `lent`."""
    if not bytes_like and not lent:
        return pickle.loads(text)
    unpickler = _Unpickler(io.BytesIO(text), buffers=lent)
    made: dict[int, Any] = {}

    def one(index: int) -> Any:
        # each buffer once: one object stays one object
        if index not in made:
            kind, block = bytes_like[index]
            made[index] = kind(block)
        return made[index]

    unpickler.persistent_load = one  # type: ignore[method-assign]
    return unpickler.load()


def _reduced_view(view: memoryview) -> tuple[Any, tuple[Any, ...]]:
    # an empty view, or one with items of a format of its own (a struct), arrives as plain bytes
    is_plain = view.nbytes > 0 and len(view.format) == 1
    flat = view if view.c_contiguous and is_plain else memoryview(view.tobytes())
    layout = (view.format, view.shape) if is_plain else None
    return _view, (pickle.PickleBuffer(flat.cast("B")), layout, view.readonly)


def _view(buffer: Any, layout: tuple[Any, Any] | None, readonly: bool) -> memoryview:
    view = memoryview(buffer).cast("B")
    if layout is not None and layout != ("B", (view.nbytes,)):
        view = view.cast(*layout)
    return view.toreadonly() if readonly else view


VIEWS: dict[type, Callable[[Any], tuple[Any, ...]]] = {memoryview: _reduced_view}


# Subclasses: only their instances accept a persistent_id and a persistent_load on every Python.
class _Unpickler(pickle.Unpickler):
    pass


class _Pickler(pickle.Pickler):
    dispatch_table: Any = ChainMap(VIEWS, copyreg.dispatch_table)  # noqa: RUF012


NAMED_TYPES = frozenset((types.FunctionType, types.BuiltinFunctionType))
# Pickle looks up the name of a function for each pickle; once is enough. A plain dict, which is read without a call of
# Python code; each entry ends with its function.
_functions: dict[weakref.ref[Callable[..., Any]], bytes] = {}


def dump_function(fn: Callable[..., Any]) -> bytes | None:
    """Return a plain function's pickle, which is cached; None for other callables, which may change.

    In an interactive session always None: a function sent by value includes the current state of all that it uses.
    """
    if type(fn) not in NAMED_TYPES:
        return None
    known = _functions.get(weakref.ref(fn))
    # of an interactive session nothing is cached
    if known is None and isinstance(getattr(fn, "__self__", None), types.ModuleType | None) and not is_interactive():
        known = _functions[weakref.ref(fn, _forget_function)] = pickle.dumps(fn, 5)
    return known


def _forget_function(reference: weakref.ref[Callable[..., Any]]) -> None:
    _functions.pop(reference, None)


# --- which object is at fault


def call_fault(call: Call, problem: BaseException, variables: Mapping[str, Any] | None = None) -> UnpicklableError:
    """Make the error for a call that cannot be pickled. `variables` are the context variables sent with it."""
    fn, args, kwargs = call.fn, call.args, call.kwargs
    parts = [("the function itself", fn), *((f"argument {index}", item) for index, item in enumerate(args, 1))]
    parts += [(f"argument {name!r}", item) for name, item in (kwargs or {}).items()]
    parts += [(f"context variable {name!r}", item) for name, item in (variables or {}).items()]
    return _error(f"{function_name(fn)} cannot be sent to a worker", parts, problem)


def fault(what: str, item: Any, problem: BaseException) -> UnpicklableError:
    """Make the error for an item, called `what`, that cannot be pickled."""
    return _error(what, [("it", item)], problem)


def _error(what: str, parts: list[tuple[str, Any]], problem: BaseException) -> UnpicklableError:
    for where, item in parts:
        found = _unpicklable_member(item, DEPTH, set())
        if found is not None:
            path, culprit, reason = found
            return UnpicklableError(f"{what}: {where}{path}, a {type(culprit).__qualname__}, does not pickle: {reason}")
    return UnpicklableError(f"{what}: {problem}")


def _unpicklable_member(item: Any, depth: int, seen: set[int]) -> tuple[str, Any, str] | None:
    """Return the deepest member that cannot be pickled: its path from the item, the member, and the reason."""
    if id(item) in seen:
        return None
    seen.add(id(item))
    try:
        dump(item)
    except Exception as problem:
        reason = str(problem)
    else:
        return None
    if depth:
        for step, member in _members(item):
            found = _unpicklable_member(member, depth - 1, seen)
            if found is not None:
                return step + found[0], found[1], found[2]
    return "", item, reason


def _members(item: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(item, Mapping):
        pairs = ((f"[{key!r}]", value) for key, value in item.items())
    elif isinstance(item, list | tuple | set | frozenset):
        pairs = ((f"[{index}]", value) for index, value in enumerate(item))
    elif isinstance(item, type | types.FunctionType):
        # pickled by its name, without its members
        return
    else:
        pairs = ((f".{name}", value) for name, value in getattr(item, "__dict__", {}).items())
    for _, pair in zip(range(BREADTH), pairs, strict=False):
        yield pair
