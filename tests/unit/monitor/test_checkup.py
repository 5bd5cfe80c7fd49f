"""A checkup of a process: its history, its silence, and its summary as text and as data."""

import json
import os

import pytest

from penstock.monitor.checkup import observe, state_of
from penstock.monitor.history import History, Silence
from penstock.monitor.rules import diagnose, first_line
from penstock.monitor.summary import summary, summary_as_json
from tests.support.scripted import ScriptedProcess
from tests.support.snapshots import gate, lane, loop, partial, place, site, snapshot, times


def observed(process: ScriptedProcess, seconds: float = 1.0) -> History:
    """Return the history of an observation that takes no time."""
    now_s = 0.0

    def wait(lasted_s: float) -> None:
        nonlocal now_s
        now_s += lasted_s

    def clock() -> float:
        return now_s

    return observe(process, seconds, every_s=0.25, wait=wait, clock=clock)


def test_snapshots_are_taken_at_an_interval_and_findings_by_their_mark() -> None:
    process = ScriptedProcess(snapshot(100.0), snapshot(101.0), findings=({"kind": "growing", "site": place()},))
    history = observed(process)
    assert [command for command, _ in process.asked].count("snapshot") == 5
    assert [since for command, since in process.asked if command == "findings"] == [0, 1, 1, 1, 1]
    assert len(history.findings) == 1


def test_a_process_that_does_not_answer_is_silent_until_it_does() -> None:
    history = observed(ScriptedProcess(TimeoutError("did not answer")))
    assert history.silence == Silence(3.0, state_of(os.getpid()))
    assert first_line(diagnose(history)).startswith("the process does not answer (no answer for 3.0 s)")
    again = observed(ScriptedProcess(TimeoutError("did not answer"), snapshot()))
    assert again.silence is None


def test_the_end_of_the_process_ends_the_observation() -> None:
    history = observed(ScriptedProcess(snapshot(100.0), ConnectionResetError("ended")))
    assert len(history) == 1
    with pytest.raises(ConnectionResetError):
        observed(ScriptedProcess(ConnectionResetError("ended")))


def test_a_state_is_unknown_without_a_process() -> None:
    assert state_of(2**31) == ""


def filled() -> History:
    history = History()
    history.add(snapshot(100.0, loops=[loop()], gates=[gate()]))
    sites = [site(live=3, created=30), site(place(line=9))]
    full = lane(workers_busy=4, queued=40, wait=times(2.0))
    now = loop(turns=50, sites=sites, lanes=[full], delay=times(0.001))
    history.add(
        snapshot(110.0, loops=[now], gates=[gate(finished=20)], process={"name": "echo.py", "throttled_s": 0.1})
    )
    return history


def test_a_summary_says_first_what_is_wrong() -> None:
    lines = summary(filled(), 10.0).splitlines()
    assert lines[0].startswith("lane 'io' is exhausted: all 4 workers busy, 40 jobs wait")
    assert lines[1].startswith("  raise executors.io workers")
    text = "\n".join(lines)
    for words in (
        "process echo.py",
        "loop main: busy",
        "site app.py:41: 3 live",
        "lane io: 4 of 4",
        "gate http",
        "quota",
    ):
        assert words in text
    assert "app.py:9" not in text


def test_a_summary_of_a_quiet_or_partial_process() -> None:
    history = History()
    history.add(partial(100.0, lasted_s=0.1))
    text = summary(history, 10.0)
    assert text.startswith("nothing is wrong\n")
    assert "loop main: not read" in text
    assert "partial: the GIL was not available" in text


def test_a_summary_as_data_is_json() -> None:
    found = json.loads(json.dumps(summary_as_json(filled(), 10.0)))
    assert found["first_line"].startswith("lane 'io' is exhausted")
    assert found["wrong"][0]["kind"] == "lane_full"
    assert found["figures"]["loops"][0]["delay"]["count"] == 1
    assert found["figures"]["gates"][0]["finished"] == 20
