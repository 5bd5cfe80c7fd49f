"""The table of metrics for both exporters, as data. Knows neither values nor exporters.

The names follow OpenTelemetry's conventions, with `nodejs.eventloop.*` and `go.*` as models; Prometheus's names follow
from them by OpenTelemetry's own rule. Every attribute has few values: none is a task's name or number.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "BOUNDS_S",
    "EXECUTOR",
    "EXECUTOR_KIND",
    "GATE",
    "GENERATION",
    "IMPLEMENTATION",
    "LOOP",
    "METRICS",
    "OTHER",
    "REASON",
    "SITE",
    "SUMMARIES",
    "Metric",
    "prometheus_label",
]

LOOP = "asyncio.eventloop.name"
IMPLEMENTATION = "asyncio.eventloop.implementation"
SITE = "asyncio.task.site"
EXECUTOR = "asyncio.executor.name"
EXECUTOR_KIND = "asyncio.executor.kind"
GATE = "asyncio.backpressure.gate"
REASON = "reason"
GENERATION = "cpython.gc.generation"
# the label for all sites beyond the cardinality limit
OTHER = "other"

# the bounds of Prometheus's histograms, in seconds
BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# the gauges that OpenTelemetry gets for a histogram: `<name>.p99` and so on
SUMMARIES = ("mean", "p50", "p90", "p99", "max")

# the word for a unit in a Prometheus name; a unit in braces, which is a count, has none
_UNIT_WORDS = {"s": "seconds", "By": "bytes", "1": "ratio"}


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. `instrument` is counter, updowncounter, gauge or histogram; every value has all `attributes`."""

    name: str
    instrument: str
    # UCUM: s, By, 1, or the counted noun in braces
    unit: str
    help: str
    attributes: tuple[str, ...] = ()

    @property
    def prometheus_unit(self) -> str:
        """The unit in Prometheus's spelling, such as "seconds"; "" for counts."""
        return _UNIT_WORDS.get(self.unit, "")

    @property
    def prometheus_family(self) -> str:
        """The name of the metric family: the name without a counter's `_total`."""
        base = prometheus_label(self.name)
        return f"{base}_{self.prometheus_unit}" if self.prometheus_unit else base

    @property
    def prometheus(self) -> str:
        """The name that Prometheus stores and queries use; a histogram's is without `_bucket`."""
        return f"{self.prometheus_family}_total" if self.instrument == "counter" else self.prometheus_family


def prometheus_label(attribute: str) -> str:
    """Return an attribute's name as a Prometheus label."""
    return attribute.replace(".", "_")


_LOOP = LOOP, IMPLEMENTATION
_SITE = LOOP, SITE
_LANE = LOOP, EXECUTOR, EXECUTOR_KIND

_ALL = (
    # the turns of a loop
    Metric("asyncio.eventloop.time", "counter", "s", "Time in callbacks, or waiting.", (*_LOOP, "state")),
    Metric("asyncio.eventloop.utilization", "gauge", "1", "Share of time in callbacks.", _LOOP),
    Metric("asyncio.eventloop.iterations", "counter", "{iteration}", "Turns of the loop.", _LOOP),
    Metric("asyncio.eventloop.iteration.duration", "histogram", "s", "Duration of each turn with a callback.", _LOOP),
    Metric("asyncio.eventloop.callbacks", "counter", "{callback}", "Callbacks run, by kind.", (*_LOOP, "kind")),
    Metric("asyncio.eventloop.callback.duration", "histogram", "s", "Duration of each callback.", _LOOP),
    Metric("asyncio.eventloop.delay", "histogram", "s", "Time for which ready handles waited to run.", _LOOP),
    Metric("asyncio.eventloop.ready.count", "updowncounter", "{handle}", "Handles ready to run now.", _LOOP),
    Metric("asyncio.eventloop.ready.age", "gauge", "s", "Time for which the oldest ready handle has waited.", _LOOP),
    Metric("asyncio.eventloop.timer.count", "updowncounter", "{timer}", "Timers set now.", _LOOP),
    Metric("asyncio.eventloop.polls", "counter", "{poll}", "Waits for the operating system.", _LOOP),
    Metric(
        "asyncio.eventloop.poll.duration", "histogram", "s", "Duration of each wait for the operating system.", _LOOP
    ),
    Metric(
        "asyncio.eventloop.wake.duration", "histogram", "s", "Time from the end of a wait to the first callback.", _LOOP
    ),
    Metric("asyncio.eventloop.io.events", "counter", "{event}", "I/O events of the waits.", _LOOP),
    Metric("asyncio.eventloop.stalls", "counter", "{stall}", "Stalls of the loop, by cause.", (*_LOOP, "cause")),
    # the tasks of a loop
    Metric("asyncio.task.created", "counter", "{task}", "Tasks made.", _LOOP),
    Metric("asyncio.task.completed", "counter", "{task}", "Tasks ended, by outcome.", (*_LOOP, "outcome")),
    Metric("asyncio.task.count", "updowncounter", "{task}", "Tasks that have not ended.", _LOOP),
    Metric("asyncio.task.duration", "histogram", "s", "Time from a task's birth to its end.", _LOOP),
    Metric("asyncio.task.start.delay", "histogram", "s", "Time from a task's birth to its first step.", _LOOP),
    Metric("asyncio.task.time", "counter", "s", "Time for which tasks ran, or were ready to run.", (*_LOOP, "state")),
    Metric("asyncio.task.polls", "counter", "{poll}", "Steps of tasks.", _LOOP),
    Metric("asyncio.task.poll.duration", "histogram", "s", "Duration of each step of a task.", _LOOP),
    Metric(
        "asyncio.task.eager_completions", "counter", "{task}", "Tasks that ended in the call that made them.", _LOOP
    ),
    Metric(
        "asyncio.task.abandoned", "counter", "{task}", "Tasks lost or never awaited, by reason.", (*_LOOP, "reason")
    ),
    Metric("asyncio.task.findings", "counter", "{finding}", "Other findings about tasks, by kind.", (*_LOOP, "kind")),
    Metric("asyncio.instrumentation.dropped", "counter", "{event}", "Events and findings that were not kept.", _LOOP),
    # the tasks by site
    Metric("asyncio.task.site.created", "counter", "{task}", "Tasks made at the site.", _SITE),
    Metric(
        "asyncio.task.site.completed",
        "counter",
        "{task}",
        "Tasks of the site that ended, by outcome.",
        (*_SITE, "outcome"),
    ),
    Metric("asyncio.task.site.count", "updowncounter", "{task}", "Tasks of the site that have not ended.", _SITE),
    Metric(
        "asyncio.task.site.time",
        "counter",
        "s",
        "Time for which the site's tasks ran, or were ready to run.",
        (*_SITE, "state"),
    ),
    # lanes
    Metric("asyncio.executor.worker.count", "updowncounter", "{worker}", "Workers, busy or idle.", (*_LANE, "state")),
    Metric("asyncio.executor.worker.limit", "updowncounter", "{worker}", "The most workers.", _LANE),
    Metric("asyncio.executor.utilization", "gauge", "1", "Share of the most workers that is busy.", _LANE),
    Metric(
        "asyncio.executor.queue.length", "updowncounter", "{job}", "Jobs admitted and not yet with a worker.", _LANE
    ),
    Metric("asyncio.executor.queue.limit", "updowncounter", "{job}", "The most jobs in the queue.", _LANE),
    Metric(
        "asyncio.executor.queue.waiting", "updowncounter", "{job}", "Jobs that wait for a place in the queue.", _LANE
    ),
    Metric("asyncio.executor.queue.duration", "histogram", "s", "Time from a job's offer to its start.", _LANE),
    Metric("asyncio.executor.job.count", "updowncounter", "{job}", "Jobs that are with a worker.", _LANE),
    Metric("asyncio.executor.job.duration", "histogram", "s", "Time from a job's start to its end.", _LANE),
    Metric("asyncio.executor.jobs", "counter", "{job}", "Jobs ended, by outcome.", (*_LANE, "outcome")),
    Metric("asyncio.executor.rejected", "counter", "{job}", "Jobs shed, by reason.", (*_LANE, "reason")),
    Metric(
        "asyncio.executor.transfer.io",
        "counter",
        "By",
        "Bytes sent to workers (out) and received from them (in).",
        (*_LANE, "direction", "transport"),
    ),
    Metric("asyncio.executor.worker.restarts", "counter", "{restart}", "Workers ended, by reason.", (*_LANE, "reason")),
    # gates
    Metric("asyncio.backpressure.permit.limit", "updowncounter", "{permit}", "Permits.", (GATE,)),
    Metric("asyncio.backpressure.permit.used", "updowncounter", "{permit}", "Permits in use.", (GATE,)),
    Metric(
        "asyncio.backpressure.streams", "updowncounter", "{stream}", "Streamed responses without a permit.", (GATE,)
    ),
    Metric(
        "asyncio.backpressure.permit.scale", "gauge", "1", "Share of the limit in force at the loop's lag.", (GATE,)
    ),
    Metric(
        "asyncio.backpressure.queue.length", "updowncounter", "{request}", "Requests that wait at the gate.", (GATE,)
    ),
    Metric(
        "asyncio.backpressure.queue.age", "gauge", "s", "Time for which the oldest waiting request has waited.", (GATE,)
    ),
    Metric("asyncio.backpressure.admitted", "counter", "{request}", "Requests admitted.", (GATE,)),
    Metric(
        "asyncio.backpressure.wait.duration",
        "histogram",
        "s",
        "Wait of requests that waited and were admitted.",
        (GATE,),
    ),
    Metric(
        "asyncio.backpressure.service.duration",
        "histogram",
        "s",
        "Time from admission to the end, of sampled requests.",
        (GATE,),
    ),
    Metric("asyncio.backpressure.rejected", "counter", "{request}", "Requests shed, by reason.", (GATE, REASON)),
    Metric(
        "asyncio.backpressure.disconnected",
        "counter",
        "{connection}",
        "Connections closed by a bound, by reason.",
        (REASON,),
    ),
    # the process
    Metric("cpython.gc.collections", "counter", "{collection}", "Garbage collections.", (GENERATION,)),
    Metric("cpython.gc.collected_objects", "counter", "{object}", "Objects freed by collections.", (GENERATION,)),
    Metric(
        "cpython.gc.uncollectable_objects",
        "counter",
        "{object}",
        "Objects that collections could not free.",
        (GENERATION,),
    ),
    Metric("process.cpu.time", "counter", "s", "CPU time, by mode.", ("cpu.mode",)),
    Metric("process.memory.usage", "updowncounter", "By", "Resident memory."),
    Metric("process.memory.virtual", "updowncounter", "By", "Virtual memory."),
    Metric("process.thread.count", "updowncounter", "{thread}", "Threads."),
    Metric("process.unix.file_descriptor.count", "updowncounter", "{file_descriptor}", "Open file descriptors."),
    Metric(
        "process.context_switches",
        "counter",
        "{context_switch}",
        "Context switches, by type.",
        ("process.context_switch.type",),
    ),
    Metric("process.paging.faults", "counter", "{fault}", "Page faults, by type.", ("system.paging.fault.type",)),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
