"""The history of a process: bounded, its figures over an interval, partial answers and findings."""

from penstock.monitor.history import History
from tests.support.snapshots import loop, partial, snapshot


def filled(count: int, most: int = 600) -> History:
    """Return a history of snapshots, one each second, of a loop that turns ten times in each."""
    history = History(most)
    for number in range(count):
        history.add(snapshot(100.0 + number, loops=[loop(turns=10 * number)]))
    return history


def stall(since_s: float, **evidence: object) -> dict[str, object]:
    return {"kind": "stall", "loop": "main", "since_s": since_s, "evidence": evidence}


def test_figures_are_over_the_asked_interval_or_the_whole_history() -> None:
    history = filled(10)
    assert [history.over(seconds).seconds for seconds in (1, 3, 100)] == [1.0, 3.0, 9.0]
    assert history.over(3).loops[0].turns_per_s == 10.0


def test_one_snapshot_has_the_figures_since_the_start() -> None:
    assert filled(1).over(5).seconds == 50.0


def test_an_empty_history_has_empty_figures() -> None:
    assert History().over(5).loops == ()
    assert History().latest is None


def test_the_history_is_bounded() -> None:
    history = filled(20, most=5)
    assert (len(history), len(history.series()), history.over(100).seconds) == (5, 5, 4.0)
    assert len(history.series(most=2)) == 2


def test_a_partial_answer_adds_the_blocked_loop_to_the_last_whole_figures() -> None:
    history = filled(5)
    history.add(partial(104.4))
    found = history.over(2)
    assert (found.partial, found.at_s, found.loops[0].turns_per_s) == (True, 104.4, 10.0)
    assert found.loops[0].blocked is not None
    assert len(history) == 5
    history.add(snapshot(105.0, loops=[loop(turns=50)]))
    assert not history.over(2).partial


def test_another_process_begins_a_new_history() -> None:
    history = filled(5)
    history.add(snapshot(105.0, pid=8, process={"pid": 8}))
    assert len(history) == 1


def test_a_stall_that_is_reported_again_is_kept_once() -> None:
    history = filled(5)
    history.add_findings({"findings": [stall(101.0, lasted_s=0.1), {"kind": "growing", "since_s": 50.0}], "mark": 2})
    history.add_findings({"findings": [stall(101.0, lasted_s=0.9)], "mark": 3})
    assert [each["kind"] for each in history.findings] == ["growing", "stall"]
    assert history.findings[-1]["evidence"]["lasted_s"] == 0.9
    assert history.mark == 3
    assert [each["kind"] for each in history.findings_over(10)] == ["stall"]
