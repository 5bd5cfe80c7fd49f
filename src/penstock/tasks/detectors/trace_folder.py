"""The folder of traces: the names of its files, each file complete or absent, and the bound on their number.

The bound holds for all files that penstock has written there, also those of former and other processes.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["TraceFolder", "file_name"]

NAME = re.compile(r"[\w.-]+-\d+-[a-z_]+-(\d{8}T\d{6}\.\d{3}Z)\.json")
PART = ".part"
# a process that was killed while it wrote leaves a part; no writer takes so long
LONGEST_WRITE_S = 60.0


def file_name(loop: str, kind: str, wall_time_s: float) -> str:
    """Return the name of a trace: the loop, the process, the finding's kind and the time in UTC."""
    at = datetime.fromtimestamp(wall_time_s, UTC)
    moment = f"{at:%Y%m%dT%H%M%S}.{at.microsecond // 1000:03}Z"
    plain = re.sub(r"[^\w.-]", "_", loop)
    return f"{plain}-{os.getpid()}-{kind}-{moment}.json"


class TraceFolder:
    """The folder at `path`, with at most `most_files` traces: a new one replaces the oldest."""

    def __init__(self, path: str, most_files: int) -> None:
        self._path = path
        self._most_files = most_files

    def save(self, name: str, parts: Iterable[bytes]) -> None:
        """Write a file; it is complete or not there. Raises OSError."""
        path = os.path.join(self._path, name)
        # first to make room, then for the files that other processes have written meanwhile
        self._prune(self._most_files - 1, name)
        try:
            with open(path + PART, "wb") as stream:
                stream.writelines(parts)
            os.replace(path + PART, path)
        except OSError:
            with suppress(OSError):
                os.unlink(path + PART)
            raise
        self._prune(self._most_files - 1, name)

    def _prune(self, most_others: int, name: str) -> None:
        """Remove the oldest traces but for the file `name` and `most_others`, and the parts that processes left."""
        others = sorted((each for each in self._traces() if each[1] != name), reverse=True)
        for _, old in others[most_others:]:
            self._remove(old)
        for part in self._old_parts():
            self._remove(part)

    def _traces(self) -> Iterator[tuple[str, str]]:
        """Yield the time and the name of each trace."""
        for name in os.listdir(self._path):
            found = NAME.fullmatch(name)
            if found is not None:
                yield found[1], name

    def _old_parts(self) -> Iterator[str]:
        before_s = time.time() - LONGEST_WRITE_S
        for name in os.listdir(self._path):
            if name.endswith(PART) and NAME.fullmatch(name.removesuffix(PART)) is not None:
                with suppress(OSError):
                    if os.lstat(os.path.join(self._path, name)).st_mtime < before_s:
                        yield name

    def _remove(self, name: str) -> None:
        # another process may have removed it
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self._path, name))
