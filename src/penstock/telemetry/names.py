"""What the metrics are called: one table for both exporters, as data. No value and no exporter is known here.

The names follow OpenTelemetry's conventions, modelled on `nodejs.eventloop.*` and `go.*`; Prometheus's names follow
from them by OpenTelemetry's own rule. No attribute has many values: never a task's name or number.
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
# the site that stands for those beyond the most that are shown
OTHER = "other"

# where Prometheus's histograms have their bounds, in seconds
BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# what OpenTelemetry gets of a histogram: a gauge each, `<name>.p99` and so on
SUMMARIES = ("mean", "p50", "p90", "p99", "max")

# the unit's word in a Prometheus name; a unit in braces, which counts things, has none
_UNIT_WORDS = {"s": "seconds", "By": "bytes", "1": "ratio"}


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `instrument` is counter, updowncounter, gauge or histogram; `attributes` are those it always has."""

    name: str
    instrument: str
    # UCUM: s, By, 1, or what is counted, in braces
    unit: str
    help: str
    attributes: tuple[str, ...] = ()

    @property
    def prometheus_unit(self) -> str:
        """The unit as Prometheus spells it: "seconds"; "" for counts."""
        return _UNIT_WORDS.get(self.unit, "")

    @property
    def prometheus_family(self) -> str:
        """The name of the metric family: of a counter without `_total`."""
        base = prometheus_label(self.name)
        return f"{base}_{self.prometheus_unit}" if self.prometheus_unit else base

    @property
    def prometheus(self) -> str:
        """The name that Prometheus stores, and queries ask for; a histogram's without `_bucket`."""
        return f"{self.prometheus_family}_total" if self.instrument == "counter" else self.prometheus_family


def prometheus_label(attribute: str) -> str:
    """An attribute's name as a Prometheus label."""
    return attribute.replace(".", "_")


_LOOP = LOOP, IMPLEMENTATION
_SITE = LOOP, SITE
_LANE = LOOP, EXECUTOR, EXECUTOR_KIND

_ALL = (
    # a loop's turns
    Metric("asyncio.eventloop.time", "counter", "s", "Time that the loop ran callbacks, or waited.", (*_LOOP, "state")),
    Metric("asyncio.eventloop.utilization", "gauge", "1", "Share of its time that the loop ran callbacks.", _LOOP),
    Metric("asyncio.eventloop.iterations", "counter", "{iteration}", "Turns of the loop.", _LOOP),
    Metric("asyncio.eventloop.iteration.duration", "histogram", "s", "Of each turn that ran something.", _LOOP),
    Metric("asyncio.eventloop.callbacks", "counter", "{callback}", "Callbacks run, by kind.", (*_LOOP, "kind")),
    Metric("asyncio.eventloop.callback.duration", "histogram", "s", "Of each callback.", _LOOP),
    Metric("asyncio.eventloop.delay", "histogram", "s", "How long what was ready waited to be run.", _LOOP),
    Metric("asyncio.eventloop.ready.count", "updowncounter", "{handle}", "Callbacks ready to run now.", _LOOP),
    Metric("asyncio.eventloop.ready.age", "gauge", "s", "How long the oldest of them has been ready.", _LOOP),
    Metric("asyncio.eventloop.timer.count", "updowncounter", "{timer}", "Timers set now.", _LOOP),
    Metric("asyncio.eventloop.polls", "counter", "{poll}", "Waits for the operating system.", _LOOP),
    Metric("asyncio.eventloop.poll.duration", "histogram", "s", "Of each wait for the operating system.", _LOOP),
    Metric("asyncio.eventloop.wake.duration", "histogram", "s", "From a wait's end to the first callback.", _LOOP),
    Metric("asyncio.eventloop.io.events", "counter", "{event}", "I/O events that the waits gave.", _LOOP),
    Metric(
        "asyncio.eventloop.stalls", "counter", "{stall}", "Times the loop was held up, by cause.", (*_LOOP, "cause")
    ),
    # a loop's tasks
    Metric("asyncio.task.created", "counter", "{task}", "Tasks made.", _LOOP),
    Metric("asyncio.task.completed", "counter", "{task}", "Tasks ended, by how.", (*_LOOP, "outcome")),
    Metric("asyncio.task.count", "updowncounter", "{task}", "Tasks that have not ended.", _LOOP),
    Metric("asyncio.task.duration", "histogram", "s", "From a task's birth to its end.", _LOOP),
    Metric("asyncio.task.start.delay", "histogram", "s", "From a task's birth to its first step.", _LOOP),
    Metric("asyncio.task.time", "counter", "s", "Time that tasks ran, or were ready to.", (*_LOOP, "state")),
    Metric("asyncio.task.polls", "counter", "{poll}", "Steps of tasks.", _LOOP),
    Metric("asyncio.task.poll.duration", "histogram", "s", "Of each step of a task.", _LOOP),
    Metric(
        "asyncio.task.eager_completions", "counter", "{task}", "Tasks that ended in the call that made them.", _LOOP
    ),
    Metric(
        "asyncio.task.abandoned", "counter", "{task}", "Tasks lost or never awaited, by reason.", (*_LOOP, "reason")
    ),
    Metric("asyncio.task.findings", "counter", "{finding}", "Other findings about tasks, by kind.", (*_LOOP, "kind")),
    Metric("asyncio.instrumentation.dropped", "counter", "{event}", "Events that telemetry has let go.", _LOOP),
    # the tasks by where they are made
    Metric("asyncio.task.site.created", "counter", "{task}", "Tasks made there.", _SITE),
    Metric("asyncio.task.site.completed", "counter", "{task}", "Tasks made there and ended.", (*_SITE, "outcome")),
    Metric("asyncio.task.site.count", "updowncounter", "{task}", "Tasks made there that have not ended.", _SITE),
    Metric("asyncio.task.site.time", "counter", "s", "Time that they ran, or were ready to.", (*_SITE, "state")),
    # lanes
    Metric("asyncio.executor.worker.count", "updowncounter", "{worker}", "Workers there are.", (*_LANE, "state")),
    Metric("asyncio.executor.worker.limit", "updowncounter", "{worker}", "Workers there may be.", _LANE),
    Metric("asyncio.executor.utilization", "gauge", "1", "Share of the workers there may be that is busy.", _LANE),
    Metric(
        "asyncio.executor.queue.length", "updowncounter", "{job}", "Jobs admitted and not yet with a worker.", _LANE
    ),
    Metric("asyncio.executor.queue.limit", "updowncounter", "{job}", "Jobs that may be queued.", _LANE),
    Metric(
        "asyncio.executor.queue.waiting", "updowncounter", "{job}", "Jobs that wait for a place in the queue.", _LANE
    ),
    Metric("asyncio.executor.queue.duration", "histogram", "s", "From a job's offer to its start.", _LANE),
    Metric("asyncio.executor.job.count", "updowncounter", "{job}", "Jobs that are with a worker.", _LANE),
    Metric("asyncio.executor.job.duration", "histogram", "s", "From a job's start to its end.", _LANE),
    Metric("asyncio.executor.jobs", "counter", "{job}", "Jobs ended, by how.", (*_LANE, "outcome")),
    Metric("asyncio.executor.rejected", "counter", "{job}", "Jobs refused, by reason.", (*_LANE, "reason")),
    Metric(
        "asyncio.executor.transfer.io",
        "counter",
        "By",
        "Bytes that went to workers (out) and came from them (in).",
        (*_LANE, "direction", "transport"),
    ),
    Metric("asyncio.executor.worker.restarts", "counter", "{restart}", "Workers ended, by reason.", (*_LANE, "reason")),
    # gates
    Metric("asyncio.backpressure.permit.limit", "updowncounter", "{permit}", "Permits there are.", (GATE,)),
    Metric("asyncio.backpressure.permit.used", "updowncounter", "{permit}", "Permits that are held.", (GATE,)),
    Metric("asyncio.backpressure.streams", "updowncounter", "{stream}", "Responses that hold no permit.", (GATE,)),
    Metric(
        "asyncio.backpressure.permit.scale", "gauge", "1", "Share of the limit that the loop's lag leaves.", (GATE,)
    ),
    Metric("asyncio.backpressure.queue.length", "updowncounter", "{request}", "Requests that wait at it.", (GATE,)),
    Metric("asyncio.backpressure.queue.age", "gauge", "s", "How long the oldest of them has waited.", (GATE,)),
    Metric("asyncio.backpressure.admitted", "counter", "{request}", "Requests let in.", (GATE,)),
    Metric(
        "asyncio.backpressure.wait.duration", "histogram", "s", "How long those waited that had to and got in.", (GATE,)
    ),
    Metric(
        "asyncio.backpressure.service.duration",
        "histogram",
        "s",
        "How long permits were held, of those measured.",
        (GATE,),
    ),
    Metric("asyncio.backpressure.rejected", "counter", "{request}", "Requests refused, by reason.", (GATE, REASON)),
    Metric(
        "asyncio.backpressure.disconnected",
        "counter",
        "{connection}",
        "Connections cut by a bound, by reason.",
        (REASON,),
    ),
    # the process
    Metric("cpython.gc.collections", "counter", "{collection}", "Garbage collections.", (GENERATION,)),
    Metric("cpython.gc.collected_objects", "counter", "{object}", "Objects that they freed.", (GENERATION,)),
    Metric("cpython.gc.uncollectable_objects", "counter", "{object}", "Objects they could not free.", (GENERATION,)),
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
