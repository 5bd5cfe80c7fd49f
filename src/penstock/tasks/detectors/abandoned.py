"""Abandoned tasks and coroutines: collected while pending, exception never retrieved, never awaited.

asyncio and CPython report them in the middle of a deallocation. So the object is described at once and never kept.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import traceback
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from penstock.tasks.awaits.chain import code_of, suspended_places
from penstock.tasks.awaits.frames import definition, is_user_code, outward, place_lines, short_repr, user_place
from penstock.tasks.finding import Finding
from penstock.tasks.place import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["finding_in_context", "loop_closed_finding", "unwatch_unawaited", "watch_unawaited"]

logger = logging.getLogger("penstock.tasks")

UnawaitedListener: TypeAlias = "Callable[[Finding], object]"
SiteOf: TypeAlias = "Callable[[asyncio.Future[Any]], Place | None]"

# asyncio's message -> kind; the context has no other mark
KINDS = {
    "Task was destroyed but it is pending!": "destroyed_pending",
    "Task exception was never retrieved": "exception_unretrieved",
    "Future exception was never retrieved": "exception_unretrieved",
}
MOST_LINES = 30
MOST_NAMES = 10
MOST_TASKS = 100


def finding_in_context(context: Mapping[str, Any], site_of: SiteOf | None = None, loop: str = "") -> Finding | None:
    """Return the finding in a context of `loop.call_exception_handler`, None for any other problem.

    Its site is `site_of(task)` if the caller knows where the task was created, else the place of `source_traceback`,
    which asyncio's debug mode records, else the definition of the coroutine function. `loop` is the loop's name.
    """
    kind = KINDS.get(str(context.get("message")))
    if kind is None:
        return None
    future = context.get("task") or context.get("future")
    # not get_coro(): of an eager task that has ended, 3.12.1 follows a NULL there
    coro = getattr(future, "_coro", None)
    created = context.get("source_traceback") or ()
    site = site_of(future) if site_of is not None and future is not None else None
    site = site or _created_at(created) or _defined_at(coro)
    evidence: dict[str, Any] = {"repr": short_repr(future)}
    if created:
        evidence["created"] = [f'File "{each.filename}", line {each.lineno}, in {each.name}' for each in created][
            -MOST_LINES:
        ]
    if kind == "destroyed_pending":
        # A garbage collection finalizes objects in the order of their creation. It may close the coroutine before it
        # reaches the task: then the awaited future is all that is left.
        evidence["waited_at"] = place_lines(suspended_places(coro))
        evidence["waited_for"] = short_repr(getattr(future, "_fut_waiter", None))
    exception = context.get("exception")
    if exception is not None:
        evidence |= _exception_evidence(exception)
    name = future.get_name() if isinstance(future, asyncio.Task) else None
    return _finding(kind, _message(kind, name, site, exception), site, name, loop, evidence)


def loop_closed_finding(left: Sequence[tuple[Place, str]], loop: str) -> Finding:
    """Return the finding of a loop that was closed with pending tasks, given as (site, name)."""
    names = ", ".join(name for _, name in left[:MOST_NAMES])
    count = f"{len(left)} task{'s' if len(left) != 1 else ''}"
    message = f"the loop was closed with {count} pending: {names}; cancel and await them before"
    evidence = {"tasks": [f"{name}: {site}" for site, name in left[:MOST_TASKS]]}
    return _finding("loop_closed", message, None, None, loop, evidence)


def _message(kind: str, name: str | None, site: Place | None, exception: BaseException | None) -> str:
    subject = "a future" if name is None else f"task {name!r}"
    where = "" if site is None else f", made at {site}"
    if kind == "destroyed_pending":
        return f"{subject} was collected while pending: nothing held it or could complete it{where}"
    return f"{subject} failed and its exception was not retrieved: {short_repr(exception)}{where}"


def _exception_evidence(exception: BaseException) -> dict[str, Any]:
    last = list(traceback.walk_tb(exception.__traceback__))[-MOST_LINES:]
    return {
        "exception": short_repr(exception),
        "exception_type": type(exception).__qualname__,
        # innermost first, as everywhere in evidence
        "stack": place_lines(
            Place(frame.f_code.co_filename, line, frame.f_code.co_qualname) for frame, line in reversed(last)
        ),
    }


def _created_at(created: Iterable[traceback.FrameSummary]) -> Place | None:
    for each in reversed(list(created)):
        if is_user_code(each.filename):
            return Place(each.filename, each.lineno or 0, each.name)
    return None


def _defined_at(coro: Any) -> Place | None:
    code = code_of(coro)
    return None if code is None else definition(code)


def _finding(
    kind: str, message: str, site: Place | None, task: str | None, loop: str, evidence: Mapping[str, Any]
) -> Finding:
    return Finding(kind, message, site, task, time.monotonic(), time.time(), loop, evidence)


# Coroutines that were never awaited. CPython calls `warnings._warn_unawaited_coroutine(coro)` for each, and the warning
# names the line above that call on the stack. A wrapper in Python would be a frame there, so all warnings would name
# the wrapper, and only the first would be shown. A class has no frame: called from C, it runs `__new__`, which notifies
# the listeners and returns, and then `__init__`, which is the original function.

_listeners: tuple[UnawaitedListener, ...] = ()
_original: Any = None
_replacement: Any = None
NAME = "_warn_unawaited_coroutine"


def watch_unawaited(listener: UnawaitedListener) -> None:
    """Call `listener(finding)` for each coroutine that is dropped before it was awaited, in any thread.

    No effect for a listener that is there already. Python's RuntimeWarning stays as it is.
    """
    global _listeners
    if listener not in _listeners:
        _listeners = (*_listeners, listener)
    if _replacement is None and hasattr(warnings, NAME):
        _install()


def unwatch_unawaited(listener: UnawaitedListener) -> None:
    """Remove the listener; after the last one, restore the original function in `warnings`."""
    global _listeners, _original, _replacement
    _listeners = tuple(each for each in _listeners if each != listener)
    # A replacement that another library has wrapped meanwhile stays, without listeners.
    if not _listeners and _replacement is not None and getattr(warnings, NAME) is _replacement:
        setattr(warnings, NAME, _original)
        _original = _replacement = None


def _install() -> None:
    global _original, _replacement
    _original = getattr(warnings, NAME)
    _replacement = _class_before(_original)
    setattr(warnings, NAME, _replacement)


@lru_cache(maxsize=1)
def _class_before(original: Any) -> Any:
    """Return the replacement of `warnings._warn_unawaited_coroutine`. Made once: a dropped class is a cycle."""

    class Unawaited:
        """A call of the listeners, then of the original function."""

        def __new__(cls, coro: Any) -> Self:
            _notify(coro)
            return super().__new__(cls)

        __init__ = staticmethod(original)

    return Unawaited


def _notify(coro: Any) -> None:
    if not _listeners or sys.is_finalizing():
        return
    try:
        finding = _unawaited(coro)
    except Exception:
        logger.exception("a coroutine that was never awaited could not be reported")
        return
    for listener in _listeners:
        try:
            listener(finding)
        except Exception:
            unwatch_unawaited(listener)
            logger.exception("a listener of unawaited coroutines raised and is not called again: %r", listener)


def _unawaited(coro: Any) -> Finding:
    # (file, line, function), innermost first; None unless sys.set_coroutine_origin_tracking_depth is set
    origin = getattr(coro, "cr_origin", None) or getattr(coro, "ag_origin", None) or ()
    name = getattr(coro, "__qualname__", None) or type(coro).__name__
    made = next((Place(file, line, function) for file, line, function in origin if is_user_code(file)), None)
    defined = _defined_at(coro)
    evidence: dict[str, Any] = {"coroutine": name, "defined": None if defined is None else str(defined)}
    if origin:
        evidence["created"] = [f'File "{file}", line {line}, in {where}' for file, line, where in origin[:MOST_LINES]]
    # The frames above `_notify` and the replacement dropped the last reference; a garbage collection may run anywhere.
    dropped_at = user_place(outward(sys._getframe(2).f_back))
    evidence["dropped"] = None if dropped_at is None else str(dropped_at)
    where = "" if made is None else f", made at {made}"
    return _finding("never_awaited", f"coroutine {name} was never awaited{where}", made or defined, None, "", evidence)
