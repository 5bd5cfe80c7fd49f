"""Puts penstock's loops wherever asyncio would make its own, so that CPython's tests run on them unchanged.

Must run before any test module is imported: several of them read `asyncio.EventLoop` in a class body. Loops that the
tests derive from `BaseEventLoop` with mocks in place of the selector stay as they are: they are the tests' own.
"""

import asyncio
import selectors
import threading
from asyncio import unix_events
from collections.abc import Callable
from typing import Any

import penstock
from penstock.runtime import build

LOOPS = ("SelectorEventLoop", "EventLoop", "_UnixSelectorEventLoop")
POLICIES = ("DefaultEventLoopPolicy", "_UnixDefaultEventLoopPolicy", "_DefaultEventLoopPolicy")

# what the builder makes its loop of in this thread, while a class of loops is being called
asked = threading.local()


class Built(type):
    """The metaclass of loops whose call is `penstock.new_event_loop()`; the builder asks only which class it takes."""

    def __call__(cls, selector: selectors.BaseSelector | None = None) -> Any:
        """Have the builder make a loop of this class. asyncio's own argument is closed unused."""
        if selector is not None:
            selector.close()
        asked.maker = cls.bare
        try:
            return penstock.new_event_loop()
        finally:
            del asked.maker

    def bare(cls, *config: Any) -> Any:
        """Make the loop alone, as the builder does first."""
        return super().__call__(*config)


class ConformanceLoop(penstock.EventLoop, metaclass=Built):
    """The class behind asyncio's names; counts its loops."""

    made = 0

    def __init__(self, *config: Any) -> None:
        ConformanceLoop.made += 1
        super().__init__(*config)


def replace_loops() -> None:
    """Have every loop made by penstock's own builder, by the environment's config, and penstock's policy for asyncio's.

    Loops that penstock's policy and functions make are of the same class, so that they are counted too.
    """
    ConformanceLoop.__name__ = ConformanceLoop.__qualname__ = "EventLoop"
    build.loop_class = _loop_class  # type: ignore[assignment]
    _replace(LOOPS, ConformanceLoop)
    _replace(POLICIES, penstock.EventLoopPolicy)


def _loop_class(poller: str) -> Callable[..., Any]:
    return getattr(asked, "maker", ConformanceLoop.bare)


def _replace(names: tuple[str, ...], value: object) -> None:
    for module in (asyncio, unix_events):
        for name in names:
            if name in vars(module):
                setattr(module, name, value)
