"""The collector: a registry writes the records' values in both of Prometheus's text formats."""

import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from penstock.telemetry import Collector, Sources
from penstock.telemetry.names import METRICS
from tests.unit.telemetry.figures import gate_of, lane_of, loop_of, site_of, times

LOOP = {"asyncio_eventloop_name": "main", "asyncio_eventloop_implementation": "penstock"}


def sources():
    return Sources(
        lambda: [loop_of(created=9, completed=8, live=1, latency=times(0.003, 0.02, 60))],
        lambda: {"main": [lane_of(workers=2, workers_limit=4)]},
        lambda: {"main": [site_of(1, 9)]},
        lambda: [gate_of()],
        lambda: {("loop", "lag"): 2600},
        lambda: {"idle": 3},
    )


def registered(**how):
    registry = CollectorRegistry(auto_describe=True)
    registry.register(Collector(sources(), **how))
    return registry


def test_counters_and_gauges_arrive_with_their_labels():
    registry = registered()
    assert registry.get_sample_value("asyncio_task_created_total", LOOP) == 9
    assert registry.get_sample_value("asyncio_task_completed_total", LOOP | {"outcome": "returned"}) == 8
    assert registry.get_sample_value("asyncio_task_count", LOOP) == 1
    assert registry.get_sample_value("asyncio_eventloop_utilization_ratio", LOOP) == 0.25
    lane = {
        "asyncio_eventloop_name": "main",
        "asyncio_executor_name": "cpu",
        "asyncio_executor_kind": "process",
    }
    assert registry.get_sample_value("asyncio_executor_worker_count", lane | {"state": "idle"}) == 2
    gate = {"asyncio_backpressure_gate": "api"}
    assert registry.get_sample_value("asyncio_backpressure_permit_limit", gate) == 8
    assert registry.get_sample_value("asyncio_backpressure_permit_scale_ratio", gate) == 1
    assert registry.get_sample_value("asyncio_backpressure_rejected_total", gate | {"reason": "wait"}) == 5
    assert registry.get_sample_value("asyncio_backpressure_wait_duration_seconds_count", gate) == 1
    loop = {"asyncio_backpressure_gate": "loop", "reason": "lag"}
    assert registry.get_sample_value("asyncio_backpressure_rejected_total", loop) == 2600
    assert registry.get_sample_value("asyncio_backpressure_disconnected_total", {"reason": "idle"}) == 3


def test_a_histogram_is_handed_over_in_the_default_bounds():
    registry, name = registered(), "asyncio_task_duration_seconds"
    buckets = {
        bound: registry.get_sample_value(f"{name}_bucket", LOOP | {"le": bound})
        for bound in ("0.0001", "0.0025", "0.005", "0.025", "5.0", "+Inf")
    }
    assert buckets == {"0.0001": 0, "0.0025": 0, "0.005": 1, "0.025": 2, "5.0": 2, "+Inf": 3}
    assert registry.get_sample_value(f"{name}_count", LOOP) == 3
    assert registry.get_sample_value(f"{name}_sum", LOOP) == pytest.approx(60.023)


def test_given_bounds_replace_the_default_ones():
    registry = registered(bounds_s=(1, 100))
    buckets = [
        sample.labels["le"]
        for family in registry.collect()
        if family.name == "asyncio_task_duration_seconds"
        for sample in family.samples
        if sample.name.endswith("_bucket")
    ]
    assert buckets == ["1.0", "100.0", "+Inf"]


@pytest.mark.parametrize(
    ("written", "parse"), [(generate_latest, parse_text), (generate_openmetrics, parse_openmetrics)]
)
def test_the_text_is_prometheuss_format(written, parse):
    families = {family.name: family for family in parse(written(registered()).decode())}
    assert families["asyncio_task_duration_seconds"].type == "histogram"
    samples = {sample.name for family in families.values() for sample in family.samples}
    for metric in METRICS.values():
        ending = "_bucket" if metric.instrument == "histogram" else ""
        # a kind of finding that was never made has no series
        assert metric.prometheus + ending in samples or metric.name == "asyncio.task.findings"


def test_each_scrape_asks_the_sources_and_registering_does_not():
    asked = []

    def tasks():
        asked.append(1)
        return [loop_of(created=len(asked))]

    registry = CollectorRegistry(auto_describe=True)
    registry.register(Collector(Sources(tasks)))
    assert asked == []
    assert registry.get_sample_value("asyncio_task_created_total", LOOP) == 1
    assert registry.get_sample_value("asyncio_task_created_total", LOOP) == 2


def test_a_second_collector_in_one_registry_is_refused():
    with pytest.raises(ValueError, match="asyncio_eventloop_time"):
        registered().register(Collector(Sources()))


def test_without_prometheus_client_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r"pip install 'penstock\[prometheus\]'"):
        Collector(Sources())
