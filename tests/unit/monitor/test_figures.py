"""The figures between two snapshots: rates, quantiles of the interval, restarts, and keys that are missing."""

import pytest

from penstock.monitor.figures import figures
from penstock.tasks.place import Place
from tests.support.snapshots import gate, lane, loop, partial, place, site, snapshot, times


def test_rates_are_differences_by_the_interval() -> None:
    before = snapshot(100.0, loops=[loop(turns=10, active_s=1.0, idle_s=9.0, tasks={"created": 5, "failed": 1})])
    now = snapshot(
        102.0,
        loops=[loop(turns=30, active_s=2.5, idle_s=9.5, tasks={"created": 25, "failed": 3, "completed": 4, "live": 7})],
        process={"cpu_s": 3.0},
    )
    found = figures(before, now)
    main = found.loops[0]
    assert (found.seconds, found.process.cores_used) == (2.0, 1.5)
    assert (main.turns_per_s, main.created_per_s, main.failed_per_s, main.ended_per_s) == (10.0, 10.0, 1.0, 3.0)
    assert main.utilization == pytest.approx(0.75)
    assert main.tasks_live == 7
    assert main.known


def test_quantiles_are_of_the_interval_alone() -> None:
    before = snapshot(100.0, loops=[loop(delay=times(*[1.0] * 50))])
    now = snapshot(101.0, loops=[loop(delay=times(*[1.0] * 50, *[0.001] * 20))])
    delay = figures(before, now).loops[0].delay
    assert delay.count == 20
    assert delay.p99_s == pytest.approx(0.001, rel=0.05)


def test_without_a_snapshot_before_the_interval_is_since_the_start() -> None:
    found = figures(None, snapshot(100.0, loops=[loop(turns=500)]))
    assert found.seconds == 50.0
    assert found.loops[0].turns_per_s == 10.0


def test_a_loop_that_appears_counts_from_zero_and_one_that_disappears_is_left_out() -> None:
    found = figures(snapshot(100.0, loops=[loop("old", turns=90)]), snapshot(101.0, loops=[loop("new", turns=5)]))
    assert [(each.name, each.turns_per_s) for each in found.loops] == [("new", 5.0)]


def test_loops_of_one_name_are_paired_in_their_order() -> None:
    before = snapshot(100.0, loops=[loop(turns=10), loop(turns=1000)])
    now = snapshot(101.0, loops=[loop(turns=11), loop(turns=1002)])
    assert [each.turns_per_s for each in figures(before, now).loops] == [1.0, 2.0]


def test_counters_that_restarted_count_from_zero() -> None:
    before = snapshot(100.0, loops=[loop(turns=90, delay=times(*[0.1] * 9))], gates=[gate(admitted=50)])
    now = snapshot(101.0, loops=[loop(turns=4, delay=times(0.2))], gates=[gate(admitted=6)])
    found = figures(before, now)
    assert (found.loops[0].turns_per_s, found.loops[0].delay.count, found.gates[0].admitted) == (4.0, 1, 6)


def test_a_process_that_restarted_has_no_snapshot_before() -> None:
    before = snapshot(100.0, loops=[loop(turns=90)])
    other = snapshot(101.0, loops=[loop(turns=100)], pid=8, process={"pid": 8, "uptime_s": 2.0})
    found = figures(before, other)
    assert (found.seconds, found.loops[0].turns_per_s) == (2.0, 50.0)


def test_a_partial_answer_has_the_blocked_loop_and_no_rates() -> None:
    found = figures(snapshot(100.0, loops=[loop(turns=5)]), partial(100.5, lasted_s=0.3))
    main = found.loops[0]
    assert found.partial
    assert "GIL" in found.reason
    assert not main.known
    assert main.blocked is not None
    assert main.blocked.lasted_s == 0.3
    assert main.delay.count == 0


def test_an_empty_answer_has_figures_too() -> None:
    found = figures(None, {})
    assert (found.seconds, found.loops, found.gates, found.sheds_per_s) == (0.0, (), (), 0.0)


def test_a_callback_that_runs_counts_as_active() -> None:
    blocked = {"since_s": 100.2, "lasted_s": 0.8, "kind": "callback", "site": place(), "stack": ["app.py:41 in f"]}
    found = figures(
        snapshot(100.0, loops=[loop(active_s=1.0, idle_s=4.0)]),
        snapshot(101.0, loops=[loop(active_s=1.0, idle_s=4.2, blocked=blocked)]),
    )
    assert found.loops[0].utilization == pytest.approx(0.8)
    assert found.loops[0].blocked is not None
    assert found.loops[0].blocked.site == Place("app.py", 41, "handler")


def test_sites_lanes_and_gates_have_rates() -> None:
    before = snapshot(100.0, loops=[loop(sites=[site(created=1)], lanes=[lane(completed={"ok": 5})])], gates=[gate()])
    now = snapshot(
        102.0,
        loops=[
            loop(
                sites=[site(created=11, live=9, running_s=1.0)],
                lanes=[lane(completed={"ok": 15, "timeout": 2}, shed={"full": 4}, queued=3, wait=times(0.1, 0.2))],
            )
        ],
        gates=[gate(admitted=20, finished=18, sheds={"full": 6})],
        sheds={"gate/full": 6},
    )
    found = figures(before, now)
    each, pool, http = found.loops[0].sites[0], found.loops[0].lanes[0], found.gates[0]
    assert (each.created_per_s, each.live, each.running_share) == (5.0, 9, 0.5)
    assert (pool.jobs_per_s, pool.sheds_per_s, pool.queued, pool.wait.count) == (6.0, 2.0, 3, 2)
    assert pool.completed == {"ok": 10, "timeout": 2}
    assert (http.admitted_per_s, http.goodput_per_s, http.sheds_per_s, http.sheds) == (10.0, 9.0, 3.0, {"full": 6})
    assert found.sheds_per_s == 3.0
