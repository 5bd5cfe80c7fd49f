"""Loops built as a config says."""

import asyncio
import concurrent.futures
import gc
import sys
import threading

import pytest

from penstock import Config, ExecutorsConfig, LaneConfig, LoopConfig, SignalsConfig, TasksConfig
from penstock.errors import ConfigError, ReferenceNotFoundError
from penstock.executors import LaneSet
from penstock.loop import NATIVE
from penstock.loop.selector import SelectorEventLoop as SelectorLoop
from penstock.runtime.build import build_loop
from tests.support.loops import POLLERS

POOL = "a pool of theirs"
NOT_AN_EXECUTOR = 5


def make_pool():
    return concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="made")


def make_nonsense():
    return 5


class Marked(asyncio.Task):
    """A task with room for a mark."""


async def nothing():
    pass


async def thread_name():
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, lambda: threading.current_thread().name)


def used(config, coroutine):
    loop = build_loop(config)
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.fixture(params=POLLERS)
def poller(request):
    return LoopConfig(poller=request.param)


def test_the_poller_is_the_one_asked_for():
    loop = build_loop(Config(loop=LoopConfig(poller="selector", slow_callback_s=0.5, debug=True)))
    loop.close()
    assert type(loop) is SelectorLoop
    assert (loop.slow_callback_duration, loop.get_debug()) == (0.5, True)


@pytest.mark.parametrize(
    ("default", "prefix"),
    [("io", "penstock-io"), ("dns", "penstock-dns"), (POOL, "theirs"), (f"{__name__}:make_pool", "made")],
)
def test_the_default_executor_is_the_one_asked_for(poller, default, prefix):
    if default is POOL:
        default = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="theirs")
    assert used(Config(poller, ExecutorsConfig(default=default)), thread_name()).startswith(prefix)


def test_an_executor_by_name_must_be_one():
    with pytest.raises(ConfigError, match=r"executors\.default .*it gives a int"):
        build_loop(Config(executors=ExecutorsConfig(default=f"{__name__}:NOT_AN_EXECUTOR")))
    with pytest.raises(ConfigError, match=r"executors\.default .*it gives a int"):
        used(Config(executors=ExecutorsConfig(default=f"{__name__}:make_nonsense")), thread_name())


def test_lanes_have_names(poller):
    async def main():
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor("db", lambda: threading.current_thread().name)

    config = Config(poller, ExecutorsConfig(lanes={"db": LaneConfig(workers=1)}))
    assert used(config, main()).startswith("penstock-db")


def test_lanes_are_started_as_the_loop_begins_to_run(poller, monkeypatch):
    started = []
    monkeypatch.setattr(LaneSet, "start", lambda lanes, loop: started.append((lanes, loop)))
    loop = build_loop(Config(poller))
    assert started == []
    loop.run_until_complete(nothing())
    assert started == [(loop.lanes, loop)]
    loop.run_until_complete(nothing())
    assert len(started) == 2
    loop.close()


def test_a_lane_that_cannot_start_ends_the_run_with_its_error(poller, monkeypatch):
    def fail(lanes, loop):
        raise ConfigError("no such thing")

    loop = build_loop(Config(poller))
    monkeypatch.setattr(LaneSet, "start", fail)
    with pytest.raises(ConfigError, match="no such thing"):
        loop.run_forever()
    monkeypatch.undo()
    loop.run_until_complete(nothing())
    loop.close()


def test_the_task_hook_makes_every_task_also_with_a_factory_of_the_users(poller):
    made = []

    def watch(loop, coro, make, **kwargs):
        made.append(coro.__name__)
        return make(loop, coro, **kwargs)

    def user(loop, coro, **kwargs):
        return Marked(coro, loop=loop, **kwargs)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(user)
        task = loop.create_task(nothing())
        await task
        return type(task)

    assert used(Config(poller, tasks=TasksConfig(factory=watch)), main()) is Marked
    assert made[:2] == ["main", "nothing"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_eager_tasks_run_before_create_task_returns_and_pass_the_hook(poller):
    calls = []

    def watch(loop, coro, make, **kwargs):
        calls.append("hook")
        return make(loop, coro, **kwargs)

    async def main():
        calls.clear()
        return asyncio.get_running_loop().create_task(nothing()).done()

    assert used(Config(poller, tasks=TasksConfig(eager=True)), main()) is True
    assert used(Config(poller, tasks=TasksConfig(eager=True, factory=watch)), main()) is True
    assert calls[0] == "hook"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_such_module_here:f", "there is no module 'no_such_module_here' on sys.path"),
        ("asyncio.no_such_part:f", "there is no module 'asyncio.no_such_part'"),
        ("asyncio:slep", "module 'asyncio' has no 'slep'; did you mean 'sleep'"),
    ],
)
def test_a_reference_to_nothing_is_one_clear_line(reference, message):
    with pytest.raises(ReferenceNotFoundError, match=message):
        build_loop(Config(tasks=TasksConfig(factory=reference)))


def test_a_reference_to_what_cannot_be_called_is_one_clear_line():
    with pytest.raises(
        ConfigError, match=r"tasks\.factory = 'sys:path' \(it names a list\): allowed is something callable"
    ):
        build_loop(Config(tasks=TasksConfig(factory="sys:path")))
    with pytest.raises(ConfigError, match=r"signals\.handlers\.SIGHUP"):
        build_loop(Config(signals=SignalsConfig(handlers={"SIGHUP": "sys:path"})))


def test_an_import_that_fails_inside_the_programs_own_module_is_the_programs(tmp_path, monkeypatch):
    (tmp_path / "programs_own.py").write_text("import no_such_module_here\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        build_loop(Config(tasks=TasksConfig(factory="programs_own:f")))


@pytest.mark.skipif(not NATIVE, reason="asyncio's loop is watched by a task factory")
def test_a_closed_loop_leaves_the_collector_nothing():
    used(Config(), nothing())
    gc.collect()
    gc.disable()
    try:
        used(Config(), thread_name())
        assert gc.collect() == 0
    finally:
        gc.enable()
