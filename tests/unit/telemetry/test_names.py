"""The table of metrics: names as OpenTelemetry has them, Prometheus's by its rule, the guide in step with both."""

import pkgutil
import re

from penstock.telemetry.names import METRICS, SITE, SUMMARIES
from tests.meta.source import ROOT

GUIDE = (ROOT / "docs" / "telemetry.md").read_text()
SOURCES = sorted((ROOT / "src" / "penstock" / "telemetry").glob("*.py"))


def test_the_records_that_docstrings_name_exist():
    paths = {path for source in SOURCES for path in re.findall(r"`(penstock(?:\.\w+)+)`", source.read_text())}
    assert "penstock.tasks.Finding" in paths
    for path in paths:
        pkgutil.resolve_name(path)


def test_prometheus_names_follow_opentelemetrys_rule():
    expected = {
        "asyncio.eventloop.delay": "asyncio_eventloop_delay_seconds",
        "asyncio.eventloop.time": "asyncio_eventloop_time_seconds_total",
        "asyncio.eventloop.utilization": "asyncio_eventloop_utilization_ratio",
        "asyncio.eventloop.iterations": "asyncio_eventloop_iterations_total",
        "asyncio.eventloop.iteration.duration": "asyncio_eventloop_iteration_duration_seconds",
        "asyncio.eventloop.ready.count": "asyncio_eventloop_ready_count",
        "asyncio.executor.transfer.io": "asyncio_executor_transfer_io_bytes_total",
    }
    assert {name: METRICS[name].prometheus for name in expected} == expected


def test_no_two_series_of_prometheus_have_one_name():
    endings = {"counter": ("_total", "_created"), "histogram": ("_bucket", "_sum", "_count", "_created")}
    names = [
        metric.prometheus_family + ending
        for metric in METRICS.values()
        for ending in ("", *endings.get(metric.instrument, ()))
    ]
    assert len(names) == len(set(names))


def test_names_instruments_and_units_are_of_the_known_kinds():
    for name, metric in METRICS.items():
        assert re.fullmatch(r"(asyncio|cpython|process)(\.[a-z_]+)+", name)
        assert not name.endswith("_total")
        assert metric.instrument in {"counter", "updowncounter", "gauge", "histogram"}
        assert metric.unit in {"s", "By", "1"} or re.fullmatch(r"\{[a-z_]+\}", metric.unit)
        assert metric.help.endswith(".")


def test_no_attribute_names_a_task():
    attributes = {attribute for metric in METRICS.values() for attribute in metric.attributes}
    assert SITE in attributes
    assert not {name for name in attributes if re.search(r"task\.(id|name|number)", name)}


def test_the_guide_has_a_line_for_each_metric_and_no_other():
    lines = [
        line
        for line in GUIDE.splitlines()
        if re.match(r"\| `(asyncio|cpython|process)\.", line) and line.count("|") == 6
    ]
    assert lines == [row(metric) for metric in METRICS.values()], "expected:\n" + "\n".join(map(row, METRICS.values()))


def row(metric):
    attributes = ", ".join(f"`{name}`" for name in metric.attributes) or "none"
    return f"| `{metric.name}` | `{metric.prometheus}` | {metric.instrument} | {metric.unit} | {attributes} |"


def test_the_guide_names_the_gauges_of_a_histogram():
    assert ", ".join(f"`.{summary}`" for summary in SUMMARIES) in GUIDE
