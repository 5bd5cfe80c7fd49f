"""What the metrics are right now: sources asked once, their records turned into values by name and attributes.

Both exporters read from here. Sources are callables that the layer above passes in: this knows neither tasks nor lanes,
only the names of what their records have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol, TypeAlias

from penstock.telemetry.names import METRICS
from penstock.telemetry.process import process_values
from penstock.telemetry.topsites import SiteFigures, TopSites
from penstock.times import Times, merged

__all__ = ["GateFigures", "LaneFigures", "Readings", "Sources", "TaskFigures", "Value", "Values"]

Value: TypeAlias = float | Times
# a metric's values by those of its attributes, in the order that `Metric.attributes` has them
Values: TypeAlias = dict[tuple[str, ...], Value]

ABANDONED = ("exception_unretrieved", "never_awaited", "loop_closed")
KINDS = {"threads": "thread", "processes": "process", "interpreters": "interpreter", "dask": "remote", "ray": "remote"}


class TaskFigures(Protocol):
    """The tasks and turns of one loop: `penstock.tasks.records.TaskStatistics`, of which these are named here."""

    @property
    def loop(self) -> str:
        """The loop's name."""

    @property
    def implementation(self) -> str:
        """What kind of loop it is."""

    @property
    def lost(self) -> int:
        """Tasks collected while pending."""

    @property
    def findings(self) -> Mapping[str, int]:
        """Kind of finding -> how many."""

    @property
    def figures(self) -> Any:
        """The loop's turns."""


class LaneFigures(Protocol):
    """One lane: `penstock.executors.LaneStatistics`, of which these are named here."""

    @property
    def name(self) -> str:
        """The lane's name."""

    @property
    def kind(self) -> str:
        """What its workers are."""

    @property
    def workers(self) -> int:
        """How many there are."""

    @property
    def workers_busy(self) -> int:
        """How many of them have a job."""

    @property
    def workers_limit(self) -> int:
        """How many there may be."""

    @property
    def transfer_bytes(self) -> Mapping[str, int]:
        """Path (out_shm) -> bytes."""


class GateFigures(Protocol):
    """One gate: `penstock.pressure.GateStatistics`, of which these are named here."""

    @property
    def name(self) -> str:
        """The gate's name, "" if it has none."""

    @property
    def sheds(self) -> Mapping[str, int]:
        """Reason -> how many were refused."""


def _no_tasks() -> Sequence[TaskFigures]:
    return ()


def _no_lanes() -> Mapping[str, Sequence[LaneFigures]]:
    return {}


def _no_sites() -> Mapping[str, Sequence[SiteFigures]]:
    return {}


def _no_gates() -> Sequence[GateFigures]:
    return ()


def _nothing_shed() -> Mapping[tuple[str, str], int]:
    return {}


def _nothing_cut() -> Mapping[str, int]:
    return {}


@dataclass(frozen=True, slots=True)
class Sources:
    """Where values come from. Each is called at every scrape, from any thread; one left out gives nothing."""

    # a record for each loop
    tasks: Callable[[], Sequence[TaskFigures]] = _no_tasks
    # the loop's name -> its lanes
    lanes: Callable[[], Mapping[str, Sequence[LaneFigures]]] = _no_lanes
    # the loop's name -> its sites
    sites: Callable[[], Mapping[str, Sequence[SiteFigures]]] = _no_sites
    # a record for each gate
    gates: Callable[[], Sequence[GateFigures]] = _no_gates
    # (what stands for a gate, reason) -> how many were shed by something else than a gate
    sheds: Callable[[], Mapping[tuple[str, str], int]] = _nothing_shed
    # reason -> how many connections were cut by a bound on memory or time
    disconnects: Callable[[], Mapping[str, int]] = _nothing_cut


# metric, where a record has it, the last attributes' values. A mapping there gives a value for each of its keys.
_LOOP_ROWS = (
    ("asyncio.eventloop.time", "figures.active_s", ("active",)),
    ("asyncio.eventloop.time", "figures.idle_s", ("idle",)),
    ("asyncio.eventloop.utilization", "figures.utilization", ()),
    ("asyncio.eventloop.iterations", "figures.turns", ()),
    ("asyncio.eventloop.iteration.duration", "figures.turn", ()),
    ("asyncio.eventloop.callbacks", "figures.callbacks", ()),
    ("asyncio.eventloop.callback.duration", "figures.callback", ()),
    ("asyncio.eventloop.delay", "figures.delay", ()),
    ("asyncio.eventloop.ready.count", "figures.ready_count", ()),
    ("asyncio.eventloop.ready.age", "figures.ready_age_s", ()),
    ("asyncio.eventloop.timer.count", "figures.timer_count", ()),
    ("asyncio.eventloop.polls", "figures.polls", ()),
    ("asyncio.eventloop.poll.duration", "figures.poll", ()),
    ("asyncio.eventloop.wake.duration", "figures.wake", ()),
    ("asyncio.eventloop.io.events", "figures.events", ()),
    ("asyncio.eventloop.stalls", "figures.stalls", ()),
)
_TASK_ROWS = (
    ("asyncio.task.created", "created", ()),
    ("asyncio.task.completed", "completed", ("returned",)),
    ("asyncio.task.completed", "failed", ("raised",)),
    ("asyncio.task.completed", "cancelled", ("cancelled",)),
    ("asyncio.task.count", "live", ()),
    ("asyncio.task.duration", "latency", ()),
    ("asyncio.task.start.delay", "start_delay", ()),
    ("asyncio.task.time", "running_s", ("busy",)),
    ("asyncio.task.time", "ready_s", ("scheduled",)),
    ("asyncio.task.polls", "steps", ()),
    ("asyncio.task.poll.duration", "step", ()),
    ("asyncio.task.eager_completions", "eager", ()),
    ("asyncio.task.abandoned", "lost", ("destroyed_pending",)),
    ("asyncio.instrumentation.dropped", "dropped", ()),
)
_LANE_ROWS = (
    ("asyncio.executor.worker.count", "workers_busy", ("busy",)),
    ("asyncio.executor.worker.limit", "workers_limit", ()),
    ("asyncio.executor.queue.length", "queued", ()),
    ("asyncio.executor.queue.limit", "queue_limit", ()),
    ("asyncio.executor.queue.waiting", "waiting", ()),
    ("asyncio.executor.queue.duration", "wait", ()),
    ("asyncio.executor.job.count", "running", ()),
    ("asyncio.executor.job.duration", "run", ()),
    ("asyncio.executor.jobs", "completed", ()),
    ("asyncio.executor.rejected", "shed", ()),
    ("asyncio.executor.worker.restarts", "restarts", ()),
)
_SITE_ROWS = (
    ("asyncio.task.site.created", "created", ()),
    ("asyncio.task.site.completed", "completed", ("returned",)),
    ("asyncio.task.site.completed", "failed", ("raised",)),
    ("asyncio.task.site.completed", "cancelled", ("cancelled",)),
    ("asyncio.task.site.count", "live", ()),
    ("asyncio.task.site.time", "running_s", ("busy",)),
    ("asyncio.task.site.time", "ready_s", ("scheduled",)),
)
_GATE_ROWS = (
    ("asyncio.backpressure.permit.limit", "limit", ()),
    ("asyncio.backpressure.permit.used", "inflight", ()),
    ("asyncio.backpressure.streams", "streams", ()),
    ("asyncio.backpressure.permit.scale", "scale", ()),
    ("asyncio.backpressure.queue.length", "queued", ()),
    ("asyncio.backpressure.queue.age", "oldest_wait_s", ()),
    ("asyncio.backpressure.admitted", "admitted", ()),
    ("asyncio.backpressure.wait.duration", "wait", ()),
    ("asyncio.backpressure.service.duration", "service", ()),
    ("asyncio.backpressure.rejected", "sheds", ()),
)
# what a gate without a name is called
UNNAMED = "gate"

Reading: TypeAlias = tuple[str, tuple[str, ...], Value]


class Readings:
    """Takes all values at once. Any thread may; a reading holds nothing of a loop.

    At most `most_sites` of the places where tasks are made have values of their own, the rest are "other"; 0 leaves the
    metrics by site out. `process` adds those of the garbage collector and the process.
    """

    def __init__(self, sources: Sources, *, most_sites: int = 50, process: bool = True) -> None:
        self._sources = sources
        self._top = TopSites(most_sites) if most_sites else None
        self._process = process

    def take(self) -> dict[str, Values]:
        """The values of every metric that has some, by the metric's name."""
        taken: dict[str, Values] = {}
        for name, attributes, value in self._all():
            values = taken.setdefault(name, {})
            before = values.get(attributes)
            values[attributes] = value if before is None else _together(name, before, value)
        return taken

    def _all(self) -> Iterator[Reading]:
        for record in self._sources.tasks():
            yield from _of_loop(record)
        for loop, lanes in self._sources.lanes().items():
            for lane in lanes:
                yield from _of_lane(loop, lane)
        for gate in self._sources.gates():
            yield from _rows(_GATE_ROWS, gate, (gate.name or UNNAMED,))
        for source, number in self._sources.sheds().items():
            yield "asyncio.backpressure.rejected", source, number
        for reason, number in self._sources.disconnects().items():
            yield "asyncio.backpressure.disconnected", (reason,), number
        if self._top is not None:
            for loop, site, counts in self._top.take(self._sources.sites()):
                yield from _rows(_SITE_ROWS, counts, (loop, site))
        if self._process:
            yield from process_values()


def _rows(
    rows: Sequence[tuple[str, str, tuple[str, ...]]], record: object, first: tuple[str, ...]
) -> Iterator[Reading]:
    for name, path, last in rows:
        value = attrgetter(path)(record)
        if isinstance(value, Mapping):
            for key, one in value.items():
                yield name, (*first, key), one
        else:
            yield name, (*first, *last), value


def _of_loop(record: TaskFigures) -> Iterator[Reading]:
    first = record.loop, record.implementation
    # zeros would say that the loop is idle: of a loop whose turns nobody counts, nothing is said
    if record.figures.turns:
        yield from _rows(_LOOP_ROWS, record, first)
    yield from _rows(_TASK_ROWS, record, first)
    for kind, count in record.findings.items():
        if kind in ABANDONED:
            yield "asyncio.task.abandoned", (*first, kind), count
        elif kind != "destroyed_pending":  # these are `lost`, each of them
            yield "asyncio.task.findings", (*first, kind), count


def _of_lane(loop: str, lane: LaneFigures) -> Iterator[Reading]:
    first = loop, lane.name, KINDS.get(lane.kind, lane.kind)
    yield from _rows(_LANE_ROWS, lane, first)
    yield "asyncio.executor.worker.count", (*first, "idle"), lane.workers - lane.workers_busy
    if lane.workers_limit:
        yield "asyncio.executor.utilization", first, lane.workers_busy / lane.workers_limit
    for path, size_bytes in lane.transfer_bytes.items():
        yield "asyncio.executor.transfer.io", (*first, *path.split("_")), size_bytes


def _together(name: str, one: Value, other: Value) -> Value:
    """Two loops of one name are shown as one: their counts and times added, of gauges the larger."""
    if isinstance(one, Times) or isinstance(other, Times):
        return merged(times for times in (one, other) if isinstance(times, Times))
    return max(one, other) if METRICS[name].instrument == "gauge" else one + other
