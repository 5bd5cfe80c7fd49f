"""Each rule on hand-made snapshots: its sentence, and the case beside it in which nothing is wrong."""

from typing import Any

import pytest

from penstock.monitor.history import History
from penstock.monitor.rules import Diagnosis, diagnose, first_line
from tests.support.snapshots import Answer, gate, lane, loop, partial, place, site, snapshot, times

NOW_S = 110.0


def judged(
    before: Answer | None = None, now: Answer | None = None, findings: tuple[Answer, ...] = (), seconds: float = 10.0
) -> list[Diagnosis]:
    """Return what is wrong between two snapshots, ten seconds apart, with these findings."""
    history = History()
    history.add(before or snapshot(NOW_S - 10, loops=[loop()]))
    history.add(now or snapshot(NOW_S, loops=[loop(active_s=1.0, idle_s=9.0)]))
    history.add_findings({"findings": list(findings), "mark": len(findings)})
    return diagnose(history, seconds)


def kinds(found: list[Diagnosis]) -> list[str]:
    return [each.kind for each in found]


def busy(**changes: Any) -> list[Diagnosis]:
    """Return what is wrong with a loop that changed like this in ten seconds."""
    return judged(now=snapshot(NOW_S, loops=[loop(**{"active_s": 1.0, "idle_s": 9.0, **changes})]))


def found(kind: str, since_s: float = NOW_S - 5, **evidence: Any) -> Answer:
    about = {"kind": kind, "message": "", "site": place(), "task": "Task-9", "loop": "main", "since_s": since_s}
    return {**about, "wall_time_s": 0.0, "evidence": evidence}


def stall(cause: str = "python", lasted_s: float = 0.32, ago_s: float = 5.0, **evidence: Any) -> Answer:
    stack = ['File "/srv/app.py", line 41, in handler: return json.loads(body)']
    figures = {"cause": cause, "lasted_s": lasted_s, "observed_s": lasted_s, "cpu_share": 0.98, "stack": stack}
    return found("stall", NOW_S - ago_s, **{**figures, **evidence})


def test_a_quiet_process_has_no_diagnosis() -> None:
    assert judged() == []
    assert first_line([]) == "nothing is wrong"
    assert diagnose(History()) == []


class TestStalls:
    def test_a_call_that_blocks_is_named_with_its_line(self) -> None:
        (only,) = judged(findings=(stall(), stall(ago_s=3.0, lasted_s=0.2)))
        assert only.kind == "blocked"
        assert only.line == (
            "the loop is blocked by json.loads in app.py:41 for 320 ms (2 times in 30 s): "
            "offload it with penstock.offload, whose lane 'cpu' has processes"
        )
        assert only.place is not None
        assert only.place.line == 41

    def test_a_call_that_waits_has_another_next_step(self) -> None:
        stack = ['File "/srv/app.py", line 7, in f: time.sleep(1)']
        (only,) = judged(findings=(stall(blocked=True, cpu_share=0.0, stack=stack),))
        assert only.sentence.startswith("the loop waits in time.sleep in app.py:7")
        assert "asyncio.sleep" in only.next_step

    def test_one_sample_of_a_wait_does_not_make_a_computation_a_wait(self) -> None:
        samples = (stall(), stall(ago_s=4.0), stall(ago_s=3.0, blocked=True, cpu_share=0.02))
        (only,) = judged(findings=samples)
        assert only.sentence.startswith("the loop is blocked by json.loads")

    def test_a_call_in_a_library_is_named_by_the_line_of_the_program(self) -> None:
        library = 'File "/usr/lib/python3.13/subprocess.py", line 2018, in Popen._try_wait: os.waitpid(self.pid, 0)'
        caller = 'File "/usr/lib/python3.13/subprocess.py", line 556, in run: stdout, stderr = process.communicate()'
        own = 'File "/srv/app.py", line 7, in f: subprocess.run(command)'
        (only,) = judged(findings=(stall(blocked=True, call="os.waitpid", stack=[library, caller, own]),))
        assert only.sentence.startswith("the loop waits in subprocess.run in app.py:7")
        assert only.evidence["inner_call"] == "os.waitpid"
        assert "create_subprocess_exec" in only.next_step

    def test_a_named_call_of_the_programs_own_line_is_kept(self) -> None:
        stack = ['File "/srv/app.py", line 7, in f: s.connect(where)']
        (only,) = judged(findings=(stall(blocked=True, call="socket.connect", stack=stack),))
        assert only.sentence.startswith("the loop waits in socket.connect in app.py:7")

    def test_a_thread_that_starts_slowly_follows_the_lane_that_is_exhausted(self) -> None:
        full = lane(workers_busy=4, queued=40, running=4, run=times(2.0), wait=times(*[2.0] * 9))
        start = 'File "/usr/lib/python3.13/threading.py", line 973, in Thread.start: self._started.wait()'
        stack = [start, 'File "/srv/app.py", line 7, in f: await penstock.to_thread(query)']
        slow = stall(blocked=True, call="waiter.acquire", stack=stack)
        found = judged(now=snapshot(NOW_S, loops=[loop(lanes=[full])]), findings=(slow,))
        assert kinds(found) == ["lane_full", "blocked"]
        assert found[1].next_step.startswith("the new thread waits for a CPU or for the GIL")

    def test_one_short_stall_is_not_named(self) -> None:
        assert judged(findings=(stall(lasted_s=0.12),)) == []

    def test_an_old_stall_is_not_named(self) -> None:
        assert judged(findings=(stall(ago_s=40.0),)) == []

    def test_an_old_stall_stands_for_newer_ones_that_were_only_counted(self) -> None:
        now = snapshot(NOW_S, loops=[loop(active_s=1.0, idle_s=9.0, stalls={"python": 4})])
        assert kinds(judged(now=now, findings=(stall(ago_s=45.0),))) == ["blocked"]

    def test_a_stall_for_lack_of_a_cpu_is_not_blamed_on_the_program(self) -> None:
        assert judged(findings=(stall(lasted_s=0.4, runnable_s=0.23),)) == []
        (only,) = judged(findings=(stall("descheduled", lasted_s=0.9),))
        assert only.kind == "descheduled"
        assert "did not cause it" in only.sentence
        assert only.severity == "warning"

    def test_a_callback_that_runs_now_is_named(self) -> None:
        blocked = {"lasted_s": 0.5, "kind": "callback", "site": place(), "stack": ["/srv/app.py:41 in handler"]}
        (only,) = busy(blocked=blocked)
        assert only.sentence == "the loop is blocked by handler in app.py:41 for 500 ms (now)"

    def test_a_callback_that_runs_for_a_moment_is_not_named(self) -> None:
        assert busy(blocked={"lasted_s": 0.12, "kind": "callback", "site": place(), "stack": []}) == []

    def test_c_code_that_holds_the_gil_is_named(self) -> None:
        (only,) = judged(findings=(stall("gil"),))
        assert only.kind == "gil"
        assert only.sentence == "C code called by json.loads in app.py:41 holds the GIL for 320 ms (once in 30 s)"
        assert "a thread would hold the GIL too" in only.next_step

    def test_another_thread_may_hold_the_gil(self) -> None:
        (only,) = judged(findings=(stall("gil", cpu_share=0.01),))
        assert only.sentence.startswith("another thread than the loop's holds the GIL")

    def test_a_thread_that_shared_its_cpu_still_holds_the_gil(self) -> None:
        (only,) = judged(findings=(stall("gil", lasted_s=1.5, runnable_s=0.9, cpu_share=0.38),))
        assert only.sentence.startswith("C code called by json.loads")

    def test_a_partial_answer_says_that_the_gil_is_held_now(self) -> None:
        history = History()
        history.add(snapshot(NOW_S - 1, loops=[loop()]))
        history.add(partial(NOW_S, lasted_s=0.8))
        (only,) = diagnose(history)
        assert only.kind == "gil"
        assert only.sentence == "C code holds the GIL for 800 ms (now)"

    def test_the_gil_may_be_held_while_no_callback_runs(self) -> None:
        history = History()
        history.add(snapshot(NOW_S - 2, loops=[loop()]))
        history.add(snapshot(NOW_S - 1, loops=[loop(idle_s=1.0)]))
        assert diagnose(history) == []
        idle = {"name": "main", "running": True, "thread_id": 1, "native_id": 100, "turns": 9, "blocked": None}
        history.add(partial(NOW_S, loops=[idle]))
        (only,) = diagnose(history)
        assert only.kind == "gil"
        assert only.sentence.startswith("C code holds the GIL while no callback runs")

    def test_many_callbacks_in_a_turn_are_not_one_blocking_call(self) -> None:
        (only,) = judged(findings=(stall(turn=True, callbacks=4999, lasted_s=0.5),))
        assert only.kind == "long_turn"
        assert "5,000 callbacks in a turn, which takes 500 ms" in only.sentence

    def test_collections_are_named_as_stalls_or_by_their_share(self) -> None:
        assert kinds(judged(findings=(stall("gc"),))) == ["collections"]
        (only,) = judged(now=snapshot(NOW_S, loops=[loop()], process={"gc": {"collections": 40, "total_s": 3.0}}))
        assert only.sentence == "garbage collections take 30 % of the time"
        assert judged(now=snapshot(NOW_S, loops=[loop()], process={"gc": {"collections": 400, "total_s": 0.5}})) == []

    def test_the_gil_that_is_held_now_may_be_a_collection(self) -> None:
        history = History()
        history.add(snapshot(NOW_S - 10, loops=[loop()]))
        history.add(snapshot(NOW_S - 1, loops=[loop()], process={"gc": {"collections": 40, "total_s": 3.0}}))
        history.add_findings({"findings": [stall("gc")], "mark": 1})
        history.add(partial(NOW_S, lasted_s=0.8))
        assert kinds(diagnose(history)) == ["collections", "gil"]

    def test_the_loop_has_its_name_if_there_are_several(self) -> None:
        now = snapshot(NOW_S, loops=[loop(), loop("other")])
        (only,) = judged(now=now, findings=(stall(),))
        assert only.sentence.startswith("loop 'main' is blocked")


class TestLoop:
    def test_a_busy_loop_whose_callbacks_wait_is_overloaded(self) -> None:
        sites = [site(running_s=7.0)]
        (only,) = busy(active_s=9.9, idle_s=0.1, delay=times(*[0.3] * 50), sites=sites)
        assert only.kind == "overloaded"
        assert "busy for 99 % of the time, 70 % of it by tasks of app.py:41" in only.sentence

    def test_a_busy_loop_that_keeps_up_is_not(self) -> None:
        assert busy(active_s=9.9, idle_s=0.1, delay=times(*[0.01] * 50, 0.5)) == []

    def test_overload_follows_the_call_that_blocks(self) -> None:
        now = snapshot(NOW_S, loops=[loop(active_s=9.9, idle_s=0.1, delay=times(*[0.3] * 50))])
        assert kinds(judged(now=now, findings=(stall(),))) == ["blocked", "overloaded"]


class TestTasks:
    def test_a_growing_site_is_named_with_its_counts(self) -> None:
        now = snapshot(NOW_S, loops=[loop(sites=[site(live=4000)])])
        (only,) = judged(now=now, findings=(found("growing", live=[10, 500, 1000]),))
        assert only.sentence == "tasks made in app.py:41 pile up: 4,000 live, 10 when it began"

    def test_a_site_that_has_shrunk_no_longer_grows(self) -> None:
        now = snapshot(NOW_S, loops=[loop(sites=[site(live=20)])])
        assert judged(now=now, findings=(found("growing", live=[10, 500, 1000]),)) == []

    def test_a_cycle_comes_before_the_tasks_it_holds(self) -> None:
        diagnoses = judged(
            findings=(found("stuck", await_chain=["app.py:9 in b"]), found("await_cycle", cycle="'a' -> 'b' -> 'a'"))
        )
        assert kinds(diagnoses) == ["await_cycle", "stuck"]
        assert first_line(diagnoses).startswith("tasks wait for each other and never end: 'a' -> 'b' -> 'a'")

    def test_a_stuck_task_is_named_with_the_line_where_it_waits(self) -> None:
        (only,) = judged(findings=(found("stuck", await_chain=["/srv/app.py:50 in main", "/srv/app.py:9 in take"]),))
        assert only.sentence == (
            "task 'Task-9' made in app.py:41 can never go on, waiting in take in app.py:9: nothing can end the wait"
        )

    def test_a_hung_task_is_compared_with_its_site(self) -> None:
        (only,) = judged(findings=(found("hung", site_p99_s=0.05),))
        assert only.sentence == "task 'Task-9' made in app.py:41 hangs, where 99 % end within 50 ms"

    @pytest.mark.parametrize("kind", ["destroyed_pending", "never_awaited", "exception_unretrieved"])
    def test_an_event_is_told_for_some_minutes(self, kind: str) -> None:
        (only,) = judged(findings=(found(kind), found(kind)))
        assert only.kind == kind
        assert only.sentence.startswith("2 ")
        assert judged(findings=(found(kind, since_s=NOW_S - 400),)) == []

    def test_a_lost_tasks_age_counts_from_its_birth(self) -> None:
        assert kinds(judged(findings=(found("destroyed_pending", NOW_S - 1000, age_s=990.0),))) == ["destroyed_pending"]


FULL: Answer = {"workers_busy": 4, "running": 4, "queued": 40}


class TestExecutors:
    def test_a_lane_whose_jobs_wait_is_exhausted(self) -> None:
        (only,) = busy(lanes=[lane(**FULL, wait=times(*[2.0] * 9), run=times(*[0.5] * 9), completed={"ok": 9})])
        assert only.kind == "lane_full"
        assert only.sentence.startswith("lane 'io' is exhausted: all 4 workers busy, 40 jobs wait for 2.0 s")
        assert "executors.io workers" in only.next_step

    def test_a_lane_that_makes_no_progress_is_exhausted(self) -> None:
        assert kinds(busy(lanes=[lane(**FULL)])) == ["lane_full"]

    def test_a_busy_lane_that_keeps_up_is_not(self) -> None:
        waits = times(*[0.02] * 90)
        assert busy(lanes=[lane(**{**FULL, "queued": 3}, wait=waits, completed={"ok": 90})]) == []

    def test_names_that_wait_have_a_sentence_of_their_own(self) -> None:
        (only,) = busy(lanes=[lane("dns", **FULL)])
        assert only.kind == "dns_full"
        assert only.sentence.startswith("too many host names wait in lane 'dns'")

    def test_more_processes_than_cores_are_not_advised(self) -> None:
        (only,) = busy(lanes=[lane("cpu", kind="processes", **FULL)])
        assert "bound its callers" in only.next_step

    def test_jobs_that_time_out_miss_their_deadlines(self) -> None:
        (only,) = busy(lanes=[lane(completed={"ok": 50, "timeout": 20})])
        assert only.kind == "deadlines"
        assert "20 of 70 timed out" in only.sentence
        assert busy(lanes=[lane(completed={"ok": 5000, "timeout": 20})]) == []

    def test_time_outs_follow_the_lane_that_causes_them(self) -> None:
        diagnoses = busy(lanes=[lane(**FULL, wait=times(*[2.0] * 9), completed={"ok": 5, "timeout": 9})])
        assert kinds(diagnoses) == ["lane_full", "deadlines"]

    def test_workers_that_crash_are_named(self) -> None:
        assert kinds(busy(lanes=[lane(restarts={"crash": 3})])) == ["crashes"]
        assert busy(lanes=[lane(restarts={"crash": 1})]) == []


class TestGates:
    def refused(self, reason: str = "full", active_s: float = 1.0, **process: Any) -> list[Diagnosis]:
        refusing = gate(admitted=100, finished=100, sheds={reason: 50}, service=times(*[0.1] * 100))
        idle_s = 10.0 - active_s
        return judged(
            now=snapshot(
                NOW_S,
                loops=[loop(active_s=active_s, idle_s=idle_s)],
                gates=[refusing],
                process={"cpu_s": 1.0, **process},
            )
        )

    def test_a_gate_that_refuses_while_idle_has_too_low_a_limit(self) -> None:
        (only,) = self.refused()
        assert only.kind == "limit_low"
        assert "50 of 150 in 10 s at a limit of 10, the loop busy for 10 %" in only.sentence

    def test_a_gate_that_protects_a_busy_process_is_right(self) -> None:
        assert self.refused(active_s=9.0) == []
        assert self.refused(cpu_s=35.0) == []

    def test_missed_deadlines_of_a_busy_process_are_named(self) -> None:
        (only,) = self.refused("deadline", active_s=9.0)
        assert only.kind == "deadlines"

    def test_a_few_refusals_are_a_burst(self) -> None:
        few = snapshot(NOW_S, loops=[loop(idle_s=10.0)], gates=[gate(admitted=1000, sheds={"full": 20})])
        assert judged(now=few) == []

    def test_clients_that_read_too_slowly_are_named(self) -> None:
        (only,) = judged(now=snapshot(NOW_S, loops=[loop()], disconnects={"slow_reader": 30}))
        assert only.kind == "slow_clients"


class TestMachine:
    def test_a_quota_that_stops_the_process_comes_before_its_symptoms(self) -> None:
        now = snapshot(NOW_S, loops=[loop()], process={"throttled_s": 4.0, "quota_cores": 0.5})
        diagnoses = judged(
            snapshot(NOW_S - 10, loops=[loop()], process={"throttled_s": 0.0}), now, (stall("descheduled"),)
        )
        assert kinds(diagnoses) == ["throttled", "descheduled"]
        assert first_line(diagnoses).startswith("the CPU quota of 0.5 cores stops the process for 40 % of the time")

    def test_descriptors_near_their_limit_are_named(self) -> None:
        near = snapshot(NOW_S, process={"descriptors": 950, "descriptors_limit": 1000})
        assert kinds(judged(now=near)) == ["descriptors"]
        assert judged(now=snapshot(NOW_S, process={"descriptors": 500, "descriptors_limit": 1000})) == []

    @pytest.mark.parametrize(("rate", "expected"), [(3_000_000, ["memory"]), (100_000, [])])
    def test_memory_that_grows_all_the_time_is_named(self, rate: int, expected: list[str]) -> None:
        history = History()
        for second in range(90):
            history.add(snapshot(100.0 + second, process={"rss_bytes": 100_000_000 + rate * second}))
        assert kinds(diagnose(history)) == expected

    def test_memory_that_grew_at_the_start_only_is_not(self) -> None:
        history = History()
        for second in range(90):
            history.add(snapshot(100.0 + second, process={"rss_bytes": 100_000_000 + 30_000_000 * min(second, 20)}))
        assert diagnose(history) == []
