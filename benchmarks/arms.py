"""The arms: the event loops that are compared, how each is made, and which of them this interpreter has.

An arm may carry a label after a colon (`asyncio:again`): the same loop twice, which shows the noise of the method.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import platform
from collections.abc import Callable
from typing import Any

from benchmarks.tasks.arms import ARMS as WATCHED

__all__ = ["ARMS", "LIMIT", "available", "describe", "new_loop"]

LIMIT = "C"  # the C echo server: an arm of the echo rows only, never a rival


def _asyncio_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop()


def _module_loop(module: str, attribute: str) -> Callable[[], asyncio.AbstractEventLoop]:
    def make() -> asyncio.AbstractEventLoop:
        loop: Any = getattr(importlib.import_module(module), attribute)()
        assert isinstance(loop, asyncio.AbstractEventLoop)
        return loop

    return make


ARMS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": _asyncio_loop,
    "uvloop": _module_loop("uvloop", "new_event_loop"),
    "rloop": _module_loop("rloop", "new_event_loop"),
    "penstock": _module_loop("penstock.loop", "EventLoop"),
}


def new_loop(arm: str) -> asyncio.AbstractEventLoop:
    """A new loop of the arm, `tasks` arms included; KeyError for an unknown one, ImportError where it is missing."""
    kind = _kind(arm)
    return ARMS[kind]() if kind in ARMS else WATCHED[kind].make()


def available(wanted: list[str]) -> tuple[list[str], list[str]]:
    """Split the wanted arms into those that work here and one line for each that does not."""
    present: list[str] = []
    missing: list[str] = []
    for arm in wanted:
        reason = _failure(arm)
        if reason is None:
            present.append(arm)
        else:
            missing.append(f"{arm} is left out: {reason}")
    return present, missing


def describe(arm: str) -> str:
    """The version behind an arm, and for penstock whether its native loop is there."""
    kind = _kind(arm)
    if kind == "asyncio":
        return f"CPython {platform.python_version()}"
    try:
        version = importlib.metadata.version(kind)
    except importlib.metadata.PackageNotFoundError:
        version = str(getattr(importlib.import_module(kind), "__version__", "version unknown"))
    if kind == "penstock":
        native = getattr(importlib.import_module("penstock.loop"), "NATIVE", False)
        version += " (native)" if native else " (selector: no native extension)"
    return version


def _kind(arm: str) -> str:
    return arm.partition(":")[0]


def _failure(arm: str) -> str | None:
    if _kind(arm) not in ARMS:
        return f"no such arm; there are {', '.join(ARMS)}"
    try:
        new_loop(arm).close()
    except Exception as error:  # a broken rival is one absent column, not a failed run
        return f"{type(error).__name__}: {error}"
    return None
