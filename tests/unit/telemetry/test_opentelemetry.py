"""OpenTelemetry's instruments and spans, read back through the SDK."""

import sys

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from penstock.tasks.finding import Finding
from penstock.tasks.place import Place
from penstock.telemetry import Instruments, Sources, Spans, span_of
from penstock.telemetry.names import METRICS, SUMMARIES
from penstock.telemetry.opentelemetry import RecentTimes
from tests.unit.telemetry.figures import gate_of, lane_of, loop_of, site_of, times

LOOP = {"asyncio.eventloop.name": "main", "asyncio.eventloop.implementation": "penstock"}


class Meter:
    """A provider with a reader, a clock that stands still, and what the reader gets."""

    def __init__(self, sources, **how):
        self.reader = InMemoryMetricReader()
        self.now_s = 1000.0
        self.provider = MeterProvider([self.reader])
        meter = self.provider.get_meter("test")
        self.instruments = Instruments(sources, meter, process=False, clock=lambda: self.now_s, **how)

    def read(self, after_s=1.0):
        self.now_s += after_s
        data = self.reader.get_metrics_data()
        scopes = [scope for found in data.resource_metrics for scope in found.scope_metrics] if data else []
        return {metric.name: metric for scope in scopes for metric in scope.metrics}


@pytest.fixture
def metered():
    made = []

    def meter(sources, **how):
        made.append(Meter(sources, **how))
        return made[-1]

    yield meter
    for one in made:
        one.provider.shutdown()


def values(metric):
    return {tuple(sorted(point.attributes.items())): point.value for point in metric.data.data_points}


def value(metric):
    (point,) = metric.data.data_points
    return point.value


def test_every_metric_that_has_a_value_is_read_with_its_unit_and_kind(metered):
    sources = Sources(
        lambda: [loop_of(created=9, latency=times(1), findings={"hung": 1})],
        lambda: {"main": [lane_of(workers_limit=2)]},
        lambda: {"main": [site_of(1, 9)]},
        lambda: [gate_of()],
        disconnects=lambda: {"idle": 3},
    )
    found = metered(sources).read()
    assert value(found["asyncio.task.created"]) == 9
    assert found["asyncio.task.created"].data.data_points[0].attributes == LOOP
    for name, metric in METRICS.items():
        if name.startswith("asyncio.") and metric.instrument != "histogram":
            assert found[name].unit == metric.unit
            assert isinstance(found[name].data, Sum) == (metric.instrument != "gauge")
            if isinstance(found[name].data, Sum):
                assert found[name].data.is_monotonic == (metric.instrument == "counter")


def test_a_histogram_is_read_as_percentiles(metered):
    found = metered(Sources(lambda: [loop_of(latency=times(*[0.01] * 98, 2.0, 2.0))])).read()
    read = {name: value(found[f"asyncio.task.duration.{name}"]) for name in SUMMARIES}
    assert read["p50"] == pytest.approx(0.01, rel=0.03)
    assert read["p99"] == pytest.approx(2.0, rel=0.03)
    assert read["max"] == 2.0
    assert read["mean"] == pytest.approx(0.0498)
    assert "asyncio.task.start.delay.p99" not in found, "nothing took any time: there is no percentile"


def test_percentiles_are_of_about_the_last_minute(metered):
    slow, fast = [2.0] * 10, [0.01] * 10
    given = [times(*slow)]
    meter = metered(Sources(lambda: [loop_of(latency=given[-1])]))
    p50 = "asyncio.task.duration.p50"
    assert value(meter.read()[p50]) == pytest.approx(2.0, rel=0.03)
    given.append(times(*slow, *fast[:5]))
    assert value(meter.read(30)[p50]) == pytest.approx(2.0, rel=0.03)
    given.append(times(*slow, *fast))
    assert value(meter.read(45)[p50]) == pytest.approx(0.01, rel=0.03)
    meter.read(60)
    # nothing in the last minute
    assert p50 not in meter.read(60)


def test_a_histogram_that_starts_anew_is_not_compared_with_the_old_one():
    recent = RecentTimes(60)
    recent.of(("name",), times(1, 2, 3), 10.0)
    assert recent.of(("name",), times(5), 100.0) == times(5)


def test_series_that_have_gone_are_forgotten():
    recent = RecentTimes(60)
    recent.of(("gone",), times(1), 0.0)
    recent.of(("here",), times(1), 500.0)
    assert list(recent._kept) == [("here",)]


def test_one_collection_asks_the_sources_once(metered):
    asked = []

    def tasks():
        asked.append(1)
        return [loop_of()]

    meter = metered(Sources(tasks))
    meter.read()
    meter.read()
    assert len(asked) == 2


def test_closed_instruments_give_nothing(metered):
    meter = metered(Sources(lambda: [loop_of(created=1)]))
    assert meter.read()
    meter.instruments.close()
    assert not [metric for metric in meter.read().values() if metric.data.data_points]


# spans


@pytest.fixture
def spans():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test"), exporter.get_finished_spans
    provider.shutdown()


def finding(kind="stall", **fields):
    return Finding(kind, f"a {kind}", **{"wall_time_s": 1700000000.5, "loop": "main"} | fields)


def test_a_stall_is_a_span_with_its_true_start_and_end(spans):
    tracer, finished = spans
    evidence = {"lasted_s": 0.25, "cause": "python", "stack": ["a", "b"], "counts": {"x": 1}, "nothing": None}
    Spans(tracer)(finding(task="t", site=Place("app.py", 7, "work"), evidence=evidence))
    (span,) = finished()
    assert (span.name, span.start_time, span.end_time) == (
        "asyncio.eventloop.stall",
        1700000000_500000000,
        1700000000_750000000,
    )
    assert dict(span.attributes) == {
        "asyncio.eventloop.name": "main",
        "asyncio.finding.kind": "stall",
        "asyncio.task.name": "t",
        "code.file.path": "app.py",
        "code.line.number": 7,
        "code.function.name": "work",
        "asyncio.finding.lasted_s": 0.25,
        "asyncio.finding.cause": "python",
        "asyncio.finding.stack": ("a", "b"),
        "asyncio.finding.counts": '{"x": 1}',
    }
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "a stall")


def test_a_finding_that_goes_on_is_a_span_until_now(spans):
    tracer, finished = spans
    span_of(finding(), tracer, clock=lambda: 1700000003.0)
    assert finished()[0].end_time == 1700000003_000000000


def test_a_stall_that_lasts_is_a_span_once_it_has_ended(spans):
    tracer, finished = spans
    listener = Spans(tracer)
    listener(finding(evidence={"lasted_s": 0.1, "ended": False}))
    assert finished() == ()
    listener(finding(evidence={"lasted_s": 0.5, "ended": True}))
    assert [span.end_time - span.start_time for span in finished()] == [500_000_000]


@pytest.mark.parametrize("kind", ["exception_unretrieved", "failed"])
def test_a_failed_task_is_a_span_as_long_as_the_task(spans, kind):
    tracer, finished = spans
    Spans(tracer)(finding(kind, evidence={"age_s": 2.0}))
    (span,) = finished()
    assert (span.name, span.end_time - span.start_time) == ("asyncio.task.failed", 2_000_000_000)


def test_other_findings_are_no_spans(spans):
    tracer, finished = spans
    for kind in ("hung", "growing", "never_awaited"):
        Spans(tracer)(finding(kind))
    assert finished() == ()


def test_a_span_of_a_finding_belongs_to_no_span_of_the_thread_that_found_it(spans):
    tracer, finished = spans
    with tracer.start_as_current_span("the caller's"):
        Spans(tracer)(finding())
    assert finished()[0].parent is None


@pytest.mark.parametrize("made", [Spans, lambda: Instruments(Sources())])
def test_without_the_api_the_error_says_what_to_install(monkeypatch, made):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r"pip install 'penstock\[otel\]'"):
        made()
