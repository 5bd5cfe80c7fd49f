"""A notice of `penstock run` that the program runs only loops of its own, none of penstock's."""

import asyncio
import sys
import threading
from asyncio import events
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from penstock.cli.output import write_error

__all__ = ["noticing_other_loops"]

# The notice comes after this time, since a server may never reach its end; not at once, since a short loop may precede
# penstock's.
NOTICE_AFTER_S = 1.0


@contextmanager
def noticing_other_loops(command: str) -> Iterator[None]:
    """Observe the loops that run inside the block. Write a notice once if there are some and none is penstock's.

    Every loop, uvloop's too, calls `asyncio._set_running_loop`; a loop without a policy has no other trace.
    """
    plain = events._set_running_loop
    types = _LoopTypes(command)

    def set_running_loop(loop: asyncio.AbstractEventLoop | None) -> None:
        plain(loop)
        if loop is not None:
            types.add(loop)

    _replace(set_running_loop)
    try:
        yield
    finally:
        _replace(plain)
        types.write_notice()


class _LoopTypes:
    """The types of the loops that have run, and the notice about them."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._types: dict[type, None] = {}
        self._is_written = False

    def add(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note a running loop. The first one in the main thread writes the notice after a second."""
        is_first = not self._types
        self._types[type(loop)] = None
        if is_first and not _is_penstock(type(loop)) and threading.current_thread() is threading.main_thread():
            with suppress(Exception):  # a loop may lack timers
                loop.call_later(NOTICE_AFTER_S, self.write_notice)

    def write_notice(self) -> None:
        """Write the notice once, unless a loop of penstock's has run."""
        if self._types and not self._is_written and not any(map(_is_penstock, self._types)):
            self._is_written = True
            write_error(self._command, _message(self._types))


def _replace(function: object) -> None:
    events._set_running_loop = asyncio._set_running_loop = function  # type: ignore[assignment]


def _is_penstock(kind: type) -> bool:
    return any(base.__module__.partition(".")[0] == "penstock" for base in kind.__mro__)


def _message(types: dict[type, None]) -> str:
    named = " and ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in types)
    way = "asyncio.run() and asyncio.new_event_loop() use penstock's"
    if "uvicorn" in sys.modules:
        way = "for uvicorn, use 'penstock serve'"
    return f"the program ran on {named}, its own choice, and not on penstock's loop: {way}"
