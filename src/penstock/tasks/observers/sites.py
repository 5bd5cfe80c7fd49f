"""Sites: the places where tasks are created, recorded as code object and instruction and named only when read.

To record one costs a walk over a few frames, and no text. Knows neither tasks nor loops.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from penstock.tasks.place import Place, is_within, module_of
from penstock.times import Histogram

if TYPE_CHECKING:
    from types import CodeType, FrameType

__all__ = [
    "MOST_SITES",
    "OTHER",
    "UNKNOWN",
    "Instruction",
    "SiteEntry",
    "SiteTable",
    "creator",
    "is_skipped",
    "place_at",
    "raw_stack",
    "resolve",
    "skip_modules",
    "walk",
]

# (code object, offset of the instruction in bytes): a place before it is named
Instruction: TypeAlias = "tuple[CodeType, int]"

MOST_SITES = 1024
# all sites beyond the table; a task whose creation was not recorded
OTHER = Place("", 0, "other")
UNKNOWN = Place("", 0, "unknown")


# --- from an instruction to a place


def resolve(code: CodeType, lasti: int) -> Place:
    """Return the place of an instruction (`frame.f_lasti`); the function's first line if the instruction has none."""
    position = next(islice(code.co_positions(), max(lasti, 0) // 2, None), None)
    line = position[0] if position is not None else None
    return Place(code.co_filename, line or code.co_firstlineno, code.co_qualname)


# By address, as in SiteTable; bounded, since a program that makes code as it runs has any number of sites.
_named: dict[int, tuple[CodeType, Place]] = {}


def place_at(code: CodeType, lasti: int) -> Place:
    """Return the place of an instruction from a cache, for readers that ask for the same few again."""
    found = _named.get(id(code) + lasti)
    if found is None:
        if len(_named) >= MOST_SITES:
            _named.clear()
        found = _named[id(code) + lasti] = code, resolve(code, lasti)
    return found[1]


# --- from a call to the frame that creates the task

# packages that make tasks for their caller, which is then the creator
_MAKING_FOR_CALLER = ("asyncio", "penstock.loop", "penstock.tasks", "penstock.runtime")
# modules of asyncio that make tasks by themselves, for a new connection or a late attempt to connect: the frames below
# them only run the loop
_MAKING_BY_ITSELF = ("asyncio.selector_events", "asyncio.staggered", "asyncio.streams")
# the frames below these run the loop, and make no task in it
_RUNNING = {"run_forever", "_run_once"}
_RUNNER = asyncio.Runner.run.__code__
# the functions that make a task: the loop's method, and penstock's wrapper around a factory
_MAKING = {"create_task", "factory"}
_FEW_FRAMES = 3
_MOST_MODULES = 4096


class _Modules(dict["str | None", bool]):
    """A cache: module name -> whether its frames are skipped."""

    def __missing__(self, name: str | None) -> bool:
        if len(self) >= _MOST_MODULES:
            self.clear()
        is_inner = is_within(name or "", _MAKING_FOR_CALLER) and name not in _MAKING_BY_ITSELF
        passed = self[name] = is_inner or is_within(name or "", _skipped)
        return passed


_is_inner_module = _Modules()
# the packages that the config skips as well, for the whole process
_skipped: tuple[str, ...] = ()


def skip_modules(packages: tuple[str, ...]) -> None:
    """Skip the frames of these packages too, from now on, in the whole process."""
    global _skipped
    _skipped = tuple(dict.fromkeys((*_skipped, *packages)))
    _is_inner_module.clear()


def is_skipped(file: str) -> bool:
    """Return whether `skip_modules` has named the file's module."""
    return is_within(module_of(file), _skipped)


def creator(depth: int = 0) -> FrameType:
    """Return the first frame outside asyncio and penstock, from the frame `depth` outward of the caller's.

    If there is none, as for a task that a callback of asyncio's makes, return asyncio's frame.
    """
    # To read a frame's module makes no frame object. A walk by f_back makes one of each frame, and costs three times as
    # much.
    if sys.version_info >= (3, 12):
        for outwards in range(depth + 1, depth + 1 + _FEW_FRAMES):
            name = sys._getframemodulename(outwards)
            if name is None:
                # no frame there, or one of code that has no module
                break
            if not _is_inner_module[name]:
                return sys._getframe(outwards)
    return walk(sys._getframe(depth + 1))


def walk(first: FrameType) -> FrameType:
    """Return the creator as seen from a frame, past any number of asyncio's frames, the loop's among them."""
    inner = first
    while inner.f_code.co_name in _MAKING and inner.f_back is not None:
        inner = inner.f_back
    found = inner
    while _is_inner_module[found.f_globals.get("__name__")]:
        # the runner makes the main task itself; with a frame in between it runs the loop (uvloop's loop has no frame)
        is_running = found.f_code.co_name in _RUNNING or (found.f_code is _RUNNER and found is not inner)
        if is_running or found.f_back is None:
            return inner
        found = found.f_back
    return found


def raw_stack(frame: FrameType | None, most_count: int) -> tuple[Instruction, ...]:
    """Return the instructions of `frame` and its callers, at most `most_count`."""
    found: list[Instruction] = []
    while frame is not None and len(found) < most_count:
        found.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


# --- one observer's sites


class SiteEntry:
    """The counts of one site's tasks. Only the loop's thread writes it."""

    __slots__ = ("cancelled", "created", "failed", "latency", "lost", "raw", "returned")

    def __init__(self, raw: Instruction | Place) -> None:
        self.raw = raw
        self.created = self.returned = self.failed = self.cancelled = self.lost = 0
        self.latency = Histogram()

    @property
    def site(self) -> Place:
        """The site as a place."""
        return self.raw if isinstance(self.raw, Place) else place_at(*self.raw)

    @property
    def live(self) -> int:
        """The number of tasks that have not ended."""
        return self.created - self.returned - self.failed - self.cancelled - self.lost


class SiteTable:
    """The first 1024 sites, and one entry for all others.

    The key stands for the instruction's address. A code object contains its instructions, so `id(code) + lasti` lies
    within it and is unique while the entry keeps it alive. To hash a code object would read all of it, each time.
    """

    __slots__ = ("_entries", "other", "unknown")

    def __init__(self) -> None:
        self._entries: dict[int, SiteEntry] = {}
        self.other = SiteEntry(OTHER)
        self.unknown = SiteEntry(UNKNOWN)

    def entry(self, frame: FrameType) -> SiteEntry:
        """Return the entry of the instruction at which a frame is now."""
        code = frame.f_code
        key = id(code) + frame.f_lasti
        found = self._entries.get(key)
        return self._add(key, code, frame.f_lasti) if found is None else found

    def _add(self, key: int, code: CodeType, lasti: int) -> SiteEntry:
        if len(self._entries) >= MOST_SITES:
            return self.other
        found = self._entries[key] = SiteEntry((code, lasti))
        return found

    def entries(self) -> list[SiteEntry]:
        """Return every entry that has had a task."""
        return [entry for entry in (*list(self._entries.values()), self.other, self.unknown) if entry.created]
