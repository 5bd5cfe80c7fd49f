"""Which turnstile semaphores are built on: the native one, or this one where there is none.

`PENSTOCK_PURE=1` chooses this one, as do interpreters that cannot load the extension.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator
    from types import TracebackType

__all__ = ["PlainTurnstile", "Turnstile"]


class Done:
    """An awaitable that is done: cheaper than a coroutine that does not wait."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return _NOTHING  # type: ignore[return-value]


# an iterator that has ended ends again each time
_NOTHING = iter(())
_DONE = Done()


class PlainTurnstile:
    """`penstock._core.turnstile.Turnstile`, in Python: there is written what it does."""

    _wait: Any

    def __init__(self, value: int, bound: int, line: Any) -> None:
        self._value = value
        self._bound_value = bound
        self._granted = 0
        self._line = line

    def _take(self) -> bool:
        if self._value > 0 and not self._granted and not self._line:
            self._value -= 1
            return True
        return False

    def release(self) -> None:
        """Give a permit back; the first that waits gets it. ValueError beyond the bound, if there is one."""
        if self._value >= self._bound_value:
            raise ValueError("BoundedSemaphore released too many times")
        self._value += 1
        if self._line:
            self._wake_next()

    def _wake_next(self) -> bool:
        line = self._line
        while line:
            future = line.popleft()
            if not future.done():
                self._value -= 1
                self._granted += 1
                future.set_result(True)
                return True
            line.passed_over()
        return False

    def __aenter__(self) -> Awaitable[None]:
        return _DONE if self._take() else self._wait()

    def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> Awaitable[None]:
        PlainTurnstile.release(self)
        return _DONE


if TYPE_CHECKING:
    Turnstile = PlainTurnstile
else:
    Turnstile = PlainTurnstile
    if os.environ.get("PENSTOCK_PURE") != "1":
        try:
            from penstock._core.turnstile import Turnstile
        except ImportError:
            pass  # not built, or a subinterpreter
