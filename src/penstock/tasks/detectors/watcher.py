"""The watchers of a loop: they connect its observer to the detectors.

A watcher receives the loop's problems, its close and a periodic check. The checks run in the loop's thread, each within
a budget: lost tasks, stuck tasks and await cycles, hung tasks, growing sites.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from time import monotonic, monotonic_ns, time
from typing import TYPE_CHECKING, Any
from weakref import ref

from penstock.tasks.detectors.abandoned import (
    finding_in_context,
    loop_closed_finding,
    unwatch_unawaited,
    watch_unawaited,
)
from penstock.tasks.detectors.stalls import stall_watch
from penstock.tasks.finding import Finding
from penstock.tasks.flighttrace import Event
from penstock.tasks.observers import registry

if TYPE_CHECKING:
    from penstock._core.tasks.rows import LostRow
    from penstock.config import TasksConfig
    from penstock.tasks.detectors.stuck import StuckSearch
    from penstock.tasks.detectors.trace_dump import TraceDump
    from penstock.tasks.detectors.trends import GrowthWatch, HungWatch
    from penstock.tasks.observers.factory import TaskFactory
    from penstock.tasks.observers.native import NativeObserver

__all__ = ["SelectorWatcher", "Watcher"]

# Tasks that one check inspects closely, of those that have waited long; the next check continues with others.
MOST_EXAMINED = 256
STUCK_BUDGET_S = 0.005
# ended tasks from which on a site's 99th percentile is known
LEAST_SAMPLES = 100
MOST_REPORTED = 100


class Watcher:
    """The watcher of a native loop. Its observer's FindingLog gets the findings."""

    def __init__(self, loop: Any, observer: NativeObserver, config: TasksConfig) -> None:
        def loop_is_gone(_: object, is_ending: Any = sys.is_finalizing, unwatch: Any = unwatch_unawaited) -> None:
            # also called at the interpreter's end, when the names of modules are gone
            if not is_ending():
                unwatch(self._on_unawaited)

        self._loop = ref(loop, loop_is_gone)
        self._observer = observer
        self._config = config
        self._growth: GrowthWatch | None = None
        self._search: StuckSearch | None = None
        # ids of the stuck tasks that were reported
        self._reported: set[int] = set()
        self._examine_from = 0
        self._traces = _traces(observer, config)
        registry.register(loop, observer)
        if config.check_s is not None:
            observer.set_check(self.check, config.check_s)
        if config.stall_s is not None:
            stall_watch.watch(
                loop,
                observer.heartbeat,
                config.stall_s,
                observer.findings,
                name=observer.name,
                name_calls=config.name_calls,
            )
        watch_unawaited(self._on_unawaited)
        observer.findings.listen(self._on_finding)

    # --- events of the loop and the interpreter

    def on_problem(self, context: dict[str, Any]) -> None:
        """Add the finding in a context of the loop's exception handler: a lost task, an exception not retrieved."""
        observer = self._observer
        if observer.level == "off":
            return
        finding = finding_in_context(context, observer.site_of_task, observer.name)
        if finding is None:
            return
        if finding.kind == "destroyed_pending":
            finding = self._with_record(finding, observer.mark_lost(context["task"]))
        observer.findings.add(finding)

    def on_close(self) -> None:
        """Stop watching, and report the tasks that have not ended. The loop calls this before it closes."""
        loop, observer = self._loop(), self._observer
        if loop is None:
            return
        observer.set_check(None)
        stall_watch.unwatch(loop)
        unwatch_unawaited(self._on_unawaited)
        # before the pending tasks are counted: a lost task is not pending
        self._report_lost()
        left = observer.abandon()
        if left:
            observer.findings.add(loop_closed_finding(left, observer.name))
        registry.unregister(loop)
        # the log holds its listener, which holds the log: a cycle that only the collector could free
        observer.findings.unlisten(self._on_finding)
        observer.close()
        if self._traces is not None:
            self._traces.close()

    def _on_unawaited(self, finding: Finding) -> None:
        """Take a coroutine that was dropped in this loop's thread; outside of any loop the first observer takes it."""
        running, loop = asyncio._get_running_loop(), self._loop()
        is_ours = running is loop if running is not None else self._observer in registry.observers()[:1]
        if is_ours and loop is not None and self._observer.level != "off":
            self._observer.findings.add(replace(finding, loop=self._observer.name))

    def _on_finding(self, finding: Finding) -> None:
        """Note the finding in the flight recorder, and have its trace written if a folder is configured."""
        is_stall = finding.kind == "stall"
        # any other finding may have begun long ago: a task's birth
        at_ns = int(finding.since_s * 1e9) if is_stall else monotonic_ns()
        took_ns = int(finding.evidence.get("lasted_s", 0) * 1e9) if is_stall else 0
        self._observer.note(Event(at_ns, took_ns, "stall" if is_stall else "finding", 0, finding.message))
        if self._traces is not None:
            self._traces.on_finding(finding)

    # --- the periodic check

    def check(self) -> None:
        """Run all checks once. The loop calls this every `tasks.check_s` seconds."""
        self._report_lost()
        if self._observer.level in ("off", "count"):
            # times are not recorded
            return
        self._report_hung()
        self._report_growing()
        self._report_stuck()

    def _report_lost(self) -> None:
        """Report the collected tasks that asyncio has not reported: its own flag for that was off."""
        for lost in self._observer.sweep():
            site = self._observer.site(lost.site)
            message = f"a task was collected before it ended, for lack of a reference (created at {site})"
            finding = Finding("destroyed_pending", message, site, loop=self._observer.name)
            self._observer.findings.add(self._with_record(finding, lost))

    def _with_record(self, finding: Finding, lost: LostRow | None) -> Finding:
        """Return the finding with the task's entry in the ledger."""
        if lost is None:
            return finding
        evidence, now_s = dict(finding.evidence), monotonic()
        born_ns, steps, stack = lost.born_ns, lost.steps, lost.stack
        evidence |= {"age_s": round(now_s - born_ns / 1e9, 6), "steps": steps}
        if stack:
            evidence["creation_stack"] = [str(frame) for frame in self._observer.named_stack(stack)]
        message = f"{finding.message}; keep a reference to it, or make it by penstock.tasks.spawn()"
        since_s = born_ns / 1e9
        wall_time_s = time() - (now_s - since_s)
        return replace(finding, message=message, since_s=since_s, wall_time_s=wall_time_s, evidence=evidence)

    def _report_hung(self) -> None:
        # here and below: rarely needed modules are imported on first use
        from penstock.tasks.detectors.trends import hung_message

        factor, least_s = self._config.hung_factor, self._config.hung_s
        for task, site, p99_s in self._observer.overdue(factor, least_s, LEAST_SAMPLES, MOST_REPORTED):
            message = hung_message(task.get_name(), monotonic() - self._observer.born_s(task), site, p99_s)
            self._add("hung", message, task, {"site_p99_s": p99_s})

    def _report_growing(self) -> None:
        from penstock.tasks.detectors.trends import GrowthWatch

        if self._growth is None:
            self._growth = GrowthWatch(loop=self._observer.name)
        for finding in self._growth.check(self._observer.sites()):
            self._observer.findings.add(finding)

    def _report_stuck(self) -> None:
        from penstock.tasks.awaits.graph import await_cycles
        from penstock.tasks.detectors.stuck import StuckSearch

        if self._search is None:
            self._search = StuckSearch(STUCK_BUDGET_S)
        tasks = self._long_waiting()
        cycles = await_cycles(tasks)
        in_cycle = {id(task) for cycle in cycles for task in cycle}
        for cycle in cycles:
            shown = " -> ".join(repr(task.get_name()) for task in (*cycle, cycle[0]))
            self._add_once("await_cycle", f"tasks wait for each other: {shown}", cycle[0], {"cycle": shown})
        for stuck in self._search.check(tasks):
            task = None if stuck.task is None else stuck.task()
            if task is not None and id(task) not in in_cycle:
                self._add_once("stuck", str(stuck), task, {})
        # once around: an address may later be another task's
        self._reported &= {id(task) for task in tasks} if self._examine_from == 0 else self._reported

    def _long_waiting(self) -> list[asyncio.Task[Any]]:
        """Return the next tasks that have waited for `tasks.stuck_s` seconds, at most 256."""
        since_ns = monotonic_ns() - int(self._config.stuck_s * 1e9)
        weak, self._examine_from = self._observer.waiting(since_ns, self._examine_from, MOST_EXAMINED)
        return [task for found in weak if (task := found()) is not None and not task.done()]

    # --- findings about a task

    def _add_once(self, kind: str, message: str, task: asyncio.Task[Any], evidence: dict[str, Any]) -> None:
        if id(task) not in self._reported:
            self._reported.add(id(task))
            self._add(kind, message, task, evidence)

    def _add(self, kind: str, message: str, task: asyncio.Task[Any], evidence: dict[str, Any]) -> None:
        from penstock.tasks.awaits.chain import await_chain

        observer, now_s = self._observer, monotonic()
        evidence["await_chain"] = [str(frame) for frame in await_chain(task).frames]
        stack = observer.creation_stack(task)
        if stack:
            evidence["creation_stack"] = [str(frame) for frame in stack]
        since_s = observer.born_s(task) or now_s
        wall_time_s = time() - (now_s - since_s)
        observer.findings.add(
            Finding(
                kind,
                message,
                observer.site_of_task(task),
                task.get_name(),
                since_s,
                wall_time_s,
                observer.name,
                evidence,
            )
        )


def _traces(observer: NativeObserver, config: TasksConfig) -> TraceDump | None:
    if config.trace_dir is None:
        return None
    from penstock.tasks.detectors.trace_dump import TraceDump

    return TraceDump(observer, config)


class SelectorWatcher:
    """The watcher of one of penstock's selector loops, for the detectors that need no probe.

    They find exceptions not retrieved, tasks pending at the loop's close, hung tasks and growing sites; the task
    factory reports lost tasks itself. Stalls are not found: the loop writes no heartbeat. Findings leave no trace: the
    loop has no flight recorder.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, factory: TaskFactory, config: TasksConfig) -> None:
        self._loop = ref(loop)
        self._factory = factory
        self._config = config
        self._hung: HungWatch | None = None
        self._growth: GrowthWatch | None = None
        if config.check_s is not None:
            loop.call_later(config.check_s, self._check)

    def on_problem(self, context: dict[str, Any]) -> None:
        """Add the finding in a context of the loop's exception handler, except for lost tasks."""
        finding = finding_in_context(context, loop=self._factory.name or "")
        if finding is not None and finding.kind != "destroyed_pending":
            self._factory.findings.add(finding)

    def on_close(self) -> None:
        """Report the tasks that have not ended. The loop calls this before it closes."""
        left, loop = [(task.site, task.name) for task in self._factory.live()], self._loop()
        if left:
            self._factory.findings.add(loop_closed_finding(left, self._factory.name or ""))
        if loop is not None:
            registry.unregister(loop)

    def _check(self) -> None:
        from penstock.tasks.detectors.trends import GrowthWatch, HungWatch

        if self._hung is None or self._growth is None:
            name = self._factory.name or ""
            self._hung = HungWatch(self._config.hung_factor, self._config.hung_s, loop=name)
            self._growth = GrowthWatch(loop=name)
        loop, sites = self._loop(), self._factory.sites()
        for finding in (*self._hung.check(self._factory.live(), sites), *self._growth.check(sites)):
            self._factory.findings.add(finding)
        if loop is not None and self._config.check_s is not None:
            loop.call_later(self._config.check_s, self._check)
