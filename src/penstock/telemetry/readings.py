"""The readings of all metrics: the sources' records as values by name and attributes.

Both exporters read them. Sources are callables from the layer above: this module knows neither tasks nor lanes, only
the field names of their records.
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

__all__ = ["GateFigures", "LaneFigures", "MetricReader", "Sources", "TaskFigures", "Value", "Values"]

Value: TypeAlias = float | Times
# attribute values, in the order of `Metric.attributes` -> the metric's value
Values: TypeAlias = dict[tuple[str, ...], Value]

ABANDONED = ("exception_unretrieved", "never_awaited", "loop_closed")
KINDS = {"threads": "thread", "processes": "process", "interpreters": "interpreter", "dask": "remote", "ray": "remote"}


class TaskFigures(Protocol):
    """The tasks and turns of one loop: the fields of `penstock.tasks.TaskStatistics` that are read by name."""

    @property
    def loop(self) -> str:
        """The loop's name."""

    @property
    def implementation(self) -> str:
        """The kind of loop."""

    @property
    def lost(self) -> int:
        """Tasks collected while pending."""

    @property
    def findings(self) -> Mapping[str, int]:
        """Findings by kind."""

    @property
    def figures(self) -> Any:
        """The figures of the loop's turns."""


class LaneFigures(Protocol):
    """A lane: the fields of `penstock.executors.LaneStatistics` that are read by name."""

    @property
    def name(self) -> str:
        """The lane's name."""

    @property
    def kind(self) -> str:
        """The kind of its workers."""

    @property
    def workers(self) -> int:
        """Workers, busy or idle."""

    @property
    def workers_busy(self) -> int:
        """Workers with a job."""

    @property
    def workers_limit(self) -> int:
        """The most workers."""

    @property
    def transfer_bytes(self) -> Mapping[str, int]:
        """Bytes by path, such as out_shm."""


class GateFigures(Protocol):
    """A gate: the fields of `penstock.pressure.GateStatistics` that are read by name."""

    @property
    def name(self) -> str:
        """The gate's name, "" if it has none."""

    @property
    def sheds(self) -> Mapping[str, int]:
        """Shed requests by reason."""


def _no_tasks() -> Sequence[TaskFigures]:
    return ()


def _no_lanes() -> Mapping[str, Sequence[LaneFigures]]:
    return {}


def _no_sites() -> Mapping[str, Sequence[SiteFigures]]:
    return {}


def _no_gates() -> Sequence[GateFigures]:
    return ()


def _no_sheds() -> Mapping[tuple[str, str], int]:
    return {}


def _no_disconnects() -> Mapping[str, int]:
    return {}


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of values. Each is called at every scrape, from any thread; by default a source has no values."""

    # a record for each loop
    tasks: Callable[[], Sequence[TaskFigures]] = _no_tasks
    # the loop's name -> its lanes
    lanes: Callable[[], Mapping[str, Sequence[LaneFigures]]] = _no_lanes
    # the loop's name -> its sites
    sites: Callable[[], Mapping[str, Sequence[SiteFigures]]] = _no_sites
    # a record for each gate
    gates: Callable[[], Sequence[GateFigures]] = _no_gates
    # (a name in place of a gate's, reason) -> requests that were shed before a gate
    sheds: Callable[[], Mapping[tuple[str, str], int]] = _no_sheds
    # reason -> connections closed by a bound on memory or time
    disconnects: Callable[[], Mapping[str, int]] = _no_disconnects


# (metric, path in a record, values of the last attributes). A mapping at the path has a value for each of its keys.
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
# the name of a gate without one
UNNAMED = "gate"

Reading: TypeAlias = tuple[str, tuple[str, ...], Value]


class MetricReader:
    """A reader of all sources. Any thread may read; a reading holds no reference to a loop.

    At most `most_sites` sites have values of their own, all others are "other"; 0 leaves out the metrics by site.
    `process` adds the metrics of the garbage collector and the process.
    """

    def __init__(self, sources: Sources, *, most_sites: int = 50, process: bool = True) -> None:
        self._sources = sources
        self._top = TopSites(most_sites) if most_sites else None
        self._process = process

    def take(self) -> dict[str, Values]:
        """Return the values of every metric that has any, by the metric's name."""
        taken: dict[str, Values] = {}
        for name, attributes, value in self._all():
            values = taken.setdefault(name, {})
            before = values.get(attributes)
            values[attributes] = value if before is None else _combined(name, before, value)
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
    # a loop whose turns are not counted has no values: zeros would look like an idle loop
    if record.figures.turns:
        yield from _rows(_LOOP_ROWS, record, first)
    yield from _rows(_TASK_ROWS, record, first)
    for kind, count in record.findings.items():
        if kind in ABANDONED:
            yield "asyncio.task.abandoned", (*first, kind), count
        elif kind != "destroyed_pending":  # each of them is counted as `lost`
            yield "asyncio.task.findings", (*first, kind), count


def _of_lane(loop: str, lane: LaneFigures) -> Iterator[Reading]:
    first = loop, lane.name, KINDS.get(lane.kind, lane.kind)
    yield from _rows(_LANE_ROWS, lane, first)
    yield "asyncio.executor.worker.count", (*first, "idle"), lane.workers - lane.workers_busy
    if lane.workers_limit:
        yield "asyncio.executor.utilization", first, lane.workers_busy / lane.workers_limit
    for path, size_bytes in lane.transfer_bytes.items():
        yield "asyncio.executor.transfer.io", (*first, *path.split("_")), size_bytes


def _combined(name: str, one: Value, other: Value) -> Value:
    """Combine two loops of the same name: counts and times are added, of gauges the larger one holds."""
    if isinstance(one, Times) or isinstance(other, Times):
        return merged(times for times in (one, other) if isinstance(times, Times))
    return max(one, other) if METRICS[name].instrument == "gauge" else one + other
