"""Where tasks are created: the frame that did it, noted as code object and instruction, and named only when read.

Noting one costs a walk of a few frames and no text. Knows neither tasks nor loops.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from penstock.tasks.finding import Site
from penstock.tasks.modulenames import is_within, module_of
from penstock.times import Histogram

if TYPE_CHECKING:
    from types import CodeType, FrameType

__all__ = [
    "MOST_SITES",
    "OTHER",
    "UNKNOWN",
    "RawSite",
    "SiteEntry",
    "SiteTable",
    "creator",
    "is_skipped",
    "raw_stack",
    "resolve",
    "site_of",
    "skip_modules",
    "walk",
]

# (code object, offset of the instruction in bytes): what a frame is before it has a name
RawSite: TypeAlias = "tuple[CodeType, int]"

MOST_SITES = 1024
# the sites beyond the table; a task whose creation nobody noted
OTHER = Site("", 0, "other")
UNKNOWN = Site("", 0, "unknown")


# --- from code and instruction to a name


def resolve(code: CodeType, lasti: int) -> Site:
    """File, line and function of an instruction (`frame.f_lasti`); the function's first line where it has none."""
    position = next(islice(code.co_positions(), max(lasti, 0) // 2, None), None)
    line = position[0] if position is not None else None
    return Site(code.co_filename, line or code.co_firstlineno, code.co_qualname)


# By address, as in SiteTable; bounded, since programs that make code as they run have no end of sites.
_named: dict[int, tuple[CodeType, Site]] = {}


def site_of(code: CodeType, lasti: int) -> Site:
    """As `resolve`, remembered: for those who ask for the same few again and again."""
    found = _named.get(id(code) + lasti)
    if found is None:
        if len(_named) >= MOST_SITES:
            _named.clear()
        found = _named[id(code) + lasti] = code, resolve(code, lasti)
    return found[1]


# --- from a call to the frame that is meant

# packages whose code makes tasks for others: their creator is who called it
_PASSED_THROUGH = ("asyncio", "penstock.loop", "penstock.tasks", "penstock.runtime")
# modules of asyncio that make tasks of their own accord, when a connection comes or an attempt to connect is late:
# whoever is below them on the stack only runs the loop
_OF_THEIR_OWN = ("asyncio.selector_events", "asyncio.staggered", "asyncio.streams")
# below these is who runs the loop, not who makes a task in it
_RUNNING = {"run_forever", "_run_once"}
_RUNNER = asyncio.Runner.run.__code__
# a task's making itself: the loop's method, and penstock's wrapper around a factory
_MAKING = {"create_task", "factory"}
_FEW_FRAMES = 3
_MOST_MODULES = 4096


class _Modules(dict["str | None", bool]):
    """Module name -> whether its frames are passed over."""

    def __missing__(self, name: str | None) -> bool:
        if len(self) >= _MOST_MODULES:
            self.clear()
        is_inner = is_within(name or "", _PASSED_THROUGH) and name not in _OF_THEIR_OWN
        passed = self[name] = is_inner or is_within(name or "", _skipped)
        return passed


_is_passed = _Modules()
# the packages that the config says to pass over as well; the process's
_skipped: tuple[str, ...] = ()


def skip_modules(packages: tuple[str, ...]) -> None:
    """Pass over the frames of these packages too, from now on, in the whole process."""
    global _skipped
    _skipped = tuple(dict.fromkeys((*_skipped, *packages)))
    _is_passed.clear()


def is_skipped(file: str) -> bool:
    """Return whether `skip_modules` has named the file's module."""
    return is_within(module_of(file), _skipped)


def creator(depth: int = 0) -> FrameType:
    """The first frame that is neither asyncio's nor penstock's own, beginning so many outwards from the caller's.

    With none of these, as for a task that a bare callback of asyncio's makes, where asyncio did.
    """
    # A look at a frame's module makes no frame object; a walk by f_back makes one of each frame that it passes, and
    # costs three times as much.
    if sys.version_info >= (3, 12):
        for outwards in range(depth + 1, depth + 1 + _FEW_FRAMES):
            name = sys._getframemodulename(outwards)
            if name is None:
                # no frame there, or one of code that has no module
                break
            if not _is_passed[name]:
                return sys._getframe(outwards)
    return walk(sys._getframe(depth + 1))


def walk(first: FrameType) -> FrameType:
    """As `creator`, from a frame outwards and for any number of asyncio's frames: the loop may be among them."""
    inner = first
    while inner.f_code.co_name in _MAKING and inner.f_back is not None:
        inner = inner.f_back
    found = inner
    while _is_passed[found.f_globals.get("__name__")]:
        # the runner makes the main task: only with something between is it who runs the loop (uvloop's has no frame)
        is_running = found.f_code.co_name in _RUNNING or (found.f_code is _RUNNER and found is not inner)
        if is_running or found.f_back is None:
            return inner
        found = found.f_back
    return found


def raw_stack(frame: FrameType | None, most_count: int) -> tuple[RawSite, ...]:
    """The frames from `frame` outwards, at most so many, unnamed."""
    found: list[RawSite] = []
    while frame is not None and len(found) < most_count:
        found.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


# --- one observer's sites


class SiteEntry:
    """What became of the tasks of one site. Written by the thread of the loop alone."""

    __slots__ = ("cancelled", "created", "failed", "latency", "lost", "raw", "returned")

    def __init__(self, raw: RawSite | Site) -> None:
        self.raw = raw
        self.created = self.returned = self.failed = self.cancelled = self.lost = 0
        self.latency = Histogram()

    @property
    def site(self) -> Site:
        """Its name."""
        return self.raw if isinstance(self.raw, Site) else site_of(*self.raw)

    @property
    def live(self) -> int:
        """How many have not ended."""
        return self.created - self.returned - self.failed - self.cancelled - self.lost


class SiteTable:
    """The first 1024 sites that come, and one entry for all beyond.

    The key is the instruction's address, near enough: a code object holds its instructions, so `id(code) + lasti` lies
    within it and is no other's while the entry keeps it alive. Hashing a code object reads all of it, each time.
    """

    __slots__ = ("_entries", "other", "unknown")

    def __init__(self) -> None:
        self._entries: dict[int, SiteEntry] = {}
        self.other = SiteEntry(OTHER)
        self.unknown = SiteEntry(UNKNOWN)

    def entry(self, frame: FrameType) -> SiteEntry:
        """The entry of the instruction at which a frame is now."""
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
        """Every entry that has had a task."""
        return [entry for entry in (*list(self._entries.values()), self.other, self.unknown) if entry.created]
