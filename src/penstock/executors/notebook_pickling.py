"""Picklers for an interactive session, whose functions and classes no worker can import. Extra `notebook`.

Pickle sends a function of `__main__` by its name. A worker cannot find that name if `__main__` is a notebook, a prompt
or `python -c`. cloudpickle sends such a function by value, together with all that it uses.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
from collections import ChainMap
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock.errors import UnpicklableError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["identity", "is_interactive", "portable", "session_pickler"]

# modules that run a prompt
PROMPTS = {"_pyrepl.__main__", "asyncio.__main__", "code"}

Reducers: TypeAlias = "dict[type, Callable[[Any], tuple[Any, ...]]]"

NEED = (
    "it is defined in an interactive session, where no worker can import it: put it into a module, or "
    "pip install 'penstock[notebook]' to send it by value"
)


def is_interactive() -> bool:
    """Return whether `__main__` is an interactive session: it has no file, or the file of a prompt."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return spec.name in PROMPTS
    return main is not None and getattr(main, "__file__", None) is None


def session_pickler(reducers: Reducers) -> type[pickle.Pickler]:
    """Return cloudpickle's pickler with more reducers. Without cloudpickle its errors name the extra to install."""
    try:
        from cloudpickle import Pickler
    except ImportError:
        return _RefusingPickler
    return _extended(Pickler, tuple(reducers.items()))


@functools.cache
def _extended(base: Any, reducers: tuple[Any, ...]) -> type[pickle.Pickler]:
    table = ChainMap(dict(reducers), base.dispatch_table)
    return type("SessionPickler", (base,), {"dispatch_table": table})


class _RefusingPickler(pickle.Pickler):
    """Pickle's own pickler, which refuses objects of the session: a worker could not find their names."""

    def reducer_override(self, item: Any) -> Any:
        if isinstance(item, FunctionType | type) and item.__module__ == "__main__":
            raise pickle.PicklingError(NEED)
        return NotImplemented


def portable(fn: Callable[[], object] | str | None, what: str) -> Callable[[], object] | str | None:
    """Return the function, or its name, in a form that can be sent. Raises UnpicklableError, which names `what`."""
    if fn is None or isinstance(fn, str) or not is_interactive():
        return fn
    stream = io.BytesIO()
    try:
        session_pickler({})(stream, 5).dump(fn)
    except Exception as problem:
        raise UnpicklableError(f"{what} cannot be sent to a worker: {problem}") from None
    return functools.partial(_call_pickled, stream.getvalue())


def _call_pickled(text: bytes) -> object:
    return pickle.loads(text)()


def identity(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function. Objects that are pickled as the function they wrap reduce to this call."""
    return fn
