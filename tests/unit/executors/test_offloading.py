"""offload, offloaded, to_thread and statistics, on penstock's loop and on loops that are not penstock's."""

import asyncio
import concurrent.futures
import contextvars
import functools
import gc
import inspect
import pickle
import subprocess
import sys
import threading
import unittest.mock

import pytest

import penstock
from penstock import Config, ExecutorsConfig, LaneConfig
from penstock.errors import ConfigError, DeadlineExceeded
from penstock.executors import foreign_loops as guests
from penstock.executors import statistics
from penstock.executors.backends.adapter import ExecutorLane
from penstock.executors.job import function_name
from penstock.executors.offloading import Offload, Undecorated, _time_left_s
from penstock.expiry import expiry
from penstock.pressure import deadline

# the calls are the same in any lane: threads show all that this module does
EXECUTORS = ExecutorsConfig(cpu=LaneConfig(workers=2), lanes={"db": LaneConfig(workers=1)})
variable = contextvars.ContextVar("variable", default="unset")


def run_on_penstock(main):
    return penstock.run(main, config=Config(executors=EXECUTORS))


def run_on_asyncio(main):
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(main)


def run_on_uvloop(main):
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


@pytest.fixture(params=[run_on_penstock, run_on_asyncio, run_on_uvloop], ids=["penstock", "asyncio", "uvloop"])
def run(request, monkeypatch):
    if request.param is run_on_uvloop:
        pytest.importorskip("uvloop")
    for key, text in Config(executors=EXECUTORS).to_env().items():
        monkeypatch.setenv(key, text)
    return request.param


def thread_name(*args, **kwargs):
    return threading.current_thread().name, args, kwargs


@penstock.offloaded
def decorated(*args, **kwargs):
    """Its documentation."""
    return thread_name(*args, **kwargs)


@penstock.offloaded(lane="db", timeout=5, key="k", retries=1)
def in_db(lane):
    return threading.current_thread().name, lane


def test_a_call_runs_in_the_lane_it_names(run):
    async def main():
        return await penstock.offload(thread_name, 1, b=2), await penstock.offload.options(lane="db")(thread_name)

    (cpu, args, kwargs), (db, _, _) = run(main())
    assert cpu.startswith("penstock-cpu")
    assert db.startswith("penstock-db")
    assert (args, kwargs) == ((1,), {"b": 2})


def test_a_decorated_function_is_awaited_and_runs_in_its_lane(run):
    async def main():
        return await decorated(1, key=2), await in_db(lane="an argument of its own")

    (cpu, args, kwargs), (db, argument) = run(main())
    assert cpu.startswith("penstock-cpu")
    assert (args, kwargs) == ((1,), {"key": 2})
    assert db.startswith("penstock-db")
    assert argument == "an argument of its own"
    assert decorated.__doc__ == "Its documentation."


def test_to_thread_runs_in_io_in_a_copy_of_the_context(run):
    def work(word, end=""):
        seen = variable.get()
        variable.set("changed")
        return threading.current_thread().name, seen + word + end

    async def main():
        variable.set("mine")
        return *await penstock.to_thread(work, " word", end="."), variable.get()

    name, said, after = run(main())
    assert name.startswith("penstock-io")
    assert (said, after) == ("mine word.", "mine")


def test_a_lane_of_threads_sees_the_callers_context(run):
    async def main():
        variable.set("mine")
        return await penstock.offload(variable.get)

    assert run(main()) == "mine"


def test_what_the_function_raises_comes_back(run):
    async def main():
        await penstock.offload(int, "no number")

    with pytest.raises(ValueError, match="no number"):
        run(main())


@pytest.mark.parametrize("name", ["CancelledError", "InvalidStateError", "TimeoutError"])
def test_an_executors_exception_comes_to_a_loop_as_asyncios(run, name):
    def fail():
        raise getattr(concurrent.futures, name)("why", 2)

    async def main():
        future = asyncio.get_running_loop().run_in_executor(None, fail)
        await asyncio.wait([future])
        return future.cancelled(), future.exception()

    cancelled, problem = run(main())
    assert not cancelled
    assert type(problem) is getattr(asyncio, name)
    assert problem.args == ("why", 2)


async def test_a_time_without_an_end_is_no_time_limit():
    lane = guests.lanes_of(asyncio.get_running_loop()).get("io")
    for endless in (float("inf"), 1e300, 10**400):
        assert await penstock.offload.options(timeout=endless, deadline=endless)(abs, -1) == 1
        assert await lane.call(asyncio.get_running_loop(), abs, (-2,), timeout_s=endless) == 2
        assert await penstock.offloaded(timeout=endless)(abs)(-3) == 3


async def test_a_time_that_is_none_is_refused():
    lane = guests.lanes_of(asyncio.get_running_loop()).get("io")
    for kind, wrong in ((ValueError, float("nan")), (TypeError, "5"), (TypeError, [1])):
        with pytest.raises(kind, match="a number of seconds, or None"):
            await penstock.offload.options(timeout=wrong)(abs, -1)
        with pytest.raises(kind, match="a number of seconds, or None"):
            await penstock.offload.options(timeout=5, deadline=wrong)(abs, -1)
        with pytest.raises(kind, match="a number of seconds, or None"):
            lane.call(asyncio.get_running_loop(), abs, (-1,), timeout_s=wrong)
    for past in (-1, float("-inf"), False):
        with pytest.raises(TimeoutError, match="was up"):
            await penstock.offload.options(timeout=past)(abs, -1)
        with pytest.raises(TimeoutError, match="was up"):
            await lane.call(asyncio.get_running_loop(), abs, (-1,), timeout_s=past)


async def test_retries_that_are_no_whole_number_are_refused_before_a_worker_is_lost():
    lane = guests.lanes_of(asyncio.get_running_loop()).get("io")
    for wrong in ("1", None, 1.5):
        with pytest.raises(TypeError, match="a whole number"):
            await penstock.offload.options(retries=wrong)(abs, -1)
        with pytest.raises(TypeError, match="a whole number"):
            lane.options(retries=wrong).submit(abs, -1)


def test_an_undeclared_lane_is_one_clear_line(run):
    async def main():
        await penstock.offload.options(lane="gpu")(int)

    with pytest.raises(ConfigError, match=r"no lane 'gpu': there are io, cpu, dns, db"):
        run(main())


def test_time_that_is_up_is_a_timeout_before_anything_is_offered(run):
    async def main():
        now = asyncio.get_running_loop().time()
        for how in ({"timeout": 0}, {"deadline": now - 1}, {"timeout": 5, "deadline": now - 1}):
            with pytest.raises(TimeoutError, match=r"builtins\.int: its time was up .* before it was offered"):
                await penstock.offload.options(**how)(int)
        return statistics()

    assert run(main()) == {}


def test_of_timeout_and_deadline_the_sooner_counts(run):
    async def main():
        now = asyncio.get_running_loop().time()
        return [
            _time_left_s(int, timeout, deadline)
            for timeout, deadline in ((50, now + 20), (20, now + 50), (None, now + 20), (20, None), (None, None))
        ]

    sooner = run(main())
    assert sooner[-1] is None
    assert all(1 < left_s <= 20 for left_s in sooner[:-1])


def test_statistics_tell_of_the_lanes_that_were_used(run):
    async def main():
        before = statistics()
        await penstock.offload(int)
        await penstock.to_thread(int)
        return before, statistics()

    before, after = run(main())
    assert before == {}
    assert sorted(after) == ["cpu", "io"]
    assert (after["cpu"].name, after["cpu"].kind) == ("cpu", "threads")


def test_the_packages_statistics_are_the_function_whatever_is_imported_later():
    program = "import penstock.executors.threads.lane, penstock; print(penstock.executors.statistics.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "statistics\n"


class Awaited:
    async def __call__(self):
        pass

    async def method(self):
        yield


async def slow():
    pass


@pytest.mark.parametrize(
    "function", [slow, functools.partial(slow), Awaited(), Awaited().method, unittest.mock.AsyncMock(), decorated]
)
def test_coroutine_functions_are_refused_before_they_are_sent(run, function):
    async def main():
        loop = asyncio.get_running_loop()
        for call in (penstock.offload, penstock.to_thread):
            with pytest.raises(TypeError, match=r"is a coroutine function: lanes run plain ones"):
                await call(function)
        other = ExecutorLane("other", LaneConfig(), lambda: pytest.fail("an executor was made"))
        with pytest.raises(TypeError, match=r"is a coroutine function"):
            other.call(loop, function, ())
        with pytest.raises(TypeError, match=r"is a coroutine function"):
            other.submit(function)

    with pytest.raises(TypeError, match=r"is a coroutine function"):
        penstock.offloaded(function)
    run(main())


# uvloop's own refuses it
@pytest.mark.parametrize("run", [run_on_penstock, run_on_asyncio], indirect=True, ids=["penstock", "asyncio"])
def test_asyncios_way_into_threads_gives_a_coroutine_as_asyncio_does(run):
    if run is run_on_uvloop:
        pytest.skip("uvloop refuses it")

    async def main():
        coroutine = await asyncio.get_running_loop().run_in_executor(None, slow)
        assert inspect.iscoroutine(coroutine)
        await coroutine

    run(main())


def test_a_callable_that_answers_everything_is_plain(run):
    async def main():
        return await penstock.to_thread(unittest.mock.MagicMock(return_value=3))

    assert run(main()) == 3


# deadlines


def test_the_deadline_around_a_call_bounds_it(run):
    gate, pool = threading.Event(), concurrent.futures.ThreadPoolExecutor(1)
    foreign = ExecutorLane("foreign", LaneConfig(), lambda: pool)

    async def main():
        loop = asyncio.get_running_loop()
        for lane in (guests.lanes_of(loop).get("io"), foreign):
            with (
                deadline(0.3),
                pytest.raises(DeadlineExceeded, match=r"wait has not .* \(the deadline of its caller\)"),
            ):
                await lane.call(loop, gate.wait, (), timeout_s=60)
        with deadline(60), pytest.raises(TimeoutError, match=r"wait has not .* 0\.02 s \(its timeout\)") as caught:
            await penstock.offload.options(timeout=0.02)(gate.wait)
        assert not isinstance(caught.value, DeadlineExceeded)
        with deadline(0):
            with pytest.raises(DeadlineExceeded, match="was up"):
                await penstock.to_thread(gate.wait)
            with pytest.raises(DeadlineExceeded, match="was up"):
                await asyncio.wrap_future(foreign.submit(gate.wait))

    async def guarded():
        try:
            await main()
        finally:
            gate.set()

    run(guarded())
    foreign.shutdown()


def test_a_deadline_in_a_threads_job_bounds_what_that_submits(run):
    def ask(lane):
        return lane.submit(int).exception(20)

    async def main():
        lane = guests.lanes_of(asyncio.get_running_loop()).get("io")
        with deadline(60) as at_s:
            expired = await penstock.to_thread(lambda: (expiry.set(at_s - 120), ask(lane))[1])
            return expired, await penstock.to_thread(ask, lane)

    expired, in_time = run(main())
    assert isinstance(expired, DeadlineExceeded)
    assert in_time is None


def test_a_decorated_function_travels_by_its_name():
    sent = pickle.loads(pickle.dumps(Undecorated(decorated.__wrapped__, decorated)))
    assert sent is decorated.__wrapped__
    assert not inspect.iscoroutinefunction(sent)


def test_a_decorated_function_is_named_as_itself():
    job = Undecorated(decorated.__wrapped__, decorated)
    assert function_name(job) == f"{__name__}.decorated"


# loops that are not penstock's


def test_the_lanes_of_a_foreign_loop_end_with_it(run):
    if run is run_on_penstock:
        pytest.skip("it has its own")
    before = set(threading.enumerate())

    async def main():
        await penstock.offload(int)
        return guests.lanes_of(asyncio.get_running_loop())

    lanes = run(main())
    assert lanes._is_shut
    assert set(threading.enumerate()) <= before
    assert len(guests.foreign_lanes) == 0


def test_the_lanes_of_a_loop_closed_in_a_hurry_are_shut_when_the_next_one_comes(monkeypatch):
    monkeypatch.setenv("PENSTOCK_EXECUTORS_CPU", "threads workers=1")
    loop = asyncio.SelectorEventLoop()
    loop.run_until_complete(penstock.offload(int))
    (left,) = guests.foreign_lanes.values()
    loop.close()
    run_on_asyncio(penstock.offload(int))
    assert left._is_shut
    left.shutdown()


def test_two_loops_have_lanes_of_their_own(monkeypatch):
    monkeypatch.setenv("PENSTOCK_EXECUTORS_CPU", "threads workers=1")

    async def main():
        await penstock.offload(int)
        return id(guests.lanes_of(asyncio.get_running_loop()))

    seen = []
    threads = [threading.Thread(target=lambda: seen.append(run_on_asyncio(main()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert len(seen) == 2
    assert len(guests.foreign_lanes) == 0


# arguments and options


def sort(items, key=None, timeout=0):
    return sorted(items, key=key), timeout


def everything(**keywords):
    return keywords


ALL = {"lane": 1, "timeout": 2, "deadline": 3, "key": 4, "retries": 5, "priority": 6}


async def test_every_argument_of_a_call_is_the_functions_own():
    def last(items):
        return -items

    for call in (penstock.offload, penstock.to_thread, penstock.offload.options(key="tenant", timeout=60)):
        assert await call(sort, [1, 2], key=last, timeout=7) == ([2, 1], 7)
        assert await call(sorted, [1, 2], key=last) == [2, 1]
        assert await call(max, [1, 2], key=last) == 1
        assert await call(everything, **ALL) == ALL
        assert await call(functools.partial(sort, [1, 2]), key=last) == ([2, 1], 0)
    assert await penstock.offloaded(timeout=60)(everything)(**ALL) == ALL
    lane = guests.lanes_of(asyncio.get_running_loop()).get("io")
    for submit in (lane.submit, lane.options(key="tenant", timeout=60).submit):
        assert await asyncio.wrap_future(submit(sorted, [1, 2], key=last)) == [2, 1]
        assert await asyncio.wrap_future(submit(everything, **ALL)) == ALL


@pytest.mark.parametrize("call", [penstock.offload, penstock.to_thread])
def test_an_option_among_the_arguments_is_refused_with_the_way_to_say_it(run, call):
    async def main():
        with pytest.raises(TypeError) as caught:
            await call(work, 12, timeout=5, retries=1)
        return str(caught.value)

    def work(limit):
        pytest.fail("it ran")

    said = run(main())
    assert "work takes no argument 'timeout'" in said
    assert "penstock.offload.options(timeout=5, retries=1)(work, ...)" in said


def test_options_are_added_to_those_there_are_and_change_nothing():
    db = penstock.offload.options(lane="db", retries=1)
    assert db.options(timeout=5) == Offload("db", timeout=5, retries=1)
    assert db == Offload("db", retries=1)
    with pytest.raises(TypeError, match=r"^offload\.options\(\) has no option 'timeuot'; did you mean 'timeout'\?$"):
        db.options(timeuot=5)
    with pytest.raises(TypeError, match=r"no option 'xyz': there are lane, timeout, deadline, key, retries, priority$"):
        db.options(xyz=5)


async def test_a_lanes_options_hold_for_each_of_its_calls():
    gate = threading.Event()

    loop = asyncio.get_running_loop()
    db = guests.lanes_of(loop).get("db")
    quick = db.options(timeout=0.05)
    try:
        with pytest.raises(TimeoutError, match="its timeout"):
            await loop.run_in_executor(quick, gate.wait)
        with pytest.raises(TimeoutError, match="its timeout"):
            await asyncio.wrap_future(quick.submit(gate.wait))
        # one thread, held by the first job: of the others each key's first goes before another key's second
        order = []
        jobs = [db.options(key=key).submit(order.append, key) for key in "aaab"]
    finally:
        gate.set()
    await asyncio.gather(*map(asyncio.wrap_future, jobs))
    assert order == ["a", "b", "a", "a"]
