"""The lane over interpreters: what runs there, what moves to processes, and that a job's own errors move nothing."""

import asyncio
import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.config import LaneConfig
from penstock.errors import ConfigError, RemoteError, UnpicklableError, WorkerStartError
from penstock.executors.backends.adapter import ExecutorLane
from penstock.executors.backends.interpreters import InterpreterLane

WAIT_S = 20
NAME = "tests.unit.executors.test_interpreters"
needs_interpreters = pytest.mark.skipif(sys.version_info < (3, 14), reason="interpreters came with Python 3.14")


@pytest.fixture
def elsewhere():
    """In the place of processes: threads, whose jobs see that they are in the main interpreter."""
    lane = ExecutorLane("elsewhere", LaneConfig(workers=1), lambda: ThreadPoolExecutor(1))
    yield lane
    lane.shutdown()


@pytest.fixture
def lane(elsewhere):
    made = InterpreterLane("cpu", LaneConfig("interpreters", workers=1), lambda: elsewhere)
    yield made
    made.shutdown()


def interpreter():
    from concurrent import interpreters

    return interpreters.get_current().id


def same(item, **more):
    return (item, more) if more else item


def fail(problem):
    raise problem


def import_what_is_not_there():
    import nothing_of_this_name  # noqa: F401


def leave():
    raise SystemExit(3)


def a_lock():
    return threading.Lock()


class OnlyHere:
    """Refuses to arrive in an interpreter, as an extension for one interpreter only does."""

    def __reduce__(self):
        return arrive, (os.getpid(),)


def arrive(pid):
    if interpreter() != 0:
        raise ImportError("module only_here does not support loading in subinterpreters")
    return OnlyHere()


def moves(records):
    return [record.getMessage() for record in records if record.name == "penstock.executors"]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there are interpreters")
def test_before_314_one_line_says_so():
    with pytest.raises(
        ConfigError, match=r"^lane 'cpu' = 'interpreters' needs Python 3.14 or later, this is 3.1\d: use"
    ):
        InterpreterLane("cpu", LaneConfig("interpreters"), lambda: None)


@needs_interpreters
def test_a_call_runs_in_another_interpreter_of_this_process(lane):
    async def main():
        loop = asyncio.get_running_loop()
        assert await lane.call(loop, interpreter, ()) != 0
        assert await lane.call(loop, os.getpid, ()) == os.getpid()
        assert await lane.call(loop, same, ({1: b"x" * 100_000},), {"more": 2}) == ({1: b"x" * 100_000}, {"more": 2})

    asyncio.run(main())
    assert lane.submit(pow, 2, 5).result(WAIT_S) == 32
    assert lane.statistics().kind == "interpreters"


@needs_interpreters
def test_exceptions_come_back_with_their_traceback(lane):
    with pytest.raises(KeyError) as caught:
        lane.submit(fail, KeyError("gone")).result(WAIT_S)
    assert caught.value.args == ("gone",)
    assert "in fail" in str(caught.value.__cause__)
    with pytest.raises(RemoteError, match="SystemExit"):
        lane.submit(leave).result(WAIT_S)


@needs_interpreters
def test_what_cannot_arrive_moves_once_and_for_all_with_one_line(lane, elsewhere, caplog):
    caplog.set_level(logging.INFO)

    async def main():
        loop = asyncio.get_running_loop()
        made = await asyncio.gather(*(lane.call(loop, same, (OnlyHere(),)) for _ in range(3)))
        assert [type(item) for item in made] == [OnlyHere] * 3

    asyncio.run(main())
    assert lane.submit(same, 7).result(WAIT_S) == 7
    assert elsewhere.statistics().completed["ok"] == 4
    assert lane.statistics().completed["ok"] == 0
    (line,) = moves(caplog.records)
    assert f"lane 'cpu': {NAME}.same cannot run in an interpreter and runs in processes from now on" in line
    assert "does not support loading in subinterpreters" in line


@needs_interpreters
def test_a_thread_that_waits_gets_the_result_from_where_it_moved(lane, elsewhere):
    assert type(lane.submit(same, OnlyHere()).result(WAIT_S)) is OnlyHere
    assert elsewhere.statistics().completed["ok"] == 1


@needs_interpreters
def test_what_is_of_main_is_not_even_tried(lane, elsewhere, caplog, monkeypatch):
    monkeypatch.setattr(interpreter, "__module__", "__main__")
    assert lane.submit(interpreter).result(WAIT_S) == 0
    assert elsewhere.statistics().completed["ok"] == 1
    assert "it belongs to __main__" in moves(caplog.records)[0]


@needs_interpreters
@pytest.mark.parametrize("problem", [ImportError("its own"), AttributeError("its own"), TypeError("its own")])
def test_a_jobs_own_exception_moves_nothing(lane, elsewhere, caplog, problem):
    with pytest.raises(type(problem), match="its own"):
        lane.submit(fail, problem).result(WAIT_S)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        lane.submit(import_what_is_not_there).result(WAIT_S)
    assert elsewhere.statistics().run.count == 0
    assert not moves(caplog.records)


@needs_interpreters
def test_a_result_that_cannot_travel_is_told_and_not_run_again(lane, elsewhere):
    with pytest.raises(UnpicklableError, match=r"the result of .*a_lock, a lock, does not pickle"):
        lane.submit(a_lock).result(WAIT_S)
    assert elsewhere.statistics().run.count == 0


@needs_interpreters
def test_an_argument_that_cannot_travel_is_named(lane):
    with pytest.raises(UnpicklableError, match="argument 1"):
        lane.submit(same, threading.Lock()).result(WAIT_S)


@needs_interpreters
def test_an_interpreter_is_prepared_before_its_first_job(elsewhere):
    config = LaneConfig("interpreters", workers=1, preload=("colorsys",), initializer=prepared)
    lane = InterpreterLane("cpu", config, lambda: elsewhere)
    assert lane.submit(is_prepared).result(WAIT_S) == (True, True)
    lane.shutdown()


def prepared():
    os.penstock_prepared = True


def is_prepared():
    return "colorsys" in sys.modules, hasattr(os, "penstock_prepared")


@needs_interpreters
def test_an_interpreter_that_does_not_start_is_told(elsewhere, caplog):
    config = LaneConfig("interpreters", workers=1, preload=("nothing_of_this_name",))
    lane = InterpreterLane("cpu", config, lambda: elsewhere)
    for _ in range(2):
        with pytest.raises(WorkerStartError, match="does not start"):
            lane.submit(same, 1).result(WAIT_S)
    lane.shutdown()
