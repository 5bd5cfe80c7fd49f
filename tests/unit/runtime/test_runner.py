"""The runner and the functions beside it."""

import asyncio
import contextvars
import inspect

import pytest

import penstock
from penstock import Config, LoopConfig
from penstock.errors import ConfigError
from penstock.loop.selector import SelectorEventLoop as SelectorLoop
from tests.unit.runtime.child import Child

variable = contextvars.ContextVar("variable", default=0)


async def running():
    return asyncio.get_running_loop()


def test_run_returns_the_result_and_closes_the_loop():
    loop = penstock.run(running())
    assert isinstance(loop, penstock.EventLoop)
    assert loop.is_closed()


def test_run_takes_the_config_from_the_environment(monkeypatch):
    monkeypatch.setenv("PENSTOCK_LOOP_POLLER", "selector")
    assert type(penstock.run(running())) is SelectorLoop


def test_run_takes_a_config_and_debug_goes_before_it():
    config = Config(loop=LoopConfig(debug=False))
    assert penstock.run(running(), config=config).get_debug() is False
    assert penstock.run(running(), config=config, debug=True).get_debug() is True


def test_a_bad_config_is_the_only_thing_that_is_heard_of(monkeypatch):
    monkeypatch.setenv("PENSTOCK_TASKS_FACTORY", "no_such_module_here:f")
    with pytest.raises(ConfigError, match="there is no module 'no_such_module_here'"):
        penstock.run(running())


def test_ctrl_c_before_the_loop_is_there_leaves_no_word_of_the_coroutine(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("penstock.runtime.runner.build_loop", interrupt)
    main = running()
    with pytest.raises(KeyboardInterrupt):
        penstock.run(main)
    assert inspect.getcoroutinestate(main) == inspect.CORO_CLOSED


TAKES_A_CONFIG = {
    "run": lambda config: penstock.run(running(), config=config),
    "Runner": penstock.Runner,
    "new_event_loop": penstock.new_event_loop,
    "EventLoopPolicy": penstock.EventLoopPolicy,
    "install": penstock.install,
}


@pytest.mark.parametrize("call", TAKES_A_CONFIG.values(), ids=TAKES_A_CONFIG)
@pytest.mark.parametrize(
    "given", [{"loop": {"spin_us": 50}}, LoopConfig(), "loop.spin_us=50"], ids=["dict", "group", "text"]
)
def test_what_is_no_config_is_refused_with_what_would_be(call, given):
    with pytest.raises(ConfigError, match=r"^config = .*: allowed is a penstock\.Config, such as Config\(loop="):
        call(given)


@pytest.mark.parametrize("group", ["loop", "executors", "tasks", "pressure", "signals", "serve"])
def test_a_group_that_is_a_dict_is_refused_with_its_class(group):
    with pytest.raises(ConfigError, match=rf"^{group} = {{}} \(Config\(\)\): allowed is a {group.capitalize()}Config"):
        Config(**{group: {}})


def test_run_inside_a_running_loop_is_refused():
    async def main():
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            penstock.run(running())

    penstock.run(main())


def test_the_first_task_of_a_program_is_task_1_as_on_asyncio():
    with Child(
        """
        import asyncio, penstock

        async def main():
            print("named", asyncio.current_task().get_name())

        penstock.run(main())
        """
    ) as child:
        assert child.expect("named") == "named Task-1"


def test_a_runner_runs_often_on_one_loop_in_one_context():
    async def add():
        variable.set(variable.get() + 1)
        return variable.get()

    with penstock.Runner() as runner:
        assert [runner.run(add()), runner.run(add())] == [1, 2]
        assert runner.run(add(), context=contextvars.Context()) == 1
        assert runner.run(running()) is runner.get_loop()
    assert variable.get() == 0
    with pytest.raises(RuntimeError, match="closed"):
        runner.get_loop()


def test_a_runner_cancels_what_still_runs():
    ended = []

    async def endless():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def main():
        task = asyncio.ensure_future(endless())
        await asyncio.sleep(0)
        return task

    assert penstock.run(main()).cancelled()
    assert ended == [True]


def test_a_loop_that_is_never_closed_says_nothing_at_the_interpreters_end():
    program = """
    import penstock, warnings
    warnings.simplefilter("ignore", ResourceWarning)
    loop = penstock.new_event_loop()
    async def main(): pass
    loop.run_until_complete(main())
    """
    with Child(program) as child:
        ended = child.ended()
    assert (ended.returncode, ended.err) == (0, "")


def test_new_event_loop_is_a_loop_factory():
    with asyncio.Runner(loop_factory=penstock.new_event_loop) as runner:
        assert isinstance(runner.run(running()), penstock.EventLoop)
