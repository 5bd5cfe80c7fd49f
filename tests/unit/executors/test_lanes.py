"""The set of a loop's lanes: made by name, at first use, shut together."""

import asyncio
import concurrent.futures
import socket
import sys
import threading

import pytest

import penstock
from penstock import ExecutorsConfig, LaneConfig
from penstock.errors import ConfigError, ReferenceNotFoundError
from penstock.executors import lanes as module
from penstock.executors.counters import LaneCounters
from penstock.executors.lane import Lane
from penstock.executors.lanes import LaneSet, build_lane, lane_sets

NOT_AN_EXECUTOR = 5


def make_pool():
    return concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="made")


def make_nonsense():
    return 5


class Quiet(Lane):
    """Runs nothing; notes what it is told."""

    def __init__(self, name, config, notes):
        super().__init__(name, config)
        self._counters = LaneCounters(name, "quiet")
        self.notes = notes

    def _offer(self, job):
        pass

    def start(self, loop):
        self.notes.append(("start", self.name, loop))

    def statistics(self):
        return f"those of {self.name}"

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.notes.append(("shutdown", self.name, wait, cancel_futures))


@pytest.fixture
def notes(monkeypatch):
    """Return the arguments of the lanes that a set builds."""
    told = []
    monkeypatch.setattr(module, "build_lane", lambda name, config, lanes: Quiet(name, config, told))
    return told


def test_a_lane_is_made_once_at_first_use(notes):
    lanes = LaneSet(ExecutorsConfig(lanes={"db": LaneConfig(workers=8)}))
    assert (lanes.names(), lanes.made(), lanes.statistics()) == (("io", "cpu", "dns", "db"), [], {})
    db = lanes.get("db")
    assert lanes.get("db") is db
    assert (db.name, db.config.workers) == ("db", 8)
    assert lanes.made() == [db]
    assert lanes.statistics() == {"db": "those of db"}


def test_threads_that_ask_at_once_get_the_same_lane(monkeypatch):
    together, made = threading.Barrier(4), []
    monkeypatch.setattr(module, "build_lane", lambda name, config, lanes: made.append(name) or Quiet(name, config, []))
    lanes = LaneSet(ExecutorsConfig())

    def ask():
        together.wait(5)
        return lanes.get("cpu")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = [future.result() for future in [pool.submit(ask) for _ in range(4)]]
    assert made == ["cpu"]
    assert len({id(lane) for lane in found}) == 1


@pytest.mark.parametrize(
    ("name", "hint"), [("dbb", "did you mean 'db'"), ("tape", "executors.lanes.tape would declare it")]
)
def test_an_unknown_name_is_told_with_the_lanes_there_are(notes, name, hint):
    lanes = LaneSet(ExecutorsConfig(lanes={"db": LaneConfig()}))
    with pytest.raises(ConfigError, match=f"no lane '{name}': there are io, cpu, dns, db; {hint}") as caught:
        lanes.get(name)
    assert "\n" not in str(caught.value)


def test_the_default_is_a_lane_or_an_executor_of_the_programs_own(notes):
    assert LaneSet(ExecutorsConfig()).default().name == "io"
    lanes = LaneSet(ExecutorsConfig(default="cpu"))
    assert lanes.default() is lanes.get("cpu")
    with make_pool() as pool:
        assert LaneSet(ExecutorsConfig(default=pool)).default() is pool
    lanes = LaneSet(ExecutorsConfig(default=f"{__name__}:make_pool"))
    made = lanes.default()
    assert lanes.default() is made
    assert lanes.made() == [made]
    lanes.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        made.submit(int)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"default": f"{__name__}:NOT_AN_EXECUTOR"}, ConfigError, r"executors\.default = .* \(it gives a int\)"),
        ({"cpu": f"{__name__}:NOT_AN_EXECUTOR"}, ConfigError, r"executors\.cpu = .* \(it gives a int\)"),
        (
            {"lanes": {"db": f"{__name__}:nothing"}},
            ReferenceNotFoundError,
            r"executors\.lanes\.db = .*has no 'nothing'",
        ),
        ({"default": "no_such_module_here:f"}, ReferenceNotFoundError, "there is no module 'no_such_module_here'"),
    ],
)
def test_a_name_that_means_no_executor_is_told_at_once(config, error, message):
    with pytest.raises(error, match=message):
        LaneSet(ExecutorsConfig(**config))


def test_what_a_function_makes_must_be_an_executor():
    with pytest.raises(ConfigError, match=r"executors\.default = .* \(it gives a int\): allowed is a concurrent"):
        LaneSet(ExecutorsConfig(default=make_nonsense_name())).default()


def make_nonsense_name():
    return f"{__name__}:make_nonsense"


def test_all_lanes_are_told_to_end_before_one_is_waited_for(notes):
    lanes = LaneSet(ExecutorsConfig())
    lanes.get("io"), lanes.get("cpu")
    lanes.shutdown(cancel_futures=True)
    assert [note[1:] for note in notes] == [(name, wait, True) for wait in (False, True) for name in ("io", "cpu")]


def test_a_set_that_is_shut_makes_no_lane_any_more(notes):
    lanes = LaneSet(ExecutorsConfig(cpu=LaneConfig("processes", min_workers=2)))
    lanes.shutdown(wait=False)
    for ask in (lambda: lanes.get("cpu"), lanes.default):
        with pytest.raises(RuntimeError, match="lanes are shut down"):
            ask()
    lanes.start(None)
    assert lanes.made() == []


def test_a_run_starts_the_lanes_there_are_and_those_that_want_workers(notes):
    lanes = LaneSet(ExecutorsConfig(cpu=LaneConfig("processes", min_workers=2)))
    lanes.get("dns")
    loop = asyncio.new_event_loop()
    lanes.start(loop)
    loop.close()
    assert notes == [("start", "cpu", loop), ("start", "dns", loop)]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there are interpreters")
def test_a_lane_of_interpreters_is_refused_with_the_whole_config_where_there_are_none():
    with pytest.raises(ConfigError, match=r"^lane 'side' = 'interpreters' needs Python 3\.14 or later"):
        LaneSet(ExecutorsConfig(lanes={"side": "interpreters"}))


def test_what_only_processes_can_run_has_a_lane_of_processes(notes, monkeypatch):
    monkeypatch.setattr("penstock.executors.backends.interpreters.FIRST", (3, 11))
    lanes = LaneSet(ExecutorsConfig(lanes={"side": "interpreters workers=3"}))
    assert lanes.processes_for("side") is lanes.get("cpu")
    lanes = LaneSet(ExecutorsConfig(cpu=LaneConfig("interpreters", workers=3)))
    own = lanes.processes_for("cpu")
    assert own is lanes.processes_for("cpu")
    assert (own.name, own.config) == ("cpu-processes", LaneConfig("processes", workers=3))


def test_a_lane_of_threads_is_built_for_the_kind_threads():
    lane = build_lane("db", LaneConfig(workers=1), None)
    try:
        assert lane.submit(lambda: threading.current_thread().name).result(5).startswith("penstock-db")
    finally:
        lane.shutdown()


def test_the_process_knows_the_lanes_of_each_loop_that_runs(notes):
    loops, lanes = [asyncio.new_event_loop() for _ in range(2)], [LaneSet(ExecutorsConfig()) for _ in range(2)]
    for loop, its in zip(loops, lanes, strict=True):
        its.start(loop)
    known = [found for found in lane_sets() if found[0] in loops]
    assert known == list(zip(loops, lanes, strict=True))
    loops[0].close()
    assert [found for found in lane_sets() if found[0] in loops] == [(loops[1], lanes[1])]
    loops[1].close()


def test_as_many_look_ups_wait_at_once_as_there_are(monkeypatch):
    together = threading.Barrier(48)

    def look_up(*args):
        together.wait(50)
        return []

    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.gather(*[loop.getaddrinfo("name", port) for port in range(48)])
        return loop.lanes.statistics()["dns"]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert penstock.run(main()).completed["ok"] == 48


@pytest.mark.parametrize("name", ["io", "default"])
def test_a_shut_set_gives_no_lane_even_if_it_was_made(name):
    lanes = LaneSet(ExecutorsConfig())
    ask = lanes.default if name == "default" else lambda: lanes.get(name)
    ask()
    lanes.shutdown()
    with pytest.raises(RuntimeError, match="the loop's lanes are shut down"):
        ask()
