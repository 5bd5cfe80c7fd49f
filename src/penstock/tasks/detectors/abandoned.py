"""Tasks and coroutines that were abandoned: collected while pending, their exception never asked for, never awaited.

Made of what asyncio and CPython say when they notice, in the middle of a deallocation: so what is about to go is looked
at and put into words, never kept.
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

from penstock.tasks.awaits.frames import (
    await_lines,
    frame_lines,
    is_user_code,
    outward,
    short_repr,
    site_of_code,
    user_site,
)
from penstock.tasks.finding import Finding, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["inspect_context", "left_behind", "unwatch_unawaited", "watch_unawaited"]

logger = logging.getLogger("penstock.tasks")

UnawaitedListener: TypeAlias = "Callable[[Finding], object]"
SiteOf: TypeAlias = "Callable[[asyncio.Future[Any]], Site | None]"

# asyncio's messages -> kind; it has no other mark for them
KINDS = {
    "Task was destroyed but it is pending!": "destroyed_pending",
    "Task exception was never retrieved": "exception_unretrieved",
    "Future exception was never retrieved": "exception_unretrieved",
}
MOST_LINES = 30
MOST_NAMES = 10
MOST_TASKS = 100


def inspect_context(context: Mapping[str, Any], site_of: SiteOf | None = None, loop: str = "") -> Finding | None:
    """The finding in what `loop.call_exception_handler` is given, or None.

    `site_of(task)` says where the task was created, if the caller knows. Else it is the place of `source_traceback`,
    which asyncio's debug mode records, and failing that, where the coroutine function is defined.
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
        # A garbage collection finalizes what it found in the order it was made, so closes the coroutine before it comes
        # to the task: then nothing is left of where it stood but what it waited for.
        evidence["waited_at"] = await_lines(coro) if getattr(coro, "cr_frame", None) is not None else []
        evidence["waited_for"] = short_repr(getattr(future, "_fut_waiter", None))
    exception = context.get("exception")
    if exception is not None:
        evidence |= _of_exception(exception)
    name = future.get_name() if isinstance(future, asyncio.Task) else None
    return _finding(kind, _told(kind, name, site, exception), site, name, loop, evidence)


def left_behind(left: Sequence[tuple[Site, str]], loop: str) -> Finding:
    """The finding for (site, name) of each task that had not ended when its loop was closed."""
    names = ", ".join(name for _, name in left[:MOST_NAMES])
    count = f"{len(left)} task{'s' if len(left) != 1 else ''}"
    message = f"the loop was closed with {count} pending: {names}; cancel and await them before"
    evidence = {"tasks": [f"{name}: {site}" for site, name in left[:MOST_TASKS]]}
    return _finding("loop_closed", message, None, None, loop, evidence)


def _told(kind: str, name: str | None, site: Site | None, exception: BaseException | None) -> str:
    who = "a future" if name is None else f"task {name!r}"
    where = "" if site is None else f", made at {site}"
    if kind == "destroyed_pending":
        return f"{who} was collected while pending: nothing held it or could complete it{where}"
    return f"{who} failed and nobody asked: {short_repr(exception)}{where}"


def _of_exception(exception: BaseException) -> dict[str, Any]:
    last = list(traceback.walk_tb(exception.__traceback__))[-MOST_LINES:]
    return {
        "exception": short_repr(exception),
        # innermost first, as everywhere in evidence
        "stack": frame_lines([(frame.f_code, line) for frame, line in reversed(last)]),
    }


def _created_at(created: Iterable[traceback.FrameSummary]) -> Site | None:
    for each in reversed(list(created)):
        if is_user_code(each.filename):
            return Site(each.filename, each.lineno or 0, each.name)
    return None


def _defined_at(coro: Any) -> Site | None:
    for name in ("cr_code", "gi_code", "ag_code"):
        code = getattr(coro, name, None)
        if code is not None:
            return site_of_code(code)
    return None


def _finding(
    kind: str, message: str, site: Site | None, task: str | None, loop: str, evidence: Mapping[str, Any]
) -> Finding:
    return Finding(kind, message, site, task, time.monotonic(), time.time(), loop, evidence)


# Coroutines that nobody awaited. CPython calls `warnings._warn_unawaited_coroutine(coro)` for one, and the warning
# names the line above that call on the stack: a wrapper in Python would be a frame there, and every such warning would
# name the wrapper, and be shown once. What stands in has no frame: a class. Called from C, it runs `__new__`, which
# tells the listeners and returns, and then `__init__`, which is the very function that stood there.

_listeners: tuple[UnawaitedListener, ...] = ()
_original: Any = None
_stand_in: Any = None
NAME = "_warn_unawaited_coroutine"


def watch_unawaited(listener: UnawaitedListener) -> None:
    """Call `listener(finding)` for each coroutine that is dropped without having been awaited, in any thread; a second
    call with the same one does nothing. The RuntimeWarning stays as it is."""
    global _listeners
    if listener not in _listeners:
        _listeners = (*_listeners, listener)
    if _stand_in is None and hasattr(warnings, NAME):
        _install()


def unwatch_unawaited(listener: UnawaitedListener) -> None:
    """Call it no more; with the last one, what stood in `warnings` before is back."""
    global _listeners, _original, _stand_in
    _listeners = tuple(each for each in _listeners if each != listener)
    # One that has been wrapped by somebody else meanwhile stays, with nobody to tell.
    if not _listeners and _stand_in is not None and getattr(warnings, NAME) is _stand_in:
        setattr(warnings, NAME, _original)
        _original = _stand_in = None


def _install() -> None:
    global _original, _stand_in
    _original = getattr(warnings, NAME)
    _stand_in = _class_before(_original)
    setattr(warnings, NAME, _stand_in)


@lru_cache(maxsize=1)
def _class_before(original: Any) -> Any:
    """The stand-in for `warnings._warn_unawaited_coroutine`. Made once: a class that is dropped is a cycle."""

    class Unawaited:
        """Tells the listeners, and is then what stood there."""

        def __new__(cls, coro: Any) -> Self:
            _tell(coro)
            return super().__new__(cls)

        __init__ = staticmethod(original)

    return Unawaited


def _tell(coro: Any) -> None:
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
    # (file, line, function), innermost first; None unless sys.set_coroutine_origin_tracking_depth is on
    origin = getattr(coro, "cr_origin", None) or getattr(coro, "ag_origin", None) or ()
    name = getattr(coro, "__qualname__", None) or type(coro).__name__
    made = next((Site(file, line, function) for file, line, function in origin if is_user_code(file)), None)
    defined = _defined_at(coro)
    evidence: dict[str, Any] = {"coroutine": name, "defined": None if defined is None else str(defined)}
    if origin:
        evidence["created"] = [f'File "{file}", line {line}, in {where}' for file, line, where in origin[:MOST_LINES]]
    # Above `_tell` and the stand-in: where the last reference went, which may be a garbage collection anywhere.
    dropped_at = user_site(outward(sys._getframe(2).f_back))
    evidence["dropped"] = None if dropped_at is None else str(dropped_at)
    where = "" if made is None else f", made at {made}"
    return _finding("never_awaited", f"coroutine {name} was never awaited{where}", made or defined, None, "", evidence)
