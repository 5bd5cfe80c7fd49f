"""A place in the code: file, line and function, and the name of the module that the file is.

A module's name is the same in every deployment; a path is not. Knows neither frames nor tasks.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Place", "is_within", "module_of"]

MAIN = "__main__"
# the file name of a notebook's cell contains the process id, so it does not last
_CELL = re.compile(r"[/\\]ipykernel_\d+[/\\]|^<")


@dataclass(frozen=True, slots=True)
class Place:
    """A line of code. `file` is "" for a place without one, such as "other": all sites beyond a limit."""

    file: str
    line: int
    function: str

    @property
    def label(self) -> str:
        """Module and function: a metric's attribute, the same in every deployment."""
        return f"{module_of(self.file)}:{self.function}" if self.file else self.function

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}" if self.file else self.function


@lru_cache(maxsize=4096)
def module_of(file: str) -> str:
    """Return the dotted name of a source file, by the longest entry of sys.path that contains it.

    A file outside sys.path has its own name without the folder; a notebook's cell is "__main__".
    """
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
    """Return whether the module is one of the packages or inside one."""
    return any(module == each or module.startswith(f"{each}.") for each in packages)
