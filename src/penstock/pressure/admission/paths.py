"""Sets of URL paths: whole paths, and prefixes that end in `/*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PathSet"]


class PathSet:
    """A set of URL paths. `/events/*` contains all paths below `/events/`; any other item contains itself."""

    __slots__ = ("_prefixes", "_whole")

    def __init__(self, paths: Iterable[str]) -> None:
        row = (paths,) if isinstance(paths, str) else tuple(paths)
        self._whole = frozenset(path for path in row if not path.endswith("/*"))
        self._prefixes = tuple(path[:-1] for path in row if path.endswith("/*"))

    def __contains__(self, path: str) -> bool:
        return path in self._whole or (bool(self._prefixes) and path.startswith(self._prefixes))
