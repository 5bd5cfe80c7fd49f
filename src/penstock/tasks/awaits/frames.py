"""Frames as text, within bounds, and where in them the program's own code is. Nothing here keeps a frame."""

from __future__ import annotations

import asyncio
import linecache
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import penstock
from penstock.loop import NATIVE
from penstock.tasks.finding import Site

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType, FrameType

__all__ = [
    "await_lines",
    "frame_lines",
    "frame_of_thread",
    "is_user_code",
    "outward",
    "short_repr",
    "site_of_code",
    "user_site",
]

MOST_FRAMES = 30
MOST_LETTERS = 200

_PATHS = sysconfig.get_paths()
_OURS = tuple(str(Path(module.__file__ or "").parent) + "/" for module in (asyncio, penstock))
_STANDARD = tuple({_PATHS[key] + "/" for key in ("stdlib", "platstdlib")})
# within the standard library's folder, but not of it
_INSTALLED = tuple({_PATHS[key] + "/" for key in ("purelib", "platlib")})


# loaded in a process that makes interpreters of its own
_INTERPRETERS = frozenset({"_interpreters", "_xxsubinterpreters"})


def frame_of_thread(thread_id: int) -> FrameType | None:
    """Return the frame that a thread of this interpreter runs now; None if it runs none, or if it cannot be asked for.

    `sys._current_frames` is no way while other interpreters run: it makes frames of theirs, and the process crashes as
    they free them. Without the native code there is no other.
    """
    if NATIVE:
        from penstock._core.tasks.watchdog import frame_of

        return frame_of(thread_id)
    return sys._current_frames().get(thread_id) if _INTERPRETERS.isdisjoint(sys.modules) else None


@lru_cache(maxsize=4096)
def is_user_code(file: str) -> bool:
    """Whether a file is the program's or a library's it installed: not Python's own, not ours."""
    if file.startswith("<frozen") or file.startswith(_OURS):
        return False
    return file.startswith(_INSTALLED) or "/site-packages/" in file or not file.startswith(_STANDARD)


def user_site(places: Iterable[tuple[CodeType, int]]) -> Site | None:
    """The first of (code, line) that is user code; the very first if none is."""
    first = None
    for code, line in places:
        site = Site(code.co_filename, line, code.co_qualname)
        if is_user_code(code.co_filename):
            return site
        first = first or site
    return first


def site_of_code(code: CodeType) -> Site:
    """Where a function is defined."""
    return Site(code.co_filename, code.co_firstlineno, code.co_qualname)


def outward(frame: FrameType | None) -> Iterator[tuple[CodeType, int]]:
    """(code, line) of a frame and its callers, innermost first."""
    while frame is not None:
        yield frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno
        frame = frame.f_back


def frame_lines(places: Iterable[tuple[CodeType, int]], limit: int = MOST_FRAMES) -> list[str]:
    """A line for each of the first `limit` (code, line), as in a traceback, with its source where it is known."""
    lines: list[str] = []
    for code, line in places:
        if len(lines) == limit:
            lines.append("...")
            break
        source = linecache.getline(code.co_filename, line).strip()
        text = f'File "{code.co_filename}", line {line}, in {code.co_qualname}'
        lines.append(f"{text}: {source[:MOST_LETTERS]}" if source else text)
    return lines


def awaited(coro: Any) -> Iterator[tuple[CodeType, int]]:
    """(code, line) of a suspended coroutine and what it awaits, outermost first."""
    for _ in range(MOST_FRAMES + 1):
        for prefix in ("cr", "gi", "ag"):
            code = getattr(coro, f"{prefix}_code", None)
            if code is not None:
                frame = getattr(coro, f"{prefix}_frame", None)
                yield code, (frame.f_lineno if frame is not None else None) or code.co_firstlineno
                coro = getattr(coro, f"{prefix}_await" if prefix != "gi" else "gi_yieldfrom", None)
                break
        else:
            return


def await_lines(coro: Any) -> list[str]:
    """Where a suspended coroutine stands, as lines, outermost first."""
    return frame_lines(awaited(coro))


def short_repr(thing: object, letters: int = MOST_LETTERS) -> str:
    """repr, bounded, and whatever it does."""
    try:
        text = repr(thing)
    except Exception as error:
        text = f"<{type(thing).__name__} whose repr raises {type(error).__name__}>"
    return text if len(text) <= letters else text[: letters - 3] + "..."
