"""The line of the program in a sampled stack, and the function that this line calls.

A stack names Python frames only. The call of a function in C has no frame: its name is in the line's source text.
"""

from __future__ import annotations

import keyword
import linecache
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import penstock
from penstock.monitor.texts import where
from penstock.tasks.place import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Culprit", "calls_directly", "culprit", "starts_thread"]

# evidence has lines as in a traceback, with the source text; a running callback has places as text
_TRACEBACK = re.compile(r'^File "(?P<file>.*?)", line (?P<line>\d+), in (?P<function>[^:]+)(?:: (?P<source>.*))?$')
_PLACE = re.compile(r"^(?P<file>.*):(?P<line>\d+) in (?P<function>.+)$")
# not the program's own code: Python's library, installed packages, frozen modules
_FOREIGN = re.compile(r"[/\\](?:site|dist)-packages[/\\]|[/\\]lib(?:64)?[/\\]python3\.\d+t?[/\\]|^<frozen")
_OURS = str(Path(penstock.__file__ or "").parent)
_TEXT = re.compile(r"\"[^\"]*\"|'[^']*'")
_CALL = re.compile(r"(?<![\w.])([A-Za-z_][\w]*(?:\.[A-Za-z_]\w*)*)\s*\(")
# keywords before a parenthesis, and calls that take no time themselves
_NO_CULPRIT = frozenset({*keyword.kwlist, "enumerate", "getattr", "isinstance", "iter", "len", "range", "type", "zip"})
# methods without a name of their own in the source text
_UNNAMED = re.compile(r"^(?:__\w+__|<\w+>)$")


class _Frame(NamedTuple):
    """A frame of a stack that was sent as text, with its source line if it is known."""

    place: Place
    source: str


class Culprit(NamedTuple):
    """The line that blocks, and the name of the function it calls, such as json.loads; None if there is none."""

    place: Place | None
    call: str | None

    @property
    def text(self) -> str:
        """The call and its place as the words of a sentence."""
        if self.place is None:
            return self.call or "code that was not sampled"
        return f"{self.call or self.place.function} in {where(self.place)}"


def culprit(stack: Sequence[str], site: Place | None) -> Culprit:
    """Return the innermost line of the program's own code in a stack, innermost first, and the function it calls.

    Without such a line the site stands for it, which may be a line of an installed package.
    """
    frames = [frame for text in stack if (frame := _parsed(text)) is not None]
    index = next((at for at, frame in enumerate(frames) if _is_own(frame.place.file)), None)
    if index is None:
        index = next((at for at, frame in enumerate(frames) if frame.place == site), None)
    if index is None:
        return Culprit(site, None if site is None else _called(_source(site), None))
    frame = frames[index]
    callee = frames[index - 1].place.function.rpartition(".")[2] if index else None
    return Culprit(frame.place, _called(frame.source or _source(frame.place), callee))


def calls_directly(stack: Sequence[str]) -> bool:
    """Return whether the innermost frame is the program's own, so that its line makes the innermost call."""
    innermost = next((frame for text in stack if (frame := _parsed(text)) is not None), None)
    return innermost is not None and _is_own(innermost.place.file)


def starts_thread(stack: Sequence[str]) -> bool:
    """Return whether a stack waits in the start of a thread: its caller waits until the new thread runs."""
    frames = (frame for text in stack if (frame := _parsed(text)) is not None)
    return any(frame.place.function == "Thread.start" and not _is_own(frame.place.file) for frame in frames)


def _parsed(text: str) -> _Frame | None:
    found = _TRACEBACK.match(text) or _PLACE.match(text)
    if found is None:
        return None
    parts = found.groupdict()
    return _Frame(Place(parts["file"], int(parts["line"]), parts["function"]), parts.get("source") or "")


def _is_own(file: str) -> bool:
    return not _FOREIGN.search(file) and not file.startswith(_OURS)


def _source(place: Place) -> str:
    """Return the line of the file, if this process may read it."""
    linecache.checkcache(place.file)
    return linecache.getline(place.file, place.line).strip()


def _called(source: str, callee: str | None) -> str | None:
    """Return the dotted name in the source line that calls `callee`, a function of the next inner frame.

    Without an inner frame the call is of a function in C: the first in the line that may take long.
    """
    names = [name for name in _CALL.findall(_TEXT.sub("''", source)) if name not in _NO_CULPRIT]
    if source.startswith(("def ", "async def ", "class ")):
        names = []
    if callee is None or _UNNAMED.match(callee):
        return names[0] if names else None
    return next((name for name in names if name.rpartition(".")[2] == callee), callee)
