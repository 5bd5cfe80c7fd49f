"""The core of gates and semaphores: the native one, or its Python source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock import core_source

if TYPE_CHECKING:
    from penstock._core.sync.gate import REASONS, Entry, GateCore
    from penstock._core.sync.turnstile import Turnstile
    from penstock._core.sync.waiting import DONE, Waiter

__all__ = ["DONE", "REASONS", "Entry", "GateCore", "Turnstile", "Waiter", "plain"]


def plain(name: str) -> Any:
    """Return the core's module of that name as plain Python, whether it is built or not."""
    return core_source.plain("sync", name)


if not TYPE_CHECKING:
    _gate = core_source.chosen("sync", "gate")
    REASONS, Entry, GateCore = _gate.REASONS, _gate.Entry, _gate.GateCore
    Turnstile = core_source.chosen("sync", "turnstile").Turnstile
    _waiting = core_source.chosen("sync", "waiting")
    DONE, Waiter = _waiting.DONE, _waiting.Waiter
