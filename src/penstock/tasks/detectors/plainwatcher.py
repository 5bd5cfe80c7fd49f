"""The watcher of asyncio's own loop as penstock makes it: what can be found without a probe.

Failures nobody asked for, what a closed loop leaves, tasks far older than their like, sites that only grow. Lost tasks
are the factory's to tell. No stalls: a loop without heartbeat cannot be watched from outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from penstock.tasks.detectors.abandoned import inspect_context, left_behind
from penstock.tasks.detectors.trends import GrowthWatch, HungWatch
from penstock.tasks.observers import registry

if TYPE_CHECKING:
    import asyncio

    from penstock.config import TasksConfig
    from penstock.tasks.observers.factory import TaskFactory

__all__ = ["PlainWatcher"]


class PlainWatcher:
    """What looks for trouble in one selector loop of penstock's; its factory's FindingLog gets what it finds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, factory: TaskFactory, config: TasksConfig) -> None:
        self._loop = ref(loop)
        self._factory = factory
        self._hung = HungWatch(config.hung_factor, config.hung_s)
        self._growth = GrowthWatch()
        self._check_s = config.check_s
        if config.check_s is not None:
            loop.call_later(config.check_s, self._check)

    def on_problem(self, context: dict[str, Any]) -> None:
        """As `Watcher.on_problem`, but for lost tasks."""
        finding = inspect_context(context, loop=self._factory.name or "")
        if finding is not None and finding.kind != "destroyed_pending":
            self._factory.findings.add(finding)

    def on_close(self) -> None:
        """The loop is about to be closed: what has not ended never will."""
        left, loop = [(task.site, task.name) for task in self._factory.live()], self._loop()
        if left:
            self._factory.findings.add(left_behind(left, self._factory.name or ""))
        if loop is not None:
            registry.unregister(loop)

    def _check(self) -> None:
        loop, sites = self._loop(), self._factory.sites()
        for finding in (*self._hung.look(self._factory.live(), sites), *self._growth.look(sites)):
            self._factory.findings.add(finding)
        if loop is not None and self._check_s is not None:
            loop.call_later(self._check_s, self._check)
