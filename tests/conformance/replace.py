"""Puts one loop class wherever asyncio would make its own, so that CPython's tests run on it unchanged.

Must run before any test module is imported: several of them read `asyncio.EventLoop` in a class body. Loops that the
tests derive from `BaseEventLoop` with mocks in place of the selector stay as they are: they are the tests' own.
"""

import asyncio
import selectors
from asyncio import unix_events
from typing import Any

NAMES = ("SelectorEventLoop", "EventLoop", "_UnixSelectorEventLoop")
POLICIES = ("DefaultEventLoopPolicy", "_UnixDefaultEventLoopPolicy", "_DefaultEventLoopPolicy")


def counted(base: type[asyncio.AbstractEventLoop]) -> type[asyncio.AbstractEventLoop]:
    """A subclass of `base` that takes asyncio's `selector` argument (and closes it unused) and counts its loops."""

    class ConformanceLoop(base):  # type: ignore[misc, valid-type]
        made = 0

        def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
            if selector is not None:
                selector.close()
            ConformanceLoop.made += 1
            super().__init__()

    ConformanceLoop.__name__ = ConformanceLoop.__qualname__ = base.__name__
    return ConformanceLoop


def replace_loops(loop: type[asyncio.AbstractEventLoop]) -> None:
    """Make `loop` the class behind every public and private name that asyncio's unix code makes loops from."""
    for module in (asyncio, unix_events):
        _replace_names(module, loop)
    for policy in _policies():
        policy._loop_factory = loop


def _replace_names(module: Any, loop: type[asyncio.AbstractEventLoop]) -> None:
    for name in NAMES:
        if hasattr(module, name):
            setattr(module, name, loop)


def _policies() -> set[Any]:
    return {vars(unix_events)[name] for name in POLICIES if name in vars(unix_events)}
