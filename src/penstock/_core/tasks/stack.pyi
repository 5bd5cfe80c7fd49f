from collections.abc import Callable
from types import CodeType
from typing import Any

from typing_extensions import disjoint_base

PROBES: str

@disjoint_base
class Comparison:
    def see(self) -> None: ...
    def compare(self, inner: Callable[..., Any], outer: Callable[..., Any]) -> bool: ...

def verify() -> bool: ...
def frames_of_python(most: int) -> list[tuple[CodeType, int]]: ...
