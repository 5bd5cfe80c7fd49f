"""Preparation of the forkserver, which imports this module first: it ignores SIGTERM and imports the other modules.

An import in any other process does nothing.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from penstock.executors.processes.signal_shield import ignore_sigterm, reset_in_children

if TYPE_CHECKING:
    from types import FrameType

__all__: list[str] = []

FORKSERVER = "multiprocessing.forkserver"


def _importing() -> list[str] | None:
    """Return the list of modules that the forkserver imports; None in any other process."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        preload: Any = frame.f_locals.get("preload") if frame.f_globals.get("__name__") == FORKSERVER else None
        if isinstance(preload, list) and __name__ in preload:
            return preload
        frame = frame.f_back
    return None


def _import_rest(preload: list[str]) -> None:
    """Import the modules after this one, and suppress their exceptions, which would end the forkserver. A worker
    imports them again, and reports the exception."""
    position = preload.index(__name__) + 1
    rest, preload[position:] = preload[position:], []
    for name in rest:
        with suppress(Exception, SystemExit):
            __import__(name)


_preload = _importing()
if _preload is not None:
    _before: Any = ignore_sigterm()
    reset_in_children(lambda: signal.signal(signal.SIGTERM, _before))
    _import_rest(_preload)
