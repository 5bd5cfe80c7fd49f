"""The traces that findings leave: their kinds, their bounds, their thread and their content."""

import errno
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from penstock.config import Config, TasksConfig
from penstock.errors import ConfigError
from penstock.loop import NATIVE
from penstock.tasks.detectors import trace_dump
from penstock.tasks.detectors.trace_dump import TraceDump
from penstock.tasks.detectors.trace_folder import NAME, TraceFolder, file_name
from penstock.tasks.finding import Finding
from penstock.tasks.flighttrace import Event
from penstock.tasks.place import Place
from tests.support.waiting import wait_until


class Recorder:
    """A flight recorder with the given events, newest first, in portions of a hundred."""

    def __init__(self, events=(), gate=None):
        self.name = "penstock-1"
        self.events = list(events)
        self.threads = set()
        self.gate = gate

    def portions(self, since_ns):
        self.threads.add(threading.get_ident())
        if self.gate is not None:
            assert self.gate.wait(20)
        for start in range(0, max(1, len(self.events)), 100):
            yield self.events[start : start + 100]


def config(folder, **keys):
    return TasksConfig(trace_dir=str(folder), **{"trace_every_s": 0.0} | keys)


def finding(kind="stuck", message="a task waits", since_s=0.0, **evidence):
    return Finding(kind, message, Place("app.py", 41, "handler"), "a task", since_s or 1.0, 1.0, "penstock-1", evidence)


def written(folder):
    return sorted(path for path in Path(folder).iterdir() if NAME.fullmatch(path.name))


def is_idle(dump):
    return dump._wanted is dump._written and not dump._writing.locked()


def wait_idle(dump):
    wait_until(lambda: is_idle(dump))


def steps(count, took_ns=1000):
    now_ns = time.monotonic_ns()
    return [
        Event(now_ns - number * 1000, took_ns, "step", number + 1, f"app.py:{number} in f") for number in range(count)
    ]


def test_a_trace_has_the_finding_as_json_and_an_instant_at_its_time(tmp_path):
    dump = TraceDump(Recorder(steps(3)), config(tmp_path))
    dump.on_finding(finding("hung", since_s=1.0, age_s=7.0))
    wait_idle(dump)
    (path,) = written(tmp_path)
    trace = json.loads(path.read_text())
    (found,) = trace["otherData"]["findings"]
    assert (found["kind"], found["message"], found["site"]["line"]) == ("hung", "a task waits", 41)
    assert found["evidence"] == {"age_s": 7.0}
    (instant,) = [event for event in trace["traceEvents"] if event.get("cat") == "finding"]
    assert instant["args"] == found
    # a hung task was born long ago: the trace is about the time at which it was found
    assert instant["ts"] / 1e6 == pytest.approx(time.monotonic(), abs=60)
    assert len([event for event in trace["traceEvents"] if event.get("cat") == "step"]) == 3
    assert trace["otherData"]["is_cut"] is False


def test_a_name_tells_loop_process_kind_and_time(tmp_path):
    assert re.fullmatch(
        rf"my_loop-{os.getpid()}-stall-20260301T101502\.250Z\.json", file_name("my/loop", "stall", 1772360102.25)
    )


def test_kinds_that_are_not_chosen_leave_no_trace(tmp_path):
    recorder = Recorder()
    dump = TraceDump(recorder, config(tmp_path, trace_on=("growing",)))
    for kind in ("failed", "stall", "stuck"):
        dump.on_finding(finding(kind))
    assert is_idle(dump)
    dump.on_finding(finding("growing"))
    wait_idle(dump)
    assert ["growing" in path.name for path in written(tmp_path)] == [True]


@pytest.mark.parametrize("kinds", [(), ("stal",), "stall", ("stall", 3)])
def test_other_kinds_are_a_config_error(kinds):
    with pytest.raises(ConfigError, match=r"tasks\.trace_on.*destroyed_pending"):
        TasksConfig(trace_on=kinds)


def test_kinds_go_by_text_to_child_processes():
    text = Config(tasks=TasksConfig(trace_on=("stall", "hung"))).to_env()["PENSTOCK_TASKS_TRACE_ON"]
    assert text == "stall,hung"


def test_the_thread_of_a_finding_waits_for_no_file(tmp_path):
    gate = threading.Event()
    recorder = Recorder(gate=gate)
    dump = TraceDump(recorder, config(tmp_path))
    dump.on_finding(finding())
    # the writer is held, and yet this thread is here
    assert not written(tmp_path)
    gate.set()
    wait_idle(dump)
    assert len(written(tmp_path)) == 1
    assert threading.get_ident() not in recorder.threads


def test_a_loop_writes_one_trace_in_the_given_time(tmp_path):
    dump = TraceDump(Recorder(), config(tmp_path, trace_every_s=3600.0))
    for number in range(5):
        dump.on_finding(finding(since_s=number + 1.0))
        wait_idle(dump)
    assert len(written(tmp_path)) == 1


def test_the_newest_traces_are_kept_also_over_restarts(tmp_path):
    for number in range(7):
        # each restart is a dump of its own
        dump = TraceDump(Recorder(), config(tmp_path, trace_files=3))
        dump.on_finding(finding(since_s=number + 1.0, number=number))
        wait_idle(dump)
        assert len(written(tmp_path)) <= 3
        # the next name has another millisecond
        wait_until(lambda: not (tmp_path / file_name("penstock-1", "stuck", time.time())).exists())
    numbers = [
        json.loads(path.read_text())["otherData"]["findings"][0]["evidence"]["number"] for path in written(tmp_path)
    ]
    assert numbers == [4, 5, 6]


def test_traces_of_other_processes_count_and_other_files_stay(tmp_path):
    others = [f"penstock-1-{pid}-stall-20260101T00000{pid}.000Z.json" for pid in range(5)]
    for name in [*others, "penstock-4711-20260101-000000.json", "notes.json"]:
        (tmp_path / name).write_text("{}")
    TraceFolder(str(tmp_path), 3).save(file_name("penstock-1", "stall", time.time()), [b"{}"])
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {*others[3:], "penstock-4711-20260101-000000.json", "notes.json"}
    assert not names & set(others[:3])


def test_a_part_of_a_killed_process_is_removed_and_a_new_one_is_not(tmp_path):
    old, new = (tmp_path / f"penstock-1-{pid}-stall-20260101T000000.000Z.json.part" for pid in (1, 2))
    old.touch()
    new.touch()
    os.utime(old, (1, 1))
    TraceFolder(str(tmp_path), 3).save(file_name("penstock-1", "stall", time.time()), [b"{}"])
    assert not old.exists()
    assert new.exists()


def test_a_trace_stays_within_its_bytes_and_keeps_the_newest_events(tmp_path):
    events = steps(20_000)
    dump = TraceDump(Recorder(events), config(tmp_path, trace_bytes=65536))
    dump.on_finding(finding(stack=["a line"] * 20_000))
    wait_idle(dump)
    (path,) = written(tmp_path)
    assert 50_000 < path.stat().st_size <= 65536
    trace = json.loads(path.read_text())
    kept = [event["args"]["task"] for event in trace["traceEvents"] if event.get("cat") == "step"]
    assert kept == list(range(len(kept), 0, -1))
    assert len(kept) > 100
    assert trace["otherData"]["is_cut"] is True


def test_a_task_that_ends_has_one_birth(tmp_path):
    now_ns = time.monotonic_ns()
    events = [Event(now_ns - 500, 400, "end", 7, "returned: f"), Event(now_ns - 500, 0, "birth", 7, "f")]
    dump = TraceDump(Recorder(events), config(tmp_path))
    dump.on_finding(finding())
    wait_idle(dump)
    records = json.loads(written(tmp_path)[0].read_text())["traceEvents"]
    assert [event["ph"] for event in records if event.get("cat") == "task"] == ["b", "e"]


def test_a_stall_that_ends_soon_has_its_whole_length(tmp_path):
    dump = TraceDump(Recorder(), config(tmp_path, trace_every_s=3600.0))
    dump.on_finding(finding("stall", since_s=5.0, ended=False, lasted_s=0.1))
    dump.on_finding(finding("stall", since_s=5.0, ended=True, lasted_s=0.3))
    wait_idle(dump)
    (path,) = written(tmp_path)
    assert json.loads(path.read_text())["otherData"]["findings"][0]["evidence"]["lasted_s"] == 0.3


def test_a_long_stall_has_a_trace_while_it_lasts_and_its_length_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(trace_dump, "LONGEST_STALL_WAIT_S", 0.0)
    dump = TraceDump(Recorder(), config(tmp_path, trace_every_s=3600.0))
    dump.on_finding(finding("stall", since_s=5.0, ended=False, lasted_s=0.1))
    wait_idle(dump)
    (path,) = written(tmp_path)
    assert json.loads(path.read_text())["otherData"]["findings"][0]["evidence"]["ended"] is False
    dump.on_finding(finding("stall", since_s=5.0, ended=True, lasted_s=12.0))
    wait_idle(dump)
    assert written(tmp_path) == [path]
    assert json.loads(path.read_text())["otherData"]["findings"][0]["evidence"]["lasted_s"] == 12.0


def test_a_removed_folder_logs_one_line_a_minute(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(trace_dump, "_failed_s", -100.0)
    folder = tmp_path / "gone"
    for number in range(3):
        dump = TraceDump(Recorder(), config(folder))
        with caplog.at_level(logging.WARNING, "penstock.tasks"):
            dump.on_finding(finding(since_s=number + 1.0))
            wait_idle(dump)
    assert [record.message for record in caplog.records if "could not be written" in record.message] == [
        f"the trace of a finding could not be written: [Errno 2] No such file or directory: '{folder}'"
    ]


def test_a_full_disk_leaves_no_part_and_logs_one_line(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(trace_dump, "_failed_s", -100.0)

    def no_room(before, after):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", no_room)
    dump = TraceDump(Recorder(), config(tmp_path))
    dump.on_finding(finding())
    wait_idle(dump)
    assert list(tmp_path.iterdir()) == []
    assert "No space left on device" in caplog.text


def test_a_closed_loop_waits_for_its_trace_and_writes_no_other(tmp_path):
    dump = TraceDump(Recorder(steps(1000)), config(tmp_path))
    dump.on_finding(finding("stall", since_s=5.0, ended=False))
    dump.close(within_s=20.0)
    assert len(written(tmp_path)) == 1
    dump.on_finding(finding())
    assert len(written(tmp_path)) == 1


PROGRAM = """
import asyncio, sys, time
import penstock
from penstock import tasks

async def main():
    for _ in range(20):
        await asyncio.sleep(0.001)
    seen = []
    tasks.on_finding(seen.append)
    while not seen:
        time.sleep(0.05)

config = penstock.Config(tasks=penstock.TasksConfig(level="trace", stall_s=0.2, trace_dir=sys.argv[1], trace_files=2))
penstock.run(main(), config=config)
"""


@pytest.mark.skipif(not NATIVE, reason="the selector loop has no flight recorder, and its stalls are not found")
def test_a_program_that_ends_after_its_finding_leaves_a_complete_trace_each_time_within_the_bound(tmp_path):
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
    assert len(written(tmp_path)) == 2
    assert len(list(tmp_path.iterdir())) == 2
    trace = json.loads(written(tmp_path)[-1].read_text())
    assert {"step", "stall", "finding"} <= {event.get("cat") for event in trace["traceEvents"]}


def test_the_selector_loop_says_that_it_leaves_no_traces(tmp_path, caplog):
    import penstock

    config = Config(tasks=TasksConfig(trace_dir=str(tmp_path)), loop=penstock.LoopConfig(poller="selector"))
    penstock.new_event_loop(config).close()
    assert "trace_dir has no effect on the selector loop" in caplog.text
