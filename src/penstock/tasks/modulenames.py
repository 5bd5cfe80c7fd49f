"""The module that a source file is, by name: it stays the same from one deployment to the next, as no path does."""

from __future__ import annotations

import os
import re
import sys
from functools import lru_cache

__all__ = ["is_within", "module_of"]

MAIN = "__main__"
# the file name of a notebook's cell has the process's number, and so does not last
_CELL = re.compile(r"[/\\]ipykernel_\d+[/\\]|^<")


@lru_cache(maxsize=4096)
def module_of(file: str) -> str:
    """Return the dotted name, by the longest entry of sys.path that the file lies in; else the file's own name."""
    if _CELL.search(file):
        return MAIN
    path = os.path.splitext(os.path.abspath(file))[0]
    folders = (os.path.join(os.path.abspath(entry), "") for entry in sys.path)
    folder = max((each for each in folders if path.startswith(each)), key=len, default="")
    parts = path[len(folder) :].split(os.sep) if folder else [os.path.basename(path)]
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    """Return whether the module is one of the packages, or in one."""
    return any(module == each or module.startswith(f"{each}.") for each in packages)
