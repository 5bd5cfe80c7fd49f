"""The watcher of one loop: wires its observer to the stall watchdog, the loop's exception handler and the checks.

The checks run in the loop's thread from time to time, each within a budget: lost tasks, tasks that nobody can complete
or that wait for each other, tasks far older than their like, sites that only grow.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic, monotonic_ns, time
from typing import TYPE_CHECKING, Any
from weakref import ref

from penstock.tasks.detectors.abandoned import inspect_context, left_behind, unwatch_unawaited, watch_unawaited
from penstock.tasks.detectors.stalls import stall_watch
from penstock.tasks.finding import Finding
from penstock.tasks.flighttrace import Event
from penstock.tasks.observers import registry

if TYPE_CHECKING:
    from penstock.config import TasksConfig
    from penstock.tasks.detectors.stuck import StuckSearch
    from penstock.tasks.detectors.trends import GrowthWatch
    from penstock.tasks.finding import Site
    from penstock.tasks.observers.native import Lost, NativeObserver

__all__ = ["Watcher"]

logger = logging.getLogger("penstock.tasks")

# How many tasks one check looks at closely, of those that have waited long; the next goes on with others.
EXAMINED = 256
STUCK_BUDGET_S = 0.005
# A site says how long its tasks take once so many have ended.
LEAST_SAMPLES = 100
MOST_TOLD = 100
LEAST_BETWEEN_TRACES_S = 10.0
MOST_TRACES = 20


class Watcher:
    """What looks for trouble in one native loop. Its observer's FindingLog gets what it finds."""

    def __init__(self, loop: Any, observer: NativeObserver, config: TasksConfig) -> None:
        def loop_is_gone(_: object, is_ending: Any = sys.is_finalizing, unwatch: Any = unwatch_unawaited) -> None:
            # called at the interpreter's end too, when the names of modules are gone
            if not is_ending():
                unwatch(self._on_unawaited)

        self._loop = ref(loop, loop_is_gone)
        self._observer = observer
        self._config = config
        self._growth: GrowthWatch | None = None
        self._told: set[int] = set()
        self._examine_from = 0
        self._search: StuckSearch | None = None
        self._traced_s, self._trace_count = -LEAST_BETWEEN_TRACES_S, 0
        registry.register(loop, observer)
        if config.check_s is not None:
            observer.set_check(self.check, config.check_s)
        if config.stall_s is not None:
            stall_watch.watch(loop, observer.heartbeat, config.stall_s, observer.findings, name=observer.name)
        watch_unawaited(self._on_unawaited)
        observer.findings.listen(self._on_finding)

    def _on_finding(self, finding: Finding) -> None:
        """The flight recorder keeps what was found; of a stall it writes down what came before, if it is told where."""
        at_ns, took_ns = int(finding.since_s * 1e9), int(finding.evidence.get("lasted_s", 0) * 1e9)
        kind = "stall" if finding.kind == "stall" else "finding"
        self._observer.note(Event(at_ns, took_ns, kind, 0, finding.message))
        if kind == "stall" and self._config.trace_dir is not None:
            self._write_trace(self._config.trace_dir)

    def _write_trace(self, folder: str) -> None:
        # one a moment, and never more than the newest few: a loop that stalls all the time fills no disk
        if monotonic() - self._traced_s < LEAST_BETWEEN_TRACES_S:
            return
        self._traced_s = monotonic()
        self._trace_count += 1
        path = Path(folder) / f"{self._observer.name}-{os.getpid()}-stall-{self._trace_count % MOST_TRACES}.json"
        from penstock.tasks.flighttrace import write

        try:
            write(path, [(self._observer.name, self._observer.events())])
        except OSError as error:
            logger.warning("the trace of a stall could not be written: %s", error)

    # --- what the loop and the interpreter tell

    def on_problem(self, context: dict[str, Any]) -> None:
        """A lost task, a failure that nobody has looked at: asyncio tells its exception handler, and us."""
        observer = self._observer
        finding = inspect_context(context, observer.site_of_task, observer.name) if observer.level != "off" else None
        if finding is None:
            return
        if finding.kind == "destroyed_pending":
            finding = self._with_record(finding, observer.lose(context["task"]))
        observer.findings.add(finding)

    def _on_unawaited(self, finding: Finding) -> None:
        """A coroutine was dropped in some thread: it is for the loop that runs there, else for the first there is."""
        running, loop = asyncio._get_running_loop(), self._loop()
        is_ours = running is loop if running is not None else self._observer in registry.observers()[:1]
        if is_ours and loop is not None and self._observer.level != "off":
            self._observer.findings.add(replace(finding, loop=self._observer.name))

    def on_close(self) -> None:
        """The loop is about to be closed: what has not ended never will."""
        loop, observer = self._loop(), self._observer
        if loop is None:
            return
        observer.set_check(None)
        stall_watch.unwatch(loop)
        unwatch_unawaited(self._on_unawaited)
        # those are gone, and not pending
        self._tell_lost()
        left = observer.abandon()
        if left:
            observer.findings.add(left_behind(left, observer.name))
        registry.unregister(loop)
        # the log would hold this watcher, which holds the log: a cycle that only the collector could free
        observer.findings.unlisten(self._on_finding)
        observer.close()

    # --- what it looks for

    def check(self) -> None:
        """All checks, once. The loop calls it."""
        self._tell_lost()
        if self._observer.level in ("off", "count"):
            # nobody has looked at the clock
            return
        self._tell_hung()
        self._tell_growing()
        self._tell_stuck()

    def _tell_lost(self) -> None:
        """Those that asyncio has not told of: its flag for that was off, or nobody heard."""
        for lost in self._observer.sweep():
            site = self._observer.site(lost[1])
            message = f"a task was collected before it ended: nobody kept it (created at {site})"
            finding = Finding("destroyed_pending", message, site, loop=self._observer.name)
            self._observer.findings.add(self._with_record(finding, lost))

    def _with_record(self, finding: Finding, lost: Lost | None) -> Finding:
        """The same with what the ledger knew of the task."""
        evidence, now_s = dict(finding.evidence), monotonic()
        if lost is None:
            return finding
        _, _, born_ns, steps, stack = lost[:5]
        evidence |= {"age_s": round(now_s - born_ns / 1e9, 6), "steps": steps}
        if stack:
            evidence["creation_stack"] = [str(frame) for frame in self._observer.named_stack(stack)]
        message = f"{finding.message}; keep a reference to it, or make it by penstock.tasks.spawn()"
        since_s = born_ns / 1e9
        wall_time_s = time() - (now_s - since_s)
        return replace(finding, message=message, since_s=since_s, wall_time_s=wall_time_s, evidence=evidence)

    def _tell_hung(self) -> None:
        # here and below: what is rarely needed is imported when it is
        from penstock.tasks.detectors.trends import hung_message

        config = self._config
        for task, site, p99_s in self._observer.overdue(config.hung_factor, config.hung_s, LEAST_SAMPLES, MOST_TOLD):
            message = hung_message(task.get_name(), monotonic() - self._observer.born_s(task), site, p99_s)
            self._add_task("hung", message, task, {"site_p99_s": p99_s})

    def _tell_growing(self) -> None:
        from penstock.tasks.detectors.trends import GrowthWatch

        if self._growth is None:
            self._growth = GrowthWatch(loop=self._observer.name)
        for finding in self._growth.look(self._observer.sites()):
            self._observer.findings.add(finding)

    def _tell_stuck(self) -> None:
        from penstock.tasks.awaits.graph import await_cycles
        from penstock.tasks.detectors.stuck import StuckSearch

        if self._search is None:
            self._search = StuckSearch(STUCK_BUDGET_S)

        since_ns = monotonic_ns() - int(self._config.stuck_s * 1e9)
        weak, self._examine_from = self._observer.waiting(since_ns, self._examine_from, EXAMINED)
        tasks = [task for found in weak if (task := found()) is not None and not task.done()]
        cycles = await_cycles(tasks)
        in_cycle = {id(task) for cycle in cycles for task in cycle}
        for cycle in cycles:
            shown = " -> ".join(repr(task.get_name()) for task in (*cycle, cycle[0]))
            self._add_once("await_cycle", f"tasks wait for each other: {shown}", cycle[0], {"cycle": shown})
        for stuck in self._search.look(tasks):
            task = None if stuck.task is None else stuck.task()
            if task is not None and id(task) not in in_cycle:
                self._add_once("stuck", str(stuck), task, {})
        # an address may be another task's one day
        self._told &= {id(task) for task in tasks} if self._examine_from == 0 else self._told

    def _add_once(self, kind: str, message: str, task: asyncio.Task[Any], evidence: dict[str, Any]) -> None:
        if id(task) not in self._told:
            self._told.add(id(task))
            self._add_task(kind, message, task, evidence)

    # --- findings

    def _add_task(self, kind: str, message: str, task: asyncio.Task[Any], evidence: dict[str, Any]) -> None:
        from penstock.tasks.awaits.chain import chain

        evidence["await_chain"] = [str(frame) for frame in chain(task).frames]
        stack = self._observer.creation_stack(task)
        if stack:
            evidence["creation_stack"] = [str(frame) for frame in stack]
        self._add(
            kind, message, task.get_name(), evidence, self._observer.site_of_task(task), self._observer.born_s(task)
        )

    def _add(
        self,
        kind: str,
        message: str,
        task: str | None,
        evidence: dict[str, Any],
        site: Site | None = None,
        since_s: float = 0.0,
    ) -> None:
        now_s = monotonic()
        since_s = since_s or now_s
        wall_time_s = time() - (now_s - since_s)
        self._observer.findings.add(
            Finding(kind, message, site, task, since_s, wall_time_s, self._observer.name, evidence)
        )
