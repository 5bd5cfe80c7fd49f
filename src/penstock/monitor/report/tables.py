"""The tables of a report: loops, sites, tasks, stacks, lanes, gates, the process; of a trace alone, its events."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from penstock.monitor.figures import place_of
from penstock.monitor.report.markup import Markup, tag
from penstock.monitor.report.table import TableColumn, count, ms, rate, share, table
from penstock.monitor.texts import duration, size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.monitor.figures import Figures, GateRates, ProcessRates
    from penstock.monitor.report.material import Material
    from penstock.monitor.report.trace import Trace, TraceLoop
    from penstock.tasks.place import Place

__all__ = ["of_figures", "of_tasks", "of_trace", "process_facts"]

MOST_SITES = 50
MOST_TASKS = 50
MOST_OTHERS = 100


def _where(place: Place | None) -> str:
    return "unknown" if place is None else str(place)


def process_facts(process: ProcessRates) -> Markup:
    """Return the facts about a process as a list of terms."""
    quota = "" if process.quota_cores is None else f", a quota of {process.quota_cores:g}"
    limit = "" if process.descriptor_limit is None else f" of {process.descriptor_limit:,}"
    facts: list[tuple[str, str | int]] = [
        ("program", process.name),
        ("pid", process.pid),
        ("Python", process.python),
        ("penstock", process.penstock),
        ("uptime", duration(process.uptime_s)),
        ("cores", f"{process.cores_used:.2f} in use of {process.cores:g}{quota}"),
        ("memory", f"{size(process.rss_bytes)} resident"),
        ("file descriptors", f"{process.descriptors:,}{limit}"),
        ("threads", process.threads),
        ("garbage collections", f"{process.gc_count:,}, {process.gc_share:.1%} of the time"),
    ]
    if process.supervisor is not None:
        facts.append(("worker", f"number {process.worker} of supervisor {process.supervisor}"))
    return tag("dl", *(tag("div", tag("dt", term), tag("dd", value)) for term, value in facts), class_="facts")


def of_figures(figures: Figures) -> list[Markup | None]:
    """Return the tables of loops, sites, gates and lanes."""
    sites = [(loop, site) for loop in figures.loops for site in loop.sites]
    left_out = sum(loop.sites_left_out for loop in figures.loops)
    lanes = [(loop, lane) for loop in figures.loops for lane in loop.lanes]
    return [
        table("Loops", LOOPS, figures.loops, MOST_OTHERS),
        table("Sites: where tasks are made", SITES, sites, MOST_SITES, left_out),
        table("Gates", GATES, figures.gates, MOST_OTHERS),
        table("Lanes of executors", LANES, lanes, MOST_OTHERS),
        _counts("Sheds", "source and reason", figures.sheds),
        _counts("Disconnects", "reason", figures.disconnects),
    ]


def _loop(read: Any) -> Any:
    """Return a reader of a loop that shows nothing where the process could not answer."""
    return lambda loop: read(loop) if loop.known else None


LOOPS: Sequence[TableColumn] = (
    TableColumn("loop", lambda loop: loop.name, is_number=False),
    TableColumn("level", _loop(lambda loop: loop.level), is_number=False),
    TableColumn(
        "utilization", _loop(lambda loop: share(loop.utilization)), "the share of the time for which callbacks ran"
    ),
    TableColumn("delay p50", _loop(lambda loop: ms(loop.delay.p50_s)), "how late half of the callbacks ran, at least"),
    TableColumn("delay p99", _loop(lambda loop: ms(loop.delay.p99_s)), "how late one callback in 100 ran, at least"),
    TableColumn(
        "longest turn", _loop(lambda loop: ms(loop.turn.max_s)), "the longest time without a look at the sockets"
    ),
    TableColumn("callbacks", _loop(lambda loop: rate(loop.callbacks_per_s))),
    TableColumn("tasks live", _loop(lambda loop: count(loop.tasks_live))),
    TableColumn("made", _loop(lambda loop: rate(loop.created_per_s))),
    TableColumn("ended", _loop(lambda loop: rate(loop.ended_per_s))),
    TableColumn("failed", _loop(lambda loop: rate(loop.failed_per_s))),
    TableColumn("connections", _loop(lambda loop: count(sum(loop.connections.values())))),
    TableColumn("stalls", _loop(lambda loop: _listed(loop.stalls)), "of the observed time, by cause", is_number=False),
)
SITES: Sequence[TableColumn] = (
    TableColumn("site", lambda row: _where(row[1].site), is_number=False),
    TableColumn("loop", lambda row: row[0].name, is_number=False),
    TableColumn("live", lambda row: count(row[1].live)),
    TableColumn("made", lambda row: rate(row[1].created_per_s)),
    TableColumn("ended", lambda row: rate(row[1].ended_per_s)),
    TableColumn("failed", lambda row: rate(row[1].failed_per_s)),
    TableColumn("running", lambda row: share(row[1].running_share), "the share of the time for which its tasks ran"),
    TableColumn("latency p50", lambda row: ms(row[1].latency.p50_s), "from a task's begin to its end"),
    TableColumn("latency p99", lambda row: ms(row[1].latency.p99_s)),
)


def _limit(gate: GateRates) -> str:
    if gate.limit is None:
        return "none"
    return f"{gate.limit:g}" + (f" x {gate.scale:.2f}" if gate.scale != 1 else "")


GATES: Sequence[TableColumn] = (
    TableColumn("gate", lambda gate: gate.name, is_number=False),
    TableColumn("limit", _limit),
    TableColumn("in flight", lambda gate: count(gate.inflight)),
    TableColumn("queued", lambda gate: count(gate.queued)),
    TableColumn("goodput", lambda gate: rate(gate.goodput_per_s), "requests that finished"),
    TableColumn("sheds", lambda gate: rate(gate.sheds_per_s), "requests that were refused"),
    TableColumn("wait p99", lambda gate: ms(gate.wait.p99_s)),
    TableColumn("service p50", lambda gate: ms(gate.service.p50_s)),
    TableColumn("service p99", lambda gate: ms(gate.service.p99_s)),
    TableColumn("sheds by reason", lambda gate: _listed(gate.sheds), is_number=False),
    TableColumn("limit set by", lambda gate: gate.limit_reason, is_number=False),
)
LANES: Sequence[TableColumn] = (
    TableColumn("lane", lambda row: row[1].name, is_number=False),
    TableColumn("kind", lambda row: row[1].kind, is_number=False),
    TableColumn(
        "workers", lambda row: f"{row[1].workers_busy} of {row[1].workers} busy, at most {row[1].workers_limit}"
    ),
    TableColumn("queued", lambda row: count(row[1].queued)),
    TableColumn("jobs", lambda row: rate(row[1].jobs_per_s)),
    TableColumn("sheds", lambda row: rate(row[1].sheds_per_s)),
    TableColumn("wait p99", lambda row: ms(row[1].wait.p99_s), "from the call to the begin of the job"),
    TableColumn("run p50", lambda row: ms(row[1].run.p50_s)),
    TableColumn("run p99", lambda row: ms(row[1].run.p99_s)),
    TableColumn("outcomes", lambda row: _listed(row[1].completed), is_number=False),
    TableColumn("restarts", lambda row: _listed(row[1].restarts), is_number=False),
)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items() if number)


def _counts(caption: str, name: str, counts: Mapping[str, int]) -> Markup | None:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    columns = (TableColumn(name, lambda row: row[0], is_number=False), TableColumn("count", lambda row: count(row[1])))
    return table(caption, columns, ordered, MOST_OTHERS)


# --- tasks


TASKS: Sequence[TableColumn] = (
    TableColumn("number", lambda task: task.get("number")),
    TableColumn("name", lambda task: task.get("name"), is_number=False),
    TableColumn("site", lambda task: _where(place_of(task.get("site"))), is_number=False),
    TableColumn("state", lambda task: task.get("state"), is_number=False),
    TableColumn("age", lambda task: ms(task.get("age_s"))),
    TableColumn("running", lambda task: ms(task.get("running_s"))),
    TableColumn("ready", lambda task: ms(task.get("ready_s")), "how long it waited for the loop"),
    TableColumn("steps", lambda task: count(task.get("steps"))),
)


def _innermost(group: Mapping[str, Any]) -> str:
    """Return the innermost frame of the program; asyncio's own frames say less."""
    frames = group.get("frames") or [None]
    own = [frame for frame in frames if frame and "/asyncio/" not in str(frame.get("file"))]
    return _where(place_of((own or frames)[-1]))


STACKS: Sequence[TableColumn] = (
    TableColumn("tasks", lambda group: count(group.get("count"))),
    TableColumn("wait at", _innermost, is_number=False),
    TableColumn("for", lambda group: group.get("awaits"), is_number=False),
    TableColumn("such as", lambda group: ", ".join(map(str, group.get("names") or ())), is_number=False),
)


def of_tasks(material: Material, most: int = MOST_TASKS) -> list[Markup | None]:
    """Return the tables of where tasks wait, and of the oldest tasks."""
    stacks = material.stacks.get("groups") or []
    rows = material.tasks.get("tasks") or []
    total = material.tasks.get("total") or len(rows)
    return [
        table("Where tasks wait", STACKS, stacks, MOST_OTHERS),
        table("The oldest tasks", TASKS, rows, most, max(0, total - len(rows))),
    ]


# --- a trace alone


EVENTS: Sequence[TableColumn] = (
    TableColumn("loop", lambda loop: loop.name, is_number=False),
    TableColumn("steps and callbacks", lambda loop: count(len(loop.of_kind("step", "callback")))),
    TableColumn(
        "busy", lambda loop: ms(sum(each.took_s for each in loop.of_kind("step", "callback"))), "their time in all"
    ),
    TableColumn("tasks made", lambda loop: count(sum(life.born_s is not None for life in loop.lives))),
    TableColumn("ended", lambda loop: count(sum(life.ended_s is not None for life in loop.lives))),
    TableColumn("stalls", lambda loop: count(len(loop.of_kind("stall")))),
    TableColumn("collections", lambda loop: count(len(loop.of_kind("gc")))),
    TableColumn("jobs", lambda loop: count(len(loop.of_kind("job")))),
    TableColumn("sheds", lambda loop: count(len(loop.of_kind("shed")))),
)
NAMES: Sequence[TableColumn] = (
    TableColumn("name", lambda row: row[0], is_number=False),
    TableColumn("count", lambda row: count(row[1])),
    TableColumn("time", lambda row: ms(row[2])),
    TableColumn("longest", lambda row: ms(row[3])),
)


def of_trace(trace: Trace) -> list[Markup | None]:
    """Return the tables of the events of a trace."""
    return [
        table("Loops in the trace", EVENTS, trace.loops, MOST_OTHERS),
        table("Steps and callbacks in the trace", NAMES, _by_name(trace.loops, "step", "callback"), MOST_SITES),
        table("Jobs of executors in the trace", NAMES, _by_name(trace.loops, "job"), MOST_SITES),
    ]


def _by_name(loops: Sequence[TraceLoop], *kinds: str) -> list[tuple[str, int, float, float]]:
    """Return name, count, time and longest of the slices of these kinds, the most time first."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for loop in loops:
        for each in loop.of_kind(*kinds):
            found[each.name].append(each.took_s)
    rows = [(name, len(took_s), sum(took_s), max(took_s)) for name, took_s in found.items()]
    return sorted(rows, key=lambda row: -row[2])
