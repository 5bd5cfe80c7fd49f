"""Everything together on penstock's own loop: each fault is found within its bound, a program without it is quiet."""

import asyncio
import gc
import json
import os
import signal
import time

import pytest

import penstock
from penstock import Config, TasksConfig, new_event_loop, tasks
from penstock.errors import ConfigError
from penstock.loop import NATIVE
from penstock.tasks.observers.registry import observer_of
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not NATIVE, reason="the watcher reads the native loop's probe")

QUICK = TasksConfig(check_s=0.02, stuck_s=0.05, stall_s=0.1, hung_s=0.05, hung_factor=2.0)


def found_by(main, config=QUICK):
    """Run `main` and give what was found by the time that the loop was closed."""
    seen = []

    async def watched():
        tasks.on_finding(seen.append)
        await main()

    penstock.run(watched(), config=Config(tasks=config))
    return seen


def stand_still():
    """Block the loop until a stall is found, however late the watchdog has its turn."""
    end_s = time.monotonic() + 20
    while "stall" not in kinds():
        assert time.monotonic() < end_s, "no stall was found"
        time.sleep(0.05)


def kinds():
    return [finding.kind for finding in tasks.findings()]


def of_kind(found, kind):
    return [finding for finding in found if finding.kind == kind]


def test_a_lost_task_is_found_with_its_site_and_age():
    async def waits():
        await asyncio.get_running_loop().create_future()

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        asyncio.create_task(waits())  # noqa: RUF006 (what this test is about)
        await asyncio.sleep(0.01)
        gc.collect()
        await until(lambda: "destroyed_pending" in kinds())

    (lost,) = of_kind(found_by(main), "destroyed_pending")
    assert lost.site.function.endswith("main")
    assert lost.evidence["age_s"] >= 0.01
    assert lost.evidence["steps"] == 1
    assert "spawn()" in lost.message


def test_a_failure_that_is_not_retrieved_is_found():
    async def fails():
        raise LookupError("as asked")

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        task = asyncio.create_task(fails())
        await asyncio.sleep(0.01)
        del task
        gc.collect()

    (failure,) = of_kind(found_by(main), "exception_unretrieved")
    assert "as asked" in failure.message


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_coroutine_that_is_never_awaited_is_found():
    async def forgotten():
        pass

    async def main():
        forgotten()

    (never,) = of_kind(found_by(main), "never_awaited")
    assert "forgotten" in never.message


def test_two_tasks_that_await_each_other_are_found_with_the_cycle():
    made = {}

    async def one(other):
        await asyncio.sleep(0)
        await made[other]

    async def main():
        made["a"] = asyncio.create_task(one("b"), name="a")
        made["b"] = asyncio.create_task(one("a"), name="b")
        await until(lambda: "await_cycle" in kinds())
        # not cancelled: they would cancel each other without end
        for task in made.values():
            task._log_destroy_pending = False

    found = found_by_hand(main)
    (cycle,) = of_kind(found, "await_cycle")
    assert cycle.evidence["cycle"] in ("'a' -> 'b' -> 'a'", "'b' -> 'a' -> 'b'")
    assert not of_kind(found, "stuck")


def found_by_hand(main, config=QUICK):
    """As `found_by`, on a loop that is closed without cancelling the rest."""
    loop, seen = penstock.new_event_loop(Config(tasks=config)), []
    loop.set_exception_handler(lambda *_: None)
    tasks.on_finding(seen.append, loop)
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
        gc.collect()
    return seen


def test_a_task_whose_event_cannot_be_set_is_found():
    async def waits():
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(waits(), name="stuck")
        await until(lambda: "stuck" in kinds())
        task.cancel()

    (stuck,) = of_kind(found_by(main), "stuck")
    assert (stuck.task, stuck.site.function.endswith("main")) == ("stuck", True)
    assert "event" in stuck.message
    assert any("waits" in frame for frame in stuck.evidence["await_chain"])


def test_a_hung_task_is_found_once():
    gate = {}

    async def work(hangs):
        await (gate["never"].wait() if hangs else asyncio.sleep(0))

    async def main():
        gate["never"] = asyncio.Event()
        # One after the other: a moment without a CPU makes one of them late, and not all.
        for number in range(500):
            task = asyncio.create_task(work(number == 499), name=str(number))
            await asyncio.wait([task], timeout=None if number < 499 else 0)
        await until(lambda: "hung" in kinds())
        await asyncio.sleep(0.1)
        gate["never"].set()
        await task

    (hung,) = of_kind(found_by(main), "hung")
    assert hung.task == "499"
    assert hung.evidence["site_p99_s"] < 0.05


def test_a_site_that_only_grows_is_found():
    async def main():
        made = []
        gate = asyncio.Event()
        while "growing" not in kinds():
            made += [asyncio.create_task(gate.wait()) for _ in range(5)]
            await asyncio.sleep(0.005)
        gate.set()
        await asyncio.gather(*made)

    growing = of_kind(found_by(main), "growing")
    # on 3.11 a list comprehension is a function of its own
    assert ".main" in growing[0].site.function


def test_a_loop_that_is_closed_with_tasks_pending_is_found():
    async def main():
        task = asyncio.create_task(asyncio.sleep(60), name="left")
        await asyncio.sleep(0)
        task._log_destroy_pending = False

    (closed,) = of_kind(found_by_hand(main), "loop_closed")
    assert "1 task pending: left" in closed.message


def test_a_blocking_call_is_found_while_it_lasts_with_task_and_line():
    async def blocks():
        stand_still()

    async def main():
        await asyncio.create_task(blocks(), name="culprit")

    stalls = of_kind(found_by(main), "stall")
    assert stalls[0].task == "culprit"
    assert stalls[0].site.function == "stand_still"
    assert (stalls[0].evidence["cause"], stalls[0].evidence["blocked"]) in (("python", True), ("descheduled", True))


def test_c_code_that_keeps_the_gil_is_distinguished_from_python_code():
    """The call lasts for long after the watchdog has asked for the GIL, which distinguishes it from Python code."""
    count = int(1_000_000 * 3 * QUICK.stall_s / adding_s(1_000_000))

    async def main():
        sum(range(count))

    causes = {stall.evidence["cause"] for stall in of_kind(found_by(main), "stall")}
    assert causes & {"gil", "descheduled"}, causes


def adding_s(count):
    """CPU time of one call of C code that keeps the GIL."""
    began_s = time.thread_time()
    sum(range(count))
    return time.thread_time() - began_s


def test_a_stall_leaves_a_trace_and_the_trace_has_what_came_before(tmp_path):
    async def main():
        await asyncio.gather(*[asyncio.sleep(0.001) for _ in range(20)])
        await penstock.to_thread(abs, -1)
        # its thread notes it after it has handed the result over
        events = observer_of(asyncio.get_running_loop()).events
        await until(lambda: "job" in {event.kind for event in events()})
        gc.collect()
        stand_still()
        await until(lambda: list(tmp_path.glob("*.json")))

    # long: another stall before this one, of a machine that is busy, would have the trace
    found_by(main, TasksConfig(level="trace", stall_s=1.0, trace_dir=str(tmp_path)))
    (path,) = tmp_path.glob("*.json")
    trace = json.loads(path.read_text())
    kinds = {(event["ph"], event.get("cat")) for event in trace["traceEvents"]}
    assert kinds >= {("b", "task"), ("e", "task"), ("X", "step"), ("X", "job"), ("X", "stall"), ("X", "gc")}
    assert all(event["ts"] > 0 for event in trace["traceEvents"] if event["ph"] != "M")


def test_a_signal_may_write_a_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    async def main():
        os.kill(os.getpid(), signal.SIGUSR2)
        await until(lambda: list(tmp_path.glob("penstock-*.json")))

    signals = penstock.SignalsConfig(handlers={"SIGUSR2": "penstock.tasks:trace_on_signal"})
    penstock.run(main(), config=Config(signals=signals))


def test_off_finds_and_counts_nothing():
    async def main():
        time.sleep(0.15)
        assert tasks.statistics().created == 0
        tasks.set_level("time")
        await asyncio.create_task(asyncio.sleep(0))
        assert tasks.statistics().created == 2

    assert found_by(main, TasksConfig(level="off", stall_s=0.1)) == []


def test_figures_of_several_loops_are_summed():
    loops = [penstock.new_event_loop(Config()) for _ in range(2)]
    before = tasks.statistics().created
    for loop in loops:
        loop.run_until_complete(asyncio.sleep(0))
    total = tasks.statistics()
    assert total.created == before + 2
    assert total.figures.turn.count >= 2
    assert {tasks.statistics(loop).created for loop in loops} == {1}
    for loop in loops:
        loop.close()


def test_a_listener_that_raises_affects_no_other(caplog):
    def bad(finding):
        raise ValueError

    async def main():
        tasks.on_finding(bad)
        stand_still()
        await until(lambda: "is not called again" in caplog.text)

    assert of_kind(found_by(main), "stall")


def test_a_program_without_faults_is_quiet():
    assert run_without_faults(1.0) == []


def run_without_faults(seconds):
    """Servers, queues, locks, timeouts, executors, cancellations: all that may look like a fault and is none."""

    async def handler(reader, writer):
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def client(address, over):
        reader, writer = await asyncio.open_connection(*address)
        while not over.is_set():
            writer.write(b"x" * 100)
            await reader.readexactly(100)
            await asyncio.sleep(0.001)
        writer.close()
        await writer.wait_closed()

    async def consumer(queue):
        while await queue.get() is not None:
            pass

    async def locked(lock, over):
        while not over.is_set():
            async with lock:
                await asyncio.sleep(0.002)

    async def cancelled(over):
        while not over.is_set():
            try:
                async with asyncio.timeout(0.005):
                    await asyncio.Event().wait()
            except TimeoutError:
                pass

    async def main():
        over, lock, queue = asyncio.Event(), asyncio.Lock(), asyncio.Queue()
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(client(server.sockets[0].getsockname(), over))
                group.create_task(locked(lock, over))
            group.create_task(cancelled(over))
            group.create_task(consumer(queue))
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                queue.put_nowait(1)
                await asyncio.gather(asyncio.sleep(0.005), penstock.to_thread(abs, -1))
            over.set()
            queue.put_nowait(None)
        server.close()

    # a second is a stall here: the machine may be busy with other tests
    quiet = TasksConfig(check_s=0.02, stuck_s=0.05, stall_s=1.0, hung_s=30.0)
    return [finding for finding in found_by(main, quiet) if finding.evidence.get("cause") != "descheduled"]


def test_the_folder_of_traces_is_made(tmp_path):
    folder = tmp_path / "not" / "there"
    new_event_loop(Config(tasks=TasksConfig(trace_dir=str(folder)))).close()
    assert folder.is_dir()


def test_a_folder_of_traces_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"tasks.trace_dir = .*file/traces.*can be created: Not a directory"):
        new_event_loop(Config(tasks=TasksConfig(trace_dir=str(tmp_path / "file" / "traces"))))
