"""Records made of the native probe's numbers: the statistics of a loop and its sites, live tasks, flight events.

Apart from the observer, so that a starting loop does not import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock._core.tasks.rows import SiteScan
from penstock.loop.native import native_core
from penstock.tasks.flighttrace import Event
from penstock.tasks.observers.livetasks import LiveRow
from penstock.tasks.records import LoopFigures, SiteStatistics, TaskStatistics
from penstock.times import Times, merged, taken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock._core.tasks.rows import ScanRow, SiteRow
    from penstock._core.tasks.scan import TaskScan
    from penstock.tasks.finding_log import FindingLog
    from penstock.tasks.place import Place

__all__ = [
    "flight_event",
    "live_row",
    "scanned_row",
    "scanned_sites",
    "scanned_times",
    "site_statistics",
    "statistics",
]

# the probe's numbers for kinds of callback, kinds of flight event, outcomes and states of a task
CALLBACK_KINDS = ("task", "callback", "timer", "io")
FLIGHT_KINDS = ("birth", "step", "end", "callback")
OUTCOMES = ("returned", "raised", "cancelled")
STATES = ("ready", "running", "waiting")
NO_TASKS = SiteScan(0, 0, 0, 0, 0, 0, 0)


def statistics(
    probe: Any,
    loop: Any,
    findings: FindingLog,
    stalls: Mapping[str, int],
    *,
    name: str,
    implementation: str,
    level: str,
    times_ns: tuple[int, int],
) -> TaskStatistics:
    """Return the counts and times so far. A loop that was collected, None, has no figures of its queues.

    `times_ns` are the times of all tasks, running and ready.
    """
    ledger, flight = probe.ledger, probe.flight
    returned, raised, cancelled, lost = ledger.outcomes()
    running_ns, ready_ns = times_ns
    return TaskStatistics(
        loop=name,
        implementation=implementation,
        level=level,
        created=ledger.created,
        completed=returned,
        failed=raised,
        cancelled=cancelled,
        lost=lost,
        live=ledger.live,
        eager=ledger.eager,
        steps=ledger.steps,
        latency=taken(ledger.latency),
        step=taken(probe.took()[0]),
        start_delay=taken(probe.start_delay),
        running_s=running_ns / 1e9,
        ready_s=ready_ns / 1e9,
        findings=findings.counts(),
        figures=_figures(probe, loop, stalls),
        dropped=findings.dropped + (flight.overwritten if flight is not None else 0),
        errors=probe.errors,
    )


def _figures(probe: Any, loop: Any, stalls: Mapping[str, int]) -> LoopFigures:
    core = native_core(loop)
    ready_count, ready_age_ns, timer_count = (0, 0, 0) if core is None else core.queue_figures()
    return LoopFigures(
        turns=probe.turns,
        polls=probe.polls,
        events=probe.events,
        callbacks=dict(zip(CALLBACK_KINDS, probe.callbacks(), strict=True)),
        active_s=probe.active_ns / 1e9,
        idle_s=probe.idle_ns / 1e9,
        ready_count=ready_count,
        ready_age_s=ready_age_ns / 1e9,
        timer_count=timer_count,
        turn=taken(probe.turn),
        callback=merged(map(taken, probe.took())),
        delay=taken(probe.delay),
        poll=taken(probe.poll),
        wake=taken(probe.wake),
        stalls=stalls,
    )


def site_statistics(site: Place, row: SiteRow) -> SiteStatistics:
    """Return the statistics of one site, from the ledger's counts and times."""
    returned, raised, cancelled, _ = row.ended
    times = [Times() if each is None else taken(each) for each in (row.latency, row.step, row.schedule)]
    counts = row.created, returned, raised, cancelled, row.live
    return SiteStatistics(site, *counts, row.running_ns / 1e9, row.ready_ns / 1e9, *times)


def scanned_times(probe: Any, scan: TaskScan) -> tuple[int, int]:
    """Return the times of all tasks, running and ready, in nanoseconds; of the live ones by a scan."""
    running_ns, ready_ns = probe.ledger.ended_times_ns()
    sites = scan.sites()
    return running_ns + sum(site.running_ns for site in sites), ready_ns + sum(site.ready_ns for site in sites)


def scanned_sites(probe: Any, scan: TaskScan, site_of: Callable[[int], Place]) -> list[SiteStatistics]:
    """Return the statistics of each site; of the live tasks by a scan."""
    now = {each.site: each for each in scan.sites()}
    found = []
    for before in probe.ledger.ended_site_counts():
        site = now.get(before.site) or NO_TASKS
        live = site.ready + site.running + site.waiting
        times = before.running_ns + site.running_ns, before.ready_ns + site.ready_ns
        row = before._replace(live=live, running_ns=times[0], ready_ns=times[1])
        found.append(site_statistics(site_of(before.site), row))
    return found


def scanned_row(row: ScanRow, task: Callable[[], Any], site_of: Callable[[int], Place]) -> LiveRow:
    """Return the row of a scan's row; `task` returns the task, None if it has ended."""
    times = row.born_ns, row.since_ns, STATES[row.state], row.running_ns, row.ready_ns, row.steps
    return LiveRow(row.number, task, site_of(row.site), *times)


def live_row(entry: Any, site_of: Callable[[int], Place]) -> LiveRow:
    """Return the row of an entry of the ledger's snapshot; `site_of` names a site by its number."""
    number, weak, site, born_ns, since_ns, state, running_ns, ready_ns, steps = entry[:9]
    return LiveRow(number, weak, site_of(site), born_ns, since_ns, STATES[state], running_ns, ready_ns, steps)


def flight_event(entry: Any, site_of: Callable[[int], Place]) -> Event:
    """Return the event of an entry of the probe's flight recorder; `site_of` names a site by its number."""
    number, at_ns, took_ns, task, site, detail = entry
    kind = FLIGHT_KINDS[number]
    if kind == "callback":
        return Event(at_ns, took_ns, kind, 0, CALLBACK_KINDS[detail])
    text = str(site_of(site))
    return Event(at_ns, took_ns, kind, task, f"{OUTCOMES[detail]}: {text}" if kind == "end" else text)
