"""Tells under `penstock run` that the program runs on loops that it made itself, and on none of penstock's."""

import asyncio
import sys
import threading
from asyncio import events
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from penstock.cli.output import complain

__all__ = ["telling_of_other_loops"]

# A server may never reach the end of its program: uvicorn's ends by its signal. A short loop may precede penstock's.
TOLD_AFTER_S = 1.0


@contextmanager
def telling_of_other_loops(command: str) -> Iterator[None]:
    """Watch which loops run inside the block. Tell once if there are some, and none is penstock's.

    Every loop, uvloop's too, tells asyncio that it runs. Nothing else knows of a loop that no policy has made.
    """
    plain = events._set_running_loop
    converters = _LoopKinds(command)

    def set_running_loop(loop: asyncio.AbstractEventLoop | None) -> None:
        plain(loop)
        if loop is not None:
            converters.add(loop)

    _replace(set_running_loop)
    try:
        yield
    finally:
        _replace(plain)
        converters.tell()


class _LoopKinds:
    """The converters of loops that have run, and whether the user has been told of them."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._kinds: dict[type, None] = {}
        self._is_told = False

    def add(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note that the loop runs. The first one tells after a second, if it still runs in the main thread."""
        is_first = not self._kinds
        self._kinds[type(loop)] = None
        if is_first and not _is_ours(type(loop)) and threading.current_thread() is threading.main_thread():
            with suppress(Exception):  # a loop may lack timers
                loop.call_later(TOLD_AFTER_S, self.tell)

    def tell(self) -> None:
        """Tell the user, unless a loop of penstock's was among them, or it has been told."""
        if self._kinds and not self._is_told and not any(map(_is_ours, self._kinds)):
            self._is_told = True
            complain(self._command, _message(self._kinds))


def _replace(function: object) -> None:
    events._set_running_loop = asyncio._set_running_loop = function  # type: ignore[assignment]


def _is_ours(kind: type) -> bool:
    return any(base.__module__.partition(".")[0] == "penstock" for base in kind.__mro__)


def _message(converters: dict[type, None]) -> str:
    named = " and ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in converters)
    way = "asyncio.run() and asyncio.new_event_loop() give penstock's"
    if "uvicorn" in sys.modules:
        way = "for uvicorn, use 'penstock serve'"
    return f"the program ran on {named}, which it chose itself, and not on penstock's loop: {way}"
