"""Async tests, each run on asyncio's loop and on penstock's, in a bounded time, with no task left over."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from penstock.loop import EventLoop

FACTORIES: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "on-asyncio": asyncio.SelectorEventLoop,
    "on-penstock": EventLoop,
}
TIMEOUT_S = 20.0


def looped(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test function of an async one, for each loop."""

    @functools.wraps(test)
    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **given: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(TIMEOUT_S):
                await test(**given)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(bounded())

    signature = inspect.signature(test)
    factory = inspect.Parameter("loop_factory", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = signature.replace(parameters=[factory, *signature.parameters.values()])  # type: ignore[attr-defined]
    return pytest.mark.parametrize("loop_factory", FACTORIES.values(), ids=FACTORIES.keys())(run)


async def turns(count: int = 3) -> None:
    """Let whatever is ready run, and what that makes ready."""
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and see them end by it."""
    for task in tasks:
        task.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*tasks, return_exceptions=True))
