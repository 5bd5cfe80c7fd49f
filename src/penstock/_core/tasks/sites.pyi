from collections.abc import Callable
from types import CodeType
from typing import Any, Self

from typing_extensions import disjoint_base

from penstock._core.tasks.rows import RawStack

INNER_FOLDERS: tuple[str, ...]

@disjoint_base
class TaskSites:
    skips: Callable[[str], bool] | None
    def __new__(cls, limit: int = 1024) -> Self: ...
    @property
    def sites(self) -> list[tuple[CodeType, int] | None]: ...
    def inner(self, code: CodeType, is_boundary: bool) -> int: ...
    def find(self, coro: Any = None) -> int: ...

def stack_here() -> RawStack: ...
