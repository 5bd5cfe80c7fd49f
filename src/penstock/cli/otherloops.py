"""Tells at the end of `penstock run` that the program ran on loops that it made itself, and on none of penstock's."""

import asyncio
import sys
from asyncio import events
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.cli.output import complain

__all__ = ["telling_of_other_loops"]


@contextmanager
def telling_of_other_loops(command: str) -> Iterator[None]:
    """Watch which loops run inside the block. Say so at its end if there were some, and none was penstock's.

    Every loop, uvloop's too, tells asyncio that it runs. Nothing else knows of a loop that no policy has made.
    """
    kinds: dict[type, None] = {}
    plain = events._set_running_loop

    def set_running_loop(loop: asyncio.AbstractEventLoop | None) -> None:
        plain(loop)
        if loop is not None:
            kinds[type(loop)] = None

    _replace(set_running_loop)
    try:
        yield
    finally:
        _replace(plain)
        if kinds and not any(_is_ours(kind) for kind in kinds):
            complain(command, _message(kinds))


def _replace(function: object) -> None:
    events._set_running_loop = asyncio._set_running_loop = function  # type: ignore[assignment]


def _is_ours(kind: type) -> bool:
    return any(base.__module__.partition(".")[0] == "penstock" for base in kind.__mro__)


def _message(kinds: dict[type, None]) -> str:
    named = " and ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
    way = "asyncio.run() and asyncio.new_event_loop() give penstock's"
    if "uvicorn" in sys.modules:
        way = "for uvicorn, use 'penstock serve'"
    return f"the program ran on {named}, which it chose itself, and not on penstock's loop: {way}"
