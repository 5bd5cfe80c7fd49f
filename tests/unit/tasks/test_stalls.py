"""Stalls: each way to stand still is found while it lasts, with its stack and its cause; work in good time is not.

The loops are driven by hand. On a machine that is short of CPUs a stall is `descheduled` in truth: what asserts a cause
tries a few times, and then accepts that one if the kernel says so.
"""

import asyncio
import gc
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from penstock.tasks.detectors.stalls import StallWatch
from penstock.tasks.finding import Finding
from penstock.tasks.finding_log import FindingLog
from tests.support.retried import note_retry
from tests.support.waiting import wait_until
from tests.unit.tasks.driven import Call, DrivenLoop, watched

if StallWatch()._watchdog is None:
    pytest.skip("needs the native code", allow_module_level=True)

STALL_S = 0.06
# longer than a busy machine keeps a thread from its CPU
RARE_S = 0.5
PATIENCE_S = 10.0


@pytest.fixture
def watch() -> Iterator[StallWatch]:
    watch = StallWatch()
    yield watch
    watch.close()
    assert not [thread for thread in threading.enumerate() if thread is watch._thread]


def found_in(watch: StallWatch, callbacks: Callable[[DrivenLoop], list[Call]], cause: str, tries: int = 4) -> Finding:
    """The first stall of a turn of the callbacks made, which has the cause, unless every try was short of a CPU.

    The callbacks go on until their stall is reported: a stall that has ended before that has no stack.
    """
    first, end_s = None, time.monotonic() + 20
    while tries and time.monotonic() < end_s:
        if first is not None:
            note_retry(f"a stall was not seen as {cause}")
        with watched(watch, STALL_S) as loop:
            loop.run_in_thread([callbacks(loop)])
            # a watchdog that waits for the GIL reports a moment later
            if not loop.reported.wait(1):
                continue  # on a crowded machine one may be over before it is looked at: that was no try
            first, tries = loop.stalls()[0], tries - 1
        if first.evidence["cause"] == cause and not first.evidence["unsampled"]:
            break
    assert first is not None, "no stall was found"
    assert first.evidence["cause"] == cause or is_starved(first), first.evidence
    return first


def is_starved(finding: Finding) -> bool:
    """Whether the machine gave the loop's thread or the watchdog's so little of a CPU that this was the cause."""
    evidence = finding.evidence
    without_cpu_s = max(evidence["runnable_s"], evidence["late_s"])
    return evidence["cause"] == "descheduled" and without_cpu_s >= 0.5 * evidence["observed_s"]


def until_reported(loop: DrivenLoop, count: int = 1) -> Call:
    """Block until so many stalls are reported, however late the watchdog runs."""

    def stands_still() -> None:
        end_s = time.monotonic() + 10
        while len(loop.seen_stalls()) < count:
            assert time.monotonic() < end_s, "no stall was found"
            time.sleep(0.002)

    return stands_still


def goes_on(loop: DrivenLoop, work: Call) -> None:
    """Work until a stall is reported."""
    end_s = time.monotonic() + PATIENCE_S
    while not loop.reported.is_set() and time.monotonic() < end_s:
        work()


def busy(for_s: float) -> None:
    end_s = time.perf_counter() + for_s
    while time.perf_counter() < end_s:
        pass


def holding_the_gil(for_s: float = 0.2, then: Call = lambda: None) -> Call:
    """A C call that takes about `for_s` of a CPU and never gives the GIL up, and then `then` from the same frame."""
    count = 200_000
    while True:
        began_s = time.thread_time()
        sum(range(count))
        took_s = time.thread_time() - began_s
        if took_s > 0.01:
            return partial(add_up, int(count * for_s / took_s), then)
        count *= 2


def add_up(count: int, then: Call) -> None:
    sum(range(count))
    then()


def cycles(count: int) -> None:
    """Make garbage that only a collection finds."""
    for _ in range(count):
        one: list[object] = []
        one.append(one)


def test_a_blocking_call_is_found_while_it_lasts(watch: StallWatch) -> None:
    with watched(watch, STALL_S) as loop:

        def blocks() -> None:
            # It ends because it has been found.
            assert loop.reported.wait(10)

        loop.run_in_thread([[blocks]])
        [finding] = loop.seen_stalls()
    assert finding.evidence["lasted_s"] >= STALL_S
    assert finding.loop == "driven"


def test_an_exempt_turn_is_no_stall_and_the_next_one_is(watch: StallWatch) -> None:
    with watched(watch, STALL_S) as loop:

        def starts() -> None:
            watch.exempt_turn(loop)
            time.sleep(6 * STALL_S)

        loop.run_in_thread([[starts], [until_reported(loop)]])
        [finding] = loop.seen_stalls()
    assert "stands_still" in finding.evidence["stack"][0]


def test_a_blocking_call_is_pythons_and_blocked(watch: StallWatch) -> None:
    def sleeping(loop: DrivenLoop) -> list[Call]:
        return [lambda: goes_on(loop, lambda: time.sleep(0.2))]

    finding = found_in(watch, sleeping, "python")
    assert finding.evidence["blocked"] or is_starved(finding)
    assert finding.evidence["cpu_share"] < 0.5
    assert "time.sleep(0.2)" in finding.evidence["stack"][0]
    assert finding.site is not None
    assert finding.site.file == __file__


def test_a_busy_loop_is_pythons(watch: StallWatch) -> None:
    finding = found_in(watch, lambda loop: [lambda: goes_on(loop, lambda: busy(0.3))], "python")
    assert finding.site is not None
    assert finding.site.function == "busy"
    assert "<lambda>" in finding.evidence["handle"]
    assert finding.evidence["cpu_s"] > 0


def test_c_code_that_holds_the_gil_is_found(watch: StallWatch) -> None:
    finding = found_in(watch, lambda loop: [holding_the_gil(then=partial(loop.reported.wait, PATIENCE_S))], "gil")
    assert finding.evidence["gil_wait_s"] > 0.05
    # the stack is the one of the call, which has just ended
    assert finding.site is not None
    assert finding.site.function == "add_up"


def test_a_long_collection_is_found(watch: StallWatch) -> None:
    def litter(loop: DrivenLoop) -> list[Call]:
        gc.collect()
        cycles(800_000)
        return [lambda: collects(loop)]

    def collects(loop: DrivenLoop) -> None:
        gc.collect()
        # the stack is looked at when the collection has given the GIL up
        loop.reported.wait(PATIENCE_S)

    gc.disable()
    try:
        finding = found_in(watch, litter, "gc")
    finally:
        gc.enable()
    assert finding.evidence["gc_s"] > 0.03
    # the innermost frame may be another library's gc callback
    assert any("in collects" in line or ".collects" in line for line in finding.evidence["stack"])
    count, total_s = watch.collections()
    assert count >= 1
    assert total_s >= finding.evidence["gc_s"] * 0.9


def test_a_turn_of_many_small_callbacks_is_found(watch: StallWatch) -> None:
    finding = found_in(watch, lambda loop: [lambda: loop.reported.is_set() or busy(0.001)] * 10_000, "python")
    assert finding.evidence["turn"]
    assert finding.evidence["callbacks"] > 3
    assert re.match(f"a turn of {finding.evidence['callbacks'] + 1} (or more )?callbacks ", finding.message)


def test_a_callback_that_is_most_of_its_turn_is_reported_once(watch: StallWatch) -> None:
    with watched(watch, 0.5) as loop:
        loop.run_in_thread([[lambda: time.sleep(0.05), until_reported(loop)]])
        [finding] = loop.seen_stalls()
    assert not finding.evidence["turn"]
    assert finding.evidence["callbacks"] == 1


def test_a_long_callback_after_a_long_turn_is_a_stall_of_its_own(watch: StallWatch) -> None:
    with watched(watch, STALL_S) as loop:
        short: Call = lambda: loop.reported.is_set() or time.sleep(0.005)  # noqa: E731
        loop.run_in_thread([[*[short] * 1000, until_reported(loop, 2)]])
        turn, callback = loop.stalls()
    assert turn.evidence["turn"]
    assert not callback.evidence["turn"]
    assert not callback.evidence["repeated"]
    assert callback.evidence["callbacks"] == 1000


def test_a_stall_is_reported_again_at_ten_times_its_bound_and_then_no_more(watch: StallWatch) -> None:
    with watched(watch, 0.1) as loop:
        reported_twice = until_reported(loop, 2)

        def stands_still() -> None:
            reported_twice()
            time.sleep(0.5)

        loop.run_in_thread([[stands_still]])
        first, second = loop.stalls()
        causes = watch.causes(loop)  # type: ignore[arg-type]
    assert (first.evidence["repeated"], second.evidence["repeated"]) == (False, True)
    assert second.evidence["lasted_s"] >= 1.0
    assert not second.evidence["unsampled"]
    assert first.since_s == second.since_s
    assert sum(causes.values()) == 1


@pytest.mark.parametrize("calls_before", [0, 3])
def test_the_whole_length_of_a_stall_is_reported_at_its_end_with_the_stack_it_had(
    watch: StallWatch, calls_before: int
) -> None:
    with watched(watch, 0.2) as loop:
        reported: list[Finding] = []
        ended, took_s = threading.Event(), 0.0
        loop.findings.listen(reported.append)
        loop.findings.listen(lambda finding: finding.evidence["ended"] and ended.set())

        def stands_still() -> None:
            nonlocal took_s
            began_s = time.monotonic()
            assert loop.reported.wait(10)
            time.sleep(0.2)
            took_s = time.monotonic() - began_s

        def rests() -> None:
            nonlocal most_s
            most_s = time.monotonic() - run_s
            ended.wait(10)

        run_s, most_s = time.monotonic(), 0.0
        loop.run_in_thread([[*[lambda: None] * calls_before, stands_still]], rest=rests)
        [kept] = loop.stalls()
        first, last = reported
    assert kept is last
    assert took_s <= last.evidence["lasted_s"] <= most_s
    assert last.evidence["lasted_s"] >= first.evidence["lasted_s"] + 0.1
    assert (first.evidence["ended"], last.evidence["ended"]) == (False, True)
    assert first.evidence["stack"] == last.evidence["stack"]
    assert any("stands_still" in line for line in last.evidence["stack"])
    assert f"a callback lasted {last.evidence['lasted_s']:.3f} s in " in last.message
    assert loop.findings.counts() == {"stall": 1}


def test_a_loop_that_is_closed_at_once_still_reports_the_length_of_its_last_stall(watch: StallWatch) -> None:
    with watched(watch, STALL_S) as loop:
        loop.run_in_thread([[until_reported(loop), lambda: None]])
    [stall] = loop.seen_stalls()
    assert stall.evidence["ended"]
    assert stall.evidence["lasted_s"] >= STALL_S


def test_the_whole_length_of_a_turn_of_many_callbacks_is_reported(watch: StallWatch) -> None:
    with watched(watch, STALL_S) as loop:
        ended = threading.Event()
        loop.findings.listen(lambda finding: finding.evidence["ended"] and finding.evidence["turn"] and ended.set())
        loop.run_in_thread([[lambda: busy(0.001)] * 400], rest=lambda: ended.wait(10))
        stall = [each for each in loop.stalls() if each.evidence["turn"]][-1]
    assert stall.evidence["lasted_s"] >= 0.4
    assert re.match(r"a turn of \d+ or more callbacks lasted ", stall.message)


def test_the_whole_length_of_c_code_that_keeps_the_gil_is_reported(watch: StallWatch) -> None:
    # ten times a stall: a CPU that becomes twice as fast meanwhile is no matter
    call = holding_the_gil(10 * STALL_S)
    began_s = time.monotonic()
    call()
    took_s = time.monotonic() - began_s
    with watched(watch, STALL_S) as loop:
        ended = threading.Event()
        loop.findings.listen(lambda finding: finding.evidence["ended"] and ended.set())
        loop.run_in_thread([[call]], rest=lambda: ended.wait(10))
        stall = loop.stalls()[-1]
    # not the time at which the watchdog asked for the GIL
    assert stall.evidence["lasted_s"] > 2 * STALL_S
    assert stall.evidence["lasted_s"] > took_s / 3


def test_each_stall_is_reported_and_counted_by_cause(watch: StallWatch) -> None:
    with watched(watch, STALL_S) as loop:
        loop.run_in_thread([[until_reported(loop, count)] for count in (1, 2, 3)])
        causes = watch.causes(loop)  # type: ignore[arg-type]
    assert len(loop.seen_stalls()) == 3
    assert len(loop.stalls()) == sum(causes.values())
    assert watch.causes(loop) == causes  # type: ignore[arg-type]


def test_work_in_good_time_gives_no_finding(watch: StallWatch) -> None:
    gc.collect()
    with watched(watch, 1.0) as loop:
        small = [lambda: busy(0.0005)] * 5 + [lambda: time.sleep(0.001), lambda: sum(range(1000))]
        loop.run_in_thread([small] * 100, rest=lambda: time.sleep(0.05))
        assert loop.stalls() == []


def test_a_loop_that_waits_for_long_gives_no_finding(watch: StallWatch) -> None:
    with watched(watch, RARE_S) as loop:
        loop.run_in_thread([[lambda: None]], rest=lambda: time.sleep(RARE_S * 2))
        assert loop.stalls() == []


def test_a_stall_between_runs_is_none(watch: StallWatch) -> None:
    with watched(watch, RARE_S) as loop:
        loop.run_in_thread([[lambda: None]])
        time.sleep(RARE_S * 2)
        loop.run_in_thread([[lambda: None]])
        assert loop.stalls() == []


def test_two_loops_are_watched_at_once_each_by_its_own_time(watch: StallWatch) -> None:
    with watched(watch, STALL_S) as quick, watched(watch, 10.0) as patient:
        threads = [threading.Thread(target=loop.run, args=([[until_reported(quick)]],)) for loop in (quick, patient)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(quick.seen_stalls()) == 1
        assert patient.stalls() == []


def test_a_handles_task_is_found_by_its_callback() -> None:
    from penstock.tasks.detectors.stall_report import running_task

    async def main() -> tuple[object, object]:
        async def steps() -> None:
            await asyncio.sleep(0)

        task = asyncio.ensure_future(steps())
        handle = asyncio.get_running_loop()._ready[-1]  # type: ignore[attr-defined]
        found = running_task(None, handle)
        await task
        return task, found

    task, found = asyncio.run(main())
    assert task is found


def test_a_native_loops_current_task_is_asked_first(watch: StallWatch) -> None:
    from penstock._core.tasks.heartbeat import Heartbeat

    findings, heartbeat = FindingLog(), Heartbeat()

    async def stalls() -> None:
        heartbeat.enter()
        heartbeat.begin_turn()
        heartbeat.begin_callback(object)
        wait_until(lambda: bool(findings.all()))
        heartbeat.leave()

    async def main() -> None:
        describe: Callable[[asyncio.Task[object]], str] = lambda task: f"<{task.get_name()}>"  # noqa: E731
        assert watch.watch(asyncio.get_running_loop(), heartbeat, STALL_S, findings, describe)
        await asyncio.create_task(stalls(), name="mine")
        watch.unwatch(asyncio.get_running_loop())

    asyncio.run(main())
    assert [finding.task for finding in findings.all()] == ["<mine>"]


def test_a_loop_without_stamps_is_not_watched(watch: StallWatch) -> None:
    loop: asyncio.AbstractEventLoop = DrivenLoop()  # type: ignore[assignment]
    assert not watch.watch(loop, None, STALL_S, FindingLog())
    assert watch._thread is None
    watch.unwatch(loop)


@pytest.mark.parametrize("stall_s", [0.0, -1.0])
def test_a_stall_of_no_length_is_refused(watch: StallWatch, stall_s: float) -> None:
    with pytest.raises(ValueError, match="positive stall_ns"):
        watch.watch(DrivenLoop(), DrivenLoop().heartbeat, stall_s, FindingLog())  # type: ignore[arg-type]


def test_the_thread_is_there_from_the_first_run_to_the_last_loops_end(watch: StallWatch) -> None:
    with watched(watch, STALL_S) as loop:
        assert watch._thread is None
        loop.run_in_thread([[lambda: None]])
        thread = watch._thread
        assert thread is not None
        assert thread.daemon
        loop.run_in_thread([[lambda: None]])
        assert watch._thread is thread
        assert watch._watchdog is not None
        assert watch._watchdog.collections in gc.callbacks
    wait_until(lambda: not thread.is_alive())
    assert watch._thread is None
    assert watch._watchdog.collections not in gc.callbacks


def test_a_loop_that_is_collected_is_watched_no_more(watch: StallWatch) -> None:
    loop = DrivenLoop()
    assert watch.watch(loop, loop.heartbeat, STALL_S, loop.findings)  # type: ignore[arg-type]
    loop.run_in_thread([[lambda: None]])
    thread = watch._thread
    assert thread is not None
    del loop
    gc.collect()
    wait_until(lambda: not thread.is_alive())
    assert not watch._loops


def test_loops_may_come_and_go_while_the_thread_looks(watch: StallWatch) -> None:
    for _ in range(200):
        with watched(watch, 0.001) as loop:
            loop.run([[lambda: None], [lambda: None]])
    with watched(watch, STALL_S) as loop:
        loop.run_in_thread([[until_reported(loop)]])
        assert len(loop.seen_stalls()) == 1


def test_a_report_that_fails_ends_nothing(watch: StallWatch, caplog: pytest.LogCaptureFixture) -> None:
    def fails(finding: Finding) -> bool:
        raise ValueError("no room")

    with watched(watch, STALL_S) as loop:
        loop.findings.add = fails  # type: ignore[method-assign]
        loop.run_in_thread([[lambda: wait_until(lambda: "could not be reported" in caplog.text)]])
        del loop.findings.add
        loop.run_in_thread([[until_reported(loop)]])
        assert len(loop.seen_stalls()) == 1
