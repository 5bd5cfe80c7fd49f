"""An asyncio loop whose clock jumps to the next timer: hours of waiting in no time, and the same in every run."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["jump"]


T = TypeVar("T")


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def jumping(timeout: float | None = None) -> Any:
            self.now_s += timeout or 0.0
            return select(0)

        self._selector.select = jumping  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now_s


def jump(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end, in virtual time."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)
