"""The arms of the loops: the event loops that are compared, and how each is made.

An arm may carry a label after a colon: `penstock:again` is a second copy of `penstock`.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import platform
from collections.abc import Callable

from benchmarks.method.trial import base_arm
from benchmarks.tasks.arms import ARMS as TASK_ARMS

__all__ = ["ARMS", "available", "describe", "new_loop"]


def _asyncio_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop()


def _module_loop(module: str, attribute: str) -> Callable[[], asyncio.AbstractEventLoop]:
    def make() -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = getattr(importlib.import_module(module), attribute)()
        return loop

    return make


ARMS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": _asyncio_loop,
    "uvloop": _module_loop("uvloop", "new_event_loop"),
    "rloop": _module_loop("rloop", "new_event_loop"),
    "rsloop": _module_loop("rsloop", "new_event_loop"),
    "zuvloop": _module_loop("zuvloop", "new_event_loop"),
    "penstock": _module_loop("penstock", "new_event_loop"),
}


def new_loop(arm: str) -> asyncio.AbstractEventLoop:
    """Return a new loop of an arm of the loops or of the tasks. KeyError: unknown; ImportError: not installed."""
    kind = base_arm(arm)
    return ARMS[kind]() if kind in ARMS else TASK_ARMS[kind].make()


def available(wanted: list[str]) -> tuple[list[str], list[str]]:
    """Split the wanted arms into the ones that work here and a line for each other one."""
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
    """Return the version behind an arm, and for penstock whether its native loop is there."""
    kind = base_arm(arm)
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


def _failure(arm: str) -> str | None:
    if base_arm(arm) not in ARMS:
        return f"no such arm; there are {', '.join(ARMS)}"
    try:
        new_loop(arm).close()
    except Exception as error:  # a broken arm costs one column, not the run
        return f"{type(error).__name__}: {error}"
    return None
