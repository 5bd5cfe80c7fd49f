"""Starts the overload protection of a loop: its lag, deferred reads and accepts, and the bound on its tasks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from weakref import ref

from penstock.loop.native import native_core

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.config import PressureConfig
    from penstock.loop import EventLoop
    from penstock.pressure.overload.tasks import TaskLimit

__all__ = ["gate_loop"]

logger = logging.getLogger("penstock.pressure")

MOST_SITES = 3
DEFER_LAGS = 5


def gate_loop(loop: EventLoop, config: PressureConfig, notify: Callable[[str, str, int], None] | None = None) -> None:
    """Start overload protection; `notify(kind, text, took_ns)` is called after each overload.

    Without its keys nothing is imported.
    """
    loop.set_max_connections(config.max_connections)
    if config.lag_high_s is None and config.max_tasks is None:
        return
    from penstock.pressure.overload.loop import LoopGate

    lag = None
    if config.lag_high_s is not None:
        lag = _lag(loop, config)
    tasks = None if config.max_tasks is None else _bounded(loop, config.max_tasks, config.tasks_full)
    gate = LoopGate(loop, lag=lag, notify=notify, tasks=tasks)
    if lag is not None:
        lag.report = gate.on_change
        gate.watch(closes_abandoned=config.close_abandoned)
        if config.health_paths:
            from penstock._core.overload.urgent import UrgentRequests

            core = native_core(loop)
            assert core is not None
            core.deferred_accepts.urgent = UrgentRequests([path.encode() for path in config.health_paths])


def _lag(loop: Any, config: PressureConfig) -> Any:
    if native_core(loop) is None:
        logger.warning("pressure.lag_high_s has no effect: asyncio's loop does not measure its lag")
        return None
    from penstock._core.overload.lag import Lag

    assert config.lag_high_s is not None
    low_s = config.lag_high_s / 2 if config.lag_low_s is None else config.lag_low_s
    return Lag(
        high_ns=int(config.lag_high_s * 1e9),
        low_ns=max(int(low_s * 1e9), 1),
        for_ns=int(config.lag_for_s * 1e9),
        defer_ns=int(_defer_s(config.lag_high_s, config) * 1e9),
    )


def _defer_s(high_s: float, config: PressureConfig) -> float:
    if config.defer_s is not None:
        return config.defer_s
    return DEFER_LAGS * high_s if config.deadline_s is None else min(DEFER_LAGS * high_s, config.deadline_s / 2)


def _bounded(loop: Any, most: int, full: str) -> TaskLimit:
    from penstock.pressure.overload.tasks import CountedTasks, TaskLimit
    from penstock.tasks.spawning import limit_spawns

    weak, core = ref(loop), native_core(loop)
    if core is not None:
        ledger = core.probe.ledger
        limit = TaskLimit(
            most,
            full,
            live=lambda: int(ledger.live),
            want_room=lambda on_room: _want_room(weak(), on_room),
            busiest=lambda: _busiest(weak()),
        )
        core.limit_tasks(most, limit.on_full)
    else:
        counted, former = CountedTasks(), loop.get_task_hook()
        limit = counted.limit = TaskLimit(
            most, full, live=counted.live, want_room=counted.want_room, busiest=lambda: _busiest(weak())
        )
        loop.set_task_hook(counted.hook_before(former))
    if full == "wait":
        limit_spawns(loop, limit.room)
    return limit


def _want_room(loop: Any, on_room: Callable[[], None] | None) -> None:
    core = native_core(loop)
    if core is not None:
        core.watch_room(on_room)


def _busiest(loop: Any) -> str:
    """Return the sites with the most live tasks as text; empty without telemetry."""
    from penstock.tasks.observers.registry import observer_of

    observer = None if loop is None else observer_of(loop)
    sites = [] if observer is None else sorted(observer.sites(), key=lambda site: -site.live)[:MOST_SITES]
    return ", ".join(f"{site.site} ({site.live})" for site in sites if site.live)
