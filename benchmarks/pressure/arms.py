"""The arms of overload: a service on uvicorn without a guard, with Python's own guards, and with penstock's gate.

Arms that take a number get the true capacity of the service; `penstock@auto` gets none.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from benchmarks.method.trial import base_arm
from benchmarks.pressure.services import SLOTS, App, Message, Receive, Send

__all__ = ["ARMS", "DEADLINE_S", "Arm", "available", "describe", "has_loop_gate", "plain_loop"]

Loop = asyncio.AbstractEventLoop
DEADLINE_S = 0.1  # the client gives up after it
# The backend's slots and 16 more: the best count while the backend has its full speed.
LIMIT_CONCURRENCY = SLOTS + 16
LAG_HIGH_S = 0.01


def _asyncio() -> Loop:
    return asyncio.SelectorEventLoop()


def _penstock() -> Loop:
    import penstock

    return penstock.new_event_loop()


def _gated() -> Loop:
    if has_loop_gate():
        os.environ["PENSTOCK_PRESSURE_LAG_HIGH_S"] = str(LAG_HIGH_S)
    return _penstock()


def plain_loop(arm: str) -> Loop:
    """Return the arm's loop without the loop's own gate."""
    return _penstock() if arm.startswith("penstock") else _asyncio()


def has_loop_gate() -> bool:
    """Return whether this penstock's loop has a gate of its own."""
    from penstock import PressureConfig

    return any(item.name == "lag_high_s" for item in fields(PressureConfig))


def _bare(app: App) -> App:
    return app


def _semaphore(app: App) -> App:
    semaphore = asyncio.Semaphore(SLOTS)

    async def guarded(scope: Message, receive: Receive, send: Send) -> None:
        async with semaphore:
            await app(scope, receive, send)

    return guarded


def _gate(limit: Any) -> Callable[[App], App]:
    def guard(app: App) -> App:
        from penstock import Gate
        from penstock.integrations.admission import AdmissionMiddleware

        guarded: App = AdmissionMiddleware(app, gate=Gate(limit=limit, deadline_s=DEADLINE_S))
        return guarded

    return guard


@dataclass(frozen=True, slots=True)
class Arm:
    """The loop, the guard around the service, uvicorn's own limit, and the description in the notes."""

    loop: Callable[[], Loop]
    guard: Callable[[App], App]
    what: str
    limit_concurrency: int | None = None


ARMS: dict[str, Arm] = {
    "asyncio": Arm(_asyncio, _bare, "no guard"),
    "semaphore": Arm(_asyncio, _semaphore, f"asyncio.Semaphore({SLOTS}) around the service"),
    "limit-concurrency": Arm(
        _asyncio, _bare, f"uvicorn --limit-concurrency {LIMIT_CONCURRENCY}", limit_concurrency=LIMIT_CONCURRENCY
    ),
    "penstock@fixed": Arm(_gated, _gate(SLOTS), f"Gate(limit={SLOTS}, deadline_s={DEADLINE_S}) and the loop's gate"),
    "penstock@auto": Arm(_gated, _gate("auto"), f'Gate(limit="auto", deadline_s={DEADLINE_S}) and the loop\'s gate'),
}


def available(wanted: list[str]) -> tuple[list[str], list[str]]:
    """Split the wanted arms into the available ones and a line for each other one."""
    reasons = {arm: _failure(arm) for arm in wanted}
    missing = [f"{arm} is left out: {reason}" for arm, reason in reasons.items() if reason is not None]
    return [arm for arm, reason in reasons.items() if reason is None], missing


def describe(arm: str) -> str:
    """Return the version behind an arm, and its guard."""
    if arm.startswith("penstock"):
        without = "" if has_loop_gate() else " (this build has none)"
        return f"{importlib.metadata.version('penstock')}, {ARMS[base_arm(arm)].what}{without}"
    return f"CPython {platform.python_version()}, {ARMS[base_arm(arm)].what}"


def _failure(arm: str) -> str | None:
    if base_arm(arm) not in ARMS:
        return f"no such arm; there are {', '.join(ARMS)}"
    missing = [name for name in ("uvicorn", "httptools") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    return _missing_gate() if arm.startswith("penstock") else None


@cache
def _missing_gate() -> str | None:
    try:
        _gate(SLOTS)(_bare)  # type: ignore[arg-type]
    except (ImportError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None
