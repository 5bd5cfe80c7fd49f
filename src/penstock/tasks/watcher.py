"""The watcher of one loop: wires its observer to the stall watchdog, the loop's exception handler and the checks.

The checks run in the loop's thread from time to time, each within a budget: lost tasks, tasks that nobody can complete
or that wait for each other, tasks far older than their like, sites that only grow.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from time import monotonic, monotonic_ns, time
from typing import TYPE_CHECKING, Any
from weakref import ref

from penstock.tasks import registry, stalls
from penstock.tasks.abandoned import inspect_context
from penstock.tasks.graph import await_cycles
from penstock.tasks.records import Finding
from penstock.tasks.stuck import stuck_tasks
from penstock.tasks.trends import GrowthWatch
from penstock.tasks.waits import chain

if TYPE_CHECKING:
    from penstock.config import TasksConfig
    from penstock.tasks.native import NativeObserver
    from penstock.tasks.records import Site

__all__ = ["Watcher"]

# How many tasks one check looks at closely, of those that have waited long; the next goes on with others.
EXAMINED = 64
STUCK_BUDGET_S = 0.005
# A site says how long its tasks take once so many have ended.
LEAST_SAMPLES = 100
MOST_TOLD = 100
MOST_NAMES = 10


class Watcher:
    """What looks for trouble in one native loop. Its observer's FindingLog gets what it finds."""

    def __init__(self, loop: Any, observer: NativeObserver, config: TasksConfig) -> None:
        self._loop = ref(loop)
        self._observer = observer
        self._config = config
        self._growth = GrowthWatch()
        self._told: set[int] = set()
        self._examine_from = 0
        registry.register(loop, observer)
        if config.check_s is not None:
            observer.set_check(self.check, config.check_s)

    # --- what the loop tells

    def on_problem(self, context: dict[str, Any]) -> None:
        """A lost task, a failure that nobody has looked at: asyncio tells its exception handler, and us."""
        finding = inspect_context(context)
        if finding is None:
            return
        task = context.get("task") or context.get("future")
        lost = self._observer.lose(task) if finding.kind == "destroyed_pending" else None
        self._add(finding.kind, finding.message, finding.task, lost, dict(finding.evidence))

    def on_close(self) -> None:
        """The loop is about to be closed: what has not ended never will."""
        loop, observer = self._loop(), self._observer
        if loop is None:
            return
        observer.set_check(None)
        left = observer.abandon()
        if left:
            names = [name for _, name in islice(left, MOST_NAMES)]
            count = f"{len(left)} task{'s' if len(left) != 1 else ''}"
            message = f"the loop was closed with {count} pending: {', '.join(names)}; cancel and await them before"
            self._add("loop_closed", message, evidence={"tasks": [f"{name}: {site}" for site, name in left[:100]]})
        registry.unregister(loop)

    # --- what it looks for

    def check(self) -> None:
        """All checks, once. The loop calls it."""
        self._tell_lost()
        self._tell_hung()
        self._tell_growing()
        self._tell_stuck()

    def _tell_lost(self) -> None:
        for lost in self._observer.sweep():
            site = self._observer.site(lost[1])
            message = f"a task was collected before it ended: nobody kept it (created at {site}); keep a reference, "
            self._add("destroyed_pending", message + "or make it by penstock.tasks.spawn()", None, lost)

    def _tell_hung(self) -> None:
        config = self._config
        for task, site, p99_s in self._observer.overdue(config.hung_factor, config.hung_s, LEAST_SAMPLES, MOST_TOLD):
            message = f"task {task.get_name()!r} is far older than others from {site}, 99 % of which end in {p99_s:.3g} s"
            self._add_task("hung", message, task, {"site_p99_s": p99_s})

    def _tell_growing(self) -> None:
        for finding in self._growth.feed(self._observer.sites(), monotonic()):
            self._add(finding.kind, finding.message, site=finding.site, evidence=dict(finding.evidence))

    def _tell_stuck(self) -> None:
        since_ns = monotonic_ns() - int(self._config.stuck_s * 1e9)
        weak, self._examine_from = self._observer.waiting(since_ns, self._examine_from, EXAMINED)
        tasks = [task for found in weak if (task := found()) is not None and not task.done()]
        cycles = await_cycles(tasks)
        in_cycle = {id(task) for cycle in cycles for task in cycle}
        for cycle in cycles:
            shown = " -> ".join(repr(task.get_name()) for task in (*cycle, cycle[0]))
            self._add_once("await_cycle", f"tasks wait for each other: {shown}", cycle[0], {"cycle": shown})
        for stuck in stuck_tasks(tasks, budget_s=STUCK_BUDGET_S):
            if id(stuck.task) not in in_cycle:
                message = f"task {stuck.task.get_name()!r} waits for what nobody can complete: {stuck.waits_for}"
                self._add_once("stuck", message, stuck.task, {})
        self._told &= {id(task) for task in tasks}

    def _add_once(self, kind: str, message: str, task: asyncio.Task[Any], evidence: dict[str, Any]) -> None:
        if id(task) not in self._told:
            self._told.add(id(task))
            self._add_task(kind, message, task, evidence)

    # --- findings

    def _add_task(self, kind: str, message: str, task: asyncio.Task[Any], evidence: dict[str, Any]) -> None:
        evidence["await_chain"] = [str(frame) for frame in chain(task).frames]
        stack = self._observer.creation_stack(task)
        if stack:
            evidence["creation_stack"] = [str(frame) for frame in stack]
        born_s = self._observer.born_s(task)
        self._add(
            kind, message, task.get_name(), evidence=evidence, site=self._observer.site_of_task(task), since_s=born_s
        )

    def _add(
        self,
        kind: str,
        message: str,
        task: str | None = None,
        lost: tuple[Any, ...] | None = None,
        evidence: dict[str, Any] | None = None,
        site: Site | None = None,
        since_s: float = 0.0,
    ) -> None:
        told, now_s = dict(evidence or {}), monotonic()
        if lost is not None:
            _, number, born_ns, steps, stack = lost[:5]
            site = site or self._observer.site(number)
            since_s = born_ns / 1e9
            told |= {"age_s": round(now_s - since_s, 6), "steps": steps}
            if stack:
                told["creation_stack"] = [str(frame) for frame in self._observer.named_stack(stack)]
        since_s = since_s or now_s
        self._observer.findings.add(
            Finding(kind, message, site, task, since_s, time() - (now_s - since_s), self._observer.name, told)
        )
