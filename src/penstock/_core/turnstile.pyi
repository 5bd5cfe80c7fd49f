from collections.abc import Awaitable
from types import TracebackType
from typing import Any

from typing_extensions import disjoint_base

__all__ = ["Turnstile"]

@disjoint_base
class Turnstile:
    _value: int
    _bound_value: int
    _granted: int
    _line: Any
    def __init__(self, value: int, bound: int, line: Any) -> None: ...
    def _wake_next(self) -> bool: ...
    def _take(self) -> bool: ...
    def release(self) -> None: ...
    def __aenter__(self) -> Awaitable[None]: ...
    def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> Awaitable[None]: ...
