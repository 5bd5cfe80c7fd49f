"""The arms of task telemetry: penstock's loop at each level, the bare loops, and other monitors of tasks.

`penstock@time` is penstock's loop at that level, `factory@uvloop` penstock's TaskFactory on uvloop's loop. aiomonitor
and OpenTelemetry are on stock asyncio's: the factory of the former fails on uvloop's. Nothing is imported until used.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from benchmarks.method.trial import base_arm

__all__ = ["ARMS", "available", "describe", "has_levels", "observer"]

LEVELS = ("off", "count", "time", "trace")
Loop = asyncio.AbstractEventLoop
# references that must live as long as the loop
_kept: list[Any] = []


def _asyncio(debug: bool = False) -> Loop:
    loop = asyncio.SelectorEventLoop()
    loop.set_debug(debug)
    return loop


def _uvloop() -> Loop:
    loop: Loop = importlib.import_module("uvloop").new_event_loop()
    return loop


def _penstock(level: str) -> Loop:
    import penstock

    if has_levels():
        os.environ["PENSTOCK_TASKS_LEVEL"] = level
    return penstock.new_event_loop()


def _factory(make: Callable[[], Loop]) -> Loop:
    from penstock.tasks.observers.factory import TaskFactory

    loop = make()
    loop.set_task_factory(TaskFactory())
    return loop


def _aiomonitor() -> Loop:
    loop = _asyncio()
    start = importlib.import_module("aiomonitor").start_monitor
    # any free port: several may run at once
    _kept.append(start(loop, port=0, webui_port=0, console_enabled=False, hook_task_factory=True))
    return loop


def _opentelemetry() -> Loop:
    from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    meters = MeterProvider(metric_readers=[InMemoryMetricReader()])
    AsyncioInstrumentor().instrument(meter_provider=meters, tracer_provider=TracerProvider())
    return _asyncio()


@dataclass(frozen=True, slots=True)
class Arm:
    """The making of the loop, the modules it needs, and the description in the notes."""

    make: Callable[[], Loop]
    modules: tuple[str, ...]
    what: str


ARMS: dict[str, Arm] = {
    "asyncio": Arm(_asyncio, (), "bare"),
    "asyncio-debug": Arm(partial(_asyncio, debug=True), (), "debug mode"),
    "aiomonitor": Arm(_aiomonitor, ("aiomonitor",), "its monitor and task factory, on asyncio"),
    "opentelemetry": Arm(
        _opentelemetry,
        ("opentelemetry.instrumentation.asyncio", "opentelemetry.sdk"),
        "the asyncio instrumentor, metrics in memory, on asyncio",
    ),
    "factory@asyncio": Arm(partial(_factory, _asyncio), ("penstock",), "TaskFactory at level time, on asyncio"),
    "uvloop": Arm(_uvloop, ("uvloop",), "bare"),
    "factory@uvloop": Arm(partial(_factory, _uvloop), ("penstock", "uvloop"), "TaskFactory at level time, on uvloop"),
    **{f"penstock@{level}": Arm(partial(_penstock, level), ("penstock",), f"level {level}") for level in LEVELS},
}
DISTRIBUTIONS = {"opentelemetry": "opentelemetry-instrumentation-asyncio"}


def has_levels() -> bool:
    """Return whether this penstock has levels of telemetry; without them every level measures the same."""
    from penstock import TasksConfig

    return any(item.name == "level" for item in fields(TasksConfig))


def observer(loop: Loop) -> Any:
    """Return the observer of the loop's tasks, None on other loops and at level off."""
    from penstock.tasks.observers.registry import observer_of

    found = observer_of(loop)
    return None if found is None or found.statistics().level == "off" else found


def available(wanted: list[str]) -> tuple[list[str], list[str]]:
    """Split the wanted arms into the installed ones and a line for each other one."""
    reasons = {arm: _failure(arm) for arm in wanted}
    missing = [f"{arm} is left out: {reason}" for arm, reason in reasons.items() if reason is not None]
    return [arm for arm, reason in reasons.items() if reason is None], missing


def describe(arm: str) -> str:
    """Return the version behind an arm, and its use."""
    known, name = ARMS[base_arm(arm)], arm.partition("@")[0]
    if not known.modules:
        return f"CPython {platform.python_version()}, {known.what}"
    distribution = DISTRIBUTIONS.get(name, "penstock" if name == "factory" else name)
    version = importlib.metadata.version(distribution)
    lacks_levels = name == "penstock" and not has_levels()
    return f"{version}, {known.what}{' (this build has no levels)' if lacks_levels else ''}"


def _failure(arm: str) -> str | None:
    kind = base_arm(arm)
    if kind not in ARMS:
        return f"no such arm; there are {', '.join(ARMS)}"
    try:
        missing = [name for name in ARMS[kind].modules if importlib.util.find_spec(name) is None]
    except ModuleNotFoundError as error:
        missing = [error.name or str(error)]
    return f"{', '.join(missing)} not installed" if missing else None
