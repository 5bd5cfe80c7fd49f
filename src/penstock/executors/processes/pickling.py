"""Calls and results as bytes: pickle protocol 5, large buffers beside it, and errors that name the object at fault.

A `Pickled` is a pickle and the large buffers that are not in it, in two kinds: bytes and bytearrays, which pickle would
copy into its text, and what objects lend (NumPy, Arrow, memoryviews). Knows neither memory nor sockets.
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

from penstock.errors import UnpicklableError
from penstock.executors.call import function_name
from penstock.executors.notebook_pickling import is_interactive, session_pickler
from penstock.executors.processes.claims import LargeBytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from penstock.executors.call import Call

__all__ = ["LARGE_BYTES", "Pickled", "call_fault", "dump", "dump_function", "fault", "load"]

# From here on a buffer travels beside the pickle: below, copying it twice costs less than keeping account of it.
LARGE_BYTES = 65_536
# Nothing in these can be large enough, or hide something that is.
SMALL_TYPES = frozenset((int, float, bool, complex, type(None)))
# How deep the search for an unpicklable object goes, and how many members it looks at in each.
DEPTH, BREADTH = 6, 1000


class Pickled:
    """`text` is the pickle; `bytes_like` and `lent` are the large buffers beside it, to be given to `load` in order.

    A call's pickle may leave its function out, which is then in `function`, pickled apart.
    """

    __slots__ = ("bytes_like", "function", "lent", "text")

    def __init__(
        self, text: bytes, bytes_like: Sequence[bytes | bytearray] = (), lent: Sequence[memoryview] = ()
    ) -> None:
        self.text = text
        self.bytes_like = bytes_like
        self.lent = lent
        self.function = b""

    @property
    def is_small(self) -> bool:
        """Whether all of it goes into a frame."""
        return not self.bytes_like and not self.lent and len(self.text) < LARGE_BYTES

    @property
    def size_bytes(self) -> int:
        """Everything that travels."""
        size = len(self.text)
        if self.bytes_like or self.lent:
            size += sum(map(len, self.bytes_like)) + sum(view.nbytes for view in self.lent)
        return size


def dump(item: Any) -> Pickled:
    """The item as it travels; whatever its own code raises comes out as it is."""
    if type(item) in SMALL_TYPES or (type(item) is tuple and _is_small(item)):
        return Pickled(pickle.dumps(item, 5))
    stream, large = io.BytesIO(), LargeBytes(LARGE_BYTES)
    lent: list[memoryview] = []
    make: Any = session_pickler(VIEWS) if is_interactive() else _Pickler
    pickler = make(stream, 5, buffer_callback=_lender(lent))
    # on the instance: it is called for each object, and so goes straight to native code
    pickler.persistent_id = large.persistent_id
    pickler.dump(item)
    return Pickled(stream.getvalue(), large.found, lent)


def _lender(lent: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    """Takes a large buffer out of the pickle, into `lent`; a small one stays. No method: a pickler that holds itself
    would keep what it has pickled until the next garbage collection."""

    def stays(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < LARGE_BYTES:
            return True
        lent.append(view)
        return False

    return stays


def _is_small(items: tuple[Any, ...]) -> bool:
    for item in items:
        kind = type(item)
        if kind not in SMALL_TYPES and (kind not in (str, bytes) or len(item) >= LARGE_BYTES):
            return False
    return True


def load(text: bytes | memoryview, bytes_like: Sequence[Any] = (), lent: Sequence[Any] = ()) -> Any:
    """The item again. What is `bytes_like` is copied into a bytes or bytearray; what is `lent` the item may keep.

    `bytes_like` are pairs: the type, and a buffer.
    """
    if not bytes_like and not lent:
        return pickle.loads(text)
    unpickler = _Unpickler(io.BytesIO(text), buffers=lent)
    made: dict[int, Any] = {}

    def one(index: int) -> Any:
        # each of them once: what was one object is one again
        if index not in made:
            kind, block = bytes_like[index]
            made[index] = kind(block)
        return made[index]

    unpickler.persistent_load = one  # type: ignore[method-assign]
    return unpickler.load()


def _reduced_view(view: memoryview) -> tuple[Any, tuple[Any, ...]]:
    # an empty view, or one of items that only its owner knows (a struct's), arrives as plain bytes
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


# Classes of our own: only instances of such take a persistent_id and a persistent_load on every Python.
class _Unpickler(pickle.Unpickler):
    pass


class _Pickler(pickle.Pickler):
    dispatch_table: Any = ChainMap(VIEWS, copyreg.dispatch_table)  # noqa: RUF012


# A function travels by its name, which is looked up anew for each pickle: once will do.
_functions: weakref.WeakKeyDictionary[Callable[..., Any], bytes] = weakref.WeakKeyDictionary()


def dump_function(fn: Callable[..., Any]) -> bytes | None:
    """A plain function's pickle, kept for the next time; None for other callables, which may change.

    In a session None too: a function that travels by value takes along what it uses, as it is at that time.
    """
    if is_interactive() or type(fn) not in (types.FunctionType, types.BuiltinFunctionType):
        return None
    known = _functions.get(fn)
    if known is None and isinstance(getattr(fn, "__self__", None), types.ModuleType | None):
        known = _functions[fn] = pickle.dumps(fn, 5)
    return known


# --- which object is at fault


def call_fault(call: Call, problem: BaseException, variables: Mapping[str, Any] | None = None) -> UnpicklableError:
    """Make the error for a call that cannot be pickled. `variables` are the context variables sent with it."""
    fn, args, kwargs = call.fn, call.args, call.kwargs
    parts = [("the function itself", fn), *((f"argument {index}", item) for index, item in enumerate(args, 1))]
    parts += [(f"argument {name!r}", item) for name, item in (kwargs or {}).items()]
    parts += [(f"context variable {name!r}", item) for name, item in (variables or {}).items()]
    return _error(f"{function_name(fn)} cannot be sent to a worker", parts, problem)


def fault(what: str, item: Any, problem: BaseException) -> UnpicklableError:
    """The error for one thing, `what`, that cannot be pickled."""
    return _error(what, [("it", item)], problem)


def _error(what: str, parts: list[tuple[str, Any]], problem: BaseException) -> UnpicklableError:
    for where, item in parts:
        found = _unpicklable_member(item, DEPTH, set())
        if found is not None:
            path, culprit, reason = found
            return UnpicklableError(f"{what}: {where}{path}, a {type(culprit).__qualname__}, does not pickle: {reason}")
    return UnpicklableError(f"{what}: {problem}")


def _unpicklable_member(item: Any, depth: int, seen: set[int]) -> tuple[str, Any, str] | None:
    """The deepest member that does not pickle by itself: its path from the item, itself, and why."""
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
        # by its name, whatever is in it
        return
    else:
        pairs = ((f".{name}", value) for name, value in getattr(item, "__dict__", {}).items())
    for _, pair in zip(range(BREADTH), pairs, strict=False):
        yield pair
