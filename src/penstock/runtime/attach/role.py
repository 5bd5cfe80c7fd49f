"""The role of this process among others: the program that it runs, and its place under a supervisor."""

from __future__ import annotations

import os
import re
import sys
from typing import NamedTuple

__all__ = ["ProcessRole", "program_name"]

# the part of a command line that names a program; the rest may be secret
PLAIN_WORD = re.compile(r"[\w./-]+(:[\w.]+(\(\))?)?")
MOST_NAME_CHARS = 60


class ProcessRole(NamedTuple):
    """The program in short, and the numbers of a worker and its supervisor; None in any other process."""

    program: str = ""
    supervisor: int | None = None
    number: int | None = None


def program_name() -> str:
    """Return the program in short: `serve app:app`, `echo.py`, `-m package`. Never its other arguments."""
    words = getattr(sys, "orig_argv", sys.argv)
    path = sys.argv[0] if sys.argv else ""
    name = os.path.basename(path)
    if name == "__main__.py":
        at = words.index("-m") + 1 if "-m" in words else len(words)
        name = f"-m {words[at]}" if at < len(words) else os.path.basename(os.path.dirname(path))
    if name in {"penstock", "-m penstock"} and len(sys.argv) > 1:
        name = _command(sys.argv[1:])
    return name[:MOST_NAME_CHARS] or "python"


def _command(words: list[str]) -> str:
    """Return a command of penstock's with the application that it serves."""
    named = (word for word in words[1:] if ":" in word and PLAIN_WORD.fullmatch(word))
    return " ".join([words[0], *list(named)[:1]]) if PLAIN_WORD.fullmatch(words[0]) else "penstock"
