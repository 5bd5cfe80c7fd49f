"""The frames of a traceback that belong to the user's program, without those of penstock and of the import."""

from __future__ import annotations

import contextlib
import importlib
import os
import runpy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType, TracebackType

__all__ = ["add_launcher", "user_frames"]

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
MACHINERY = ("<frozen runpy>", "<frozen importlib", runpy.__file__, importlib.__file__, contextlib.__file__)
# The calling file, known only at run time: the console script or `penstock/__main__.py`.
_launchers: set[str] = set()


def add_launcher(path: str) -> None:
    """Count this file as penstock's own: it calls the command line."""
    _launchers.add(path)


def user_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Return the traceback from its first frame in the user's code on; None without such a frame."""
    while traceback is not None and _is_penstock(traceback.tb_frame.f_code):
        traceback = traceback.tb_next
    return traceback


def _is_penstock(code: CodeType) -> bool:
    name = code.co_filename
    return name.startswith(PACKAGE) or name in _launchers or name.startswith(MACHINERY)
