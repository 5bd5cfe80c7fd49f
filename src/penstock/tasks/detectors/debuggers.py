"""Whether a stack stands in a debugger: at its prompt, or stopped by it. Time spent there is no stall."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, FrameType

__all__ = ["is_stepped", "stands_in_debugger"]

# Modules of the standard library, packages, and modules of IPython. Not all of IPython: a notebook's cells run in it.
_STANDARD = re.compile(r"[/\\]python3\.\d+t?[/\\](?:bdb|pdb|cmd|code)\.py$")
# pdb as a tool of sys.monitoring, from Python 3.14 on: frames have no tracer then
BDB_TOOL = "bdbtracer"
_INSTALLED = re.compile(
    r"[/\\](?:debugpy|_pydevd_bundle|_pydevd_frame_eval|pudb|ipdb)[/\\]|[/\\]pydevd\w*\.py$"
    r"|[/\\]IPython[/\\](?:core[/\\]debugger|terminal[/\\](?:debugger|embed))\.py$"
)


@lru_cache(maxsize=4096)
def _is_debuggers(file: str) -> bool:
    return bool(_STANDARD.search(file) or _INSTALLED.search(file))


def stands_in_debugger(places: Iterable[tuple[CodeType, int]]) -> bool:
    """Return whether any of (code, line) is a debugger's."""
    return any(_is_debuggers(code.co_filename) for code, _ in places)


def is_stepped(frame: FrameType | None) -> bool:
    """Return whether a debugger of the standard library's kind traces the frame: it is stepped through."""
    bdb = sys.modules.get("bdb")
    if sys.version_info >= (3, 12) and sys.monitoring.get_tool(sys.monitoring.DEBUGGER_ID) == BDB_TOOL:
        return True
    tracer = None if frame is None or bdb is None else getattr(frame.f_trace, "__self__", None)
    return tracer is not None and isinstance(tracer, bdb.Bdb)  # type: ignore[union-attr]
