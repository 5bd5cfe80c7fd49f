"""Stacks of frames as places and as text, within bounds. Nothing here keeps a frame alive."""

from __future__ import annotations

import asyncio
import linecache
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import penstock
from penstock.loop import NATIVE
from penstock.tasks.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType, FrameType

__all__ = ["definition", "frame_of_thread", "is_user_code", "outward", "place_lines", "short_repr", "user_place"]

MOST_FRAMES = 30
MOST_CHARACTERS = 200

_PATHS = sysconfig.get_paths()
_OURS = tuple(str(Path(module.__file__ or "").parent) + "/" for module in (asyncio, penstock))
_STANDARD = tuple({_PATHS[key] + "/" for key in ("stdlib", "platstdlib")})
# inside the standard library's folder, but not part of it
_INSTALLED = tuple({_PATHS[key] + "/" for key in ("purelib", "platlib")})
# loaded in a process that makes interpreters of its own
_INTERPRETERS = frozenset({"_interpreters", "_xxsubinterpreters"})


def frame_of_thread(thread_id: int) -> FrameType | None:
    """Return the frame that a thread of this interpreter runs now; None if it runs none or cannot be inspected.

    `sys._current_frames` is unsafe while other interpreters run: it makes frames of theirs, and the process crashes as
    they free them. Without the native code there is no other way.
    """
    if NATIVE:
        from penstock._core.tasks.watchdog import frame_of

        return frame_of(thread_id)
    return sys._current_frames().get(thread_id) if _INTERPRETERS.isdisjoint(sys.modules) else None


def outward(frame: FrameType | None) -> Iterator[Place]:
    """Yield the places of a frame and its callers, innermost first."""
    while frame is not None:
        code = frame.f_code
        yield Place(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname)
        frame = frame.f_back


def definition(code: CodeType) -> Place:
    """Return the place where a function is defined."""
    return Place(code.co_filename, code.co_firstlineno, code.co_qualname)


@lru_cache(maxsize=4096)
def is_user_code(file: str) -> bool:
    """Return whether a file is the program's or an installed library's: not Python's own, not penstock's."""
    if file.startswith("<frozen") or file.startswith(_OURS):
        return False
    return file.startswith(_INSTALLED) or "/site-packages/" in file or not file.startswith(_STANDARD)


def user_place(places: Iterable[Place]) -> Place | None:
    """Return the first place in user code; the very first place if there is none."""
    first = None
    for place in places:
        if is_user_code(place.file):
            return place
        first = first or place
    return first


def place_lines(places: Iterable[Place], limit: int = MOST_FRAMES) -> list[str]:
    """Return a line for each of the first `limit` places, as in a traceback, with its source if it is known."""
    lines: list[str] = []
    for place in places:
        if len(lines) == limit:
            lines.append("...")
            break
        source = linecache.getline(place.file, place.line).strip()
        text = f'File "{place.file}", line {place.line}, in {place.function}'
        lines.append(f"{text}: {source[:MOST_CHARACTERS]}" if source else text)
    return lines


def short_repr(thing: object, limit: int = MOST_CHARACTERS) -> str:
    """Return the repr in at most `limit` characters; a repr that raises is described."""
    try:
        text = repr(thing)
    except Exception as error:
        text = f"<{type(thing).__name__} whose repr raises {type(error).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."
