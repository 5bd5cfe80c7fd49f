"""The OpenTelemetry exporter: observable instruments for all readings. Extra `otel`, which is the API package alone.

The Python SDK does not take an existing histogram (it has no MetricProducer), and to record each event would cost more
than the event. So a histogram is exported as gauges, its percentiles over about the last minute.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from penstock.telemetry.names import METRICS, SUMMARIES, Metric
from penstock.telemetry.readings import MetricReader, Sources
from penstock.times import Times, since

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.telemetry.readings import Values

__all__ = ["Instruments"]

# A collection reads all instruments, one after the other; they share a reading that is no older than this.
FRESH_S = 0.05
# the window of percentiles, and the snapshots kept for it
WINDOW_S = 60.0
SNAPSHOTS = 12


class Instruments:
    """All metrics, registered with a meter. Each collection reads the sources, until `close`.

    `meter` is by default the global provider's. `most_sites` and `process` are as for `MetricReader`. `window_s` is the
    window of percentiles in seconds; `clock` returns seconds. Raises ImportError if opentelemetry-api is not installed.
    """

    def __init__(
        self,
        sources: Sources,
        meter: Any = None,
        *,
        most_sites: int = 50,
        process: bool = True,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        metrics = _metrics()
        self._observation = metrics.Observation
        self._readings = MetricReader(sources, most_sites=most_sites, process=process)
        self._recent = RecentTimes(window_s)
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: dict[str, Values] = {}
        self._taken_s = float("-inf")
        self._is_closed = False
        for metric in METRICS.values():
            self._register(meter or metrics.get_meter("penstock"), metric)

    def close(self) -> None:
        """Stop exporting values. (The API cannot unregister an instrument.)"""
        self._is_closed = True
        self._taken = {}

    def _register(self, meter: Any, metric: Metric) -> None:
        if metric.instrument == "histogram":
            for summary in SUMMARIES:
                text = f"{metric.help} The {summary} of the last minute or so."
                meter.create_observable_gauge(
                    f"{metric.name}.{summary}", [self._summary(metric, summary)], metric.unit, text
                )
            return
        create = {
            "counter": meter.create_observable_counter,
            "updowncounter": meter.create_observable_up_down_counter,
            "gauge": meter.create_observable_gauge,
        }[metric.instrument]
        create(metric.name, [self._values(metric)], metric.unit, metric.help)

    def _values(self, metric: Metric) -> Callable[[object], Iterator[Any]]:
        def observe(options: object) -> Iterator[Any]:
            for attributes, value in self._take().get(metric.name, {}).items():
                yield self._observation(value, _named(metric, attributes))

        return observe

    def _summary(self, metric: Metric, summary: str) -> Callable[[object], Iterator[Any]]:
        def observe(options: object) -> Iterator[Any]:
            for attributes, value in self._take().get(metric.name, {}).items():
                if isinstance(value, Times):
                    with self._lock:
                        recent = self._recent.of((metric.name, *attributes), value, self._taken_s)
                    if recent.count:
                        yield self._observation(getattr(recent, f"{summary}_s"), _named(metric, attributes))

        return observe

    def _take(self) -> dict[str, Values]:
        with self._lock:
            now_s = self._clock()
            if not self._is_closed and now_s - self._taken_s > FRESH_S:
                self._taken, self._taken_s = self._readings.take(), now_s
            return self._taken


class RecentTimes:
    """The times of about the last `window_s` seconds, by snapshots of a histogram from earlier readings.

    Several readers at different intervals get the same result. Series that have ended are removed.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        # series -> (time, snapshot), oldest first
        self._kept: dict[tuple[str, ...], deque[tuple[float, Times]]] = {}

    def of(self, series: tuple[str, ...], now: Times, now_s: float) -> Times:
        """Return the times of a series since the snapshot as old as the window, or since the start if none is."""
        kept = self._kept.setdefault(series, deque([(float("-inf"), Times())]))
        if now.count < kept[-1][1].count:  # another histogram under the same name
            kept = self._kept[series] = deque([(float("-inf"), Times())])
        while len(kept) > 1 and kept[1][0] <= now_s - self._window_s:
            kept.popleft()
        if now_s - kept[-1][0] >= self._window_s / SNAPSHOTS:
            kept.append((now_s, now))
            self._forget(now_s)
        return since(now, kept[0][1])

    def _forget(self, now_s: float) -> None:
        old = [series for series, kept in self._kept.items() if kept[-1][0] < now_s - 2 * self._window_s]
        for series in old:
            del self._kept[series]


def _named(metric: Metric, attributes: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(metric.attributes, attributes, strict=True))


def _metrics() -> Any:
    try:
        from opentelemetry import metrics
    except ImportError:
        raise ImportError("OpenTelemetry's metrics need opentelemetry-api: pip install 'penstock[otel]'") from None
    return metrics
