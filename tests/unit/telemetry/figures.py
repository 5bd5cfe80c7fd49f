"""Records of penstock's observers and lanes, filled by hand."""

from penstock.executors.counters import LaneCounters
from penstock.pressure.admission.gate import GateStatistics
from penstock.tasks.place import Place
from penstock.tasks.records import LoopFigures, SiteStatistics, TaskStatistics
from penstock.times import PlainHistogram, taken

FIGURES = {
    "turns": 7,
    "polls": 5,
    "events": 3,
    "callbacks": {"task": 40, "io": 2},
    "active_s": 1.0,
    "idle_s": 3.0,
    "ready_count": 4,
    "ready_age_s": 0.25,
    "timer_count": 6,
    "stalls": {"gil": 1},
}


def times(*seconds):
    histogram = PlainHistogram()
    for one in seconds:
        histogram.add(int(one * 1e9))
    return taken(histogram)


def loop_of(name="main", implementation="penstock", figures=FIGURES, **counts):
    filled = LoopFigures(**figures, delay=times(0.003, 0.2)) if figures else LoopFigures()
    return TaskStatistics(name, implementation, "time", **counts, figures=filled)


def lane_of(name="cpu", kind="processes", *, wait_s=(0.002,), **gauges):
    meter = LaneCounters(name, kind)
    for one in wait_s:
        meter.waited(int(one * 1e9))
    meter.ended("ok")
    meter.moved("out_shm", 4096)
    return meter.snapshot(**gauges)


def site_of(line, created, *, live=0, running_s=0.0):
    return SiteStatistics(Place("app.py", line, f"work{line}"), created, created - live, 0, 0, live, running_s, 0.0)


def gate_of(name="api", limit=8, *, sheds=None, **gauges):
    told = {"scale": 1.0, "inflight": 3, "queued": 2, "oldest_wait_s": 0.25, "admitted": 9, "finished": 6, "waited": 4}
    return GateStatistics(
        name,
        limit,
        **told | gauges,
        wait=times(0.02),
        service=times(0.01, 0.03),
        sheds=sheds or {"wait": 5, "limit": 0},
    )
