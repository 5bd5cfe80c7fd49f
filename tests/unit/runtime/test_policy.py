"""The policy: asyncio's rules, penstock's loops."""

import asyncio
import runpy
import sys
import threading
import warnings

import pytest

import penstock
from penstock import Config, EventLoopPolicy, LoopConfig
from penstock.errors import ConfigError, PolicyRemovedError
from penstock.runtime import policy as policy_module
from penstock.runtime.policy import _events_function


def current():
    return _events_function("get_event_loop_policy")()


@pytest.fixture(autouse=True)
def former_policy():
    former = current()
    yield former
    _events_function("set_event_loop_policy")(former)


async def running():
    return asyncio.get_running_loop()


def test_inside_the_block_asyncio_runs_on_penstock_and_after_it_no_more(former_policy):
    with EventLoopPolicy(Config(loop=LoopConfig(slow_callback_s=0.5))):
        loop = asyncio.run(running())
    assert isinstance(loop, penstock.EventLoop)
    assert loop.slow_callback_duration == 0.5
    assert current() is former_policy


def test_nested_blocks_and_exceptions_put_the_former_policy_back(former_policy):
    outer = EventLoopPolicy()
    with outer, pytest.raises(KeyError):
        with EventLoopPolicy() as inner, inner:
            assert current() is inner
            raise KeyError
        assert current() is outer
    assert current() is former_policy


def test_no_warning_escapes(former_policy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with EventLoopPolicy():
            asyncio.run(running())
        penstock.install()
        asyncio.run(running())


def test_it_is_asyncios_kind_of_policy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        abstract = asyncio.AbstractEventLoopPolicy
    assert issubclass(EventLoopPolicy, abstract)


def test_install_lasts():
    penstock.install(Config(loop=LoopConfig(slow_callback_s=0.25)))
    assert isinstance(current(), EventLoopPolicy)
    assert current().config.loop.slow_callback_s == 0.25
    loop = asyncio.new_event_loop()
    loop.close()
    assert isinstance(loop, penstock.EventLoop)


def test_in_a_child_thread_there_is_no_loop_until_one_is_set():
    seen = []

    def child():
        try:
            asyncio.get_event_loop()
        except RuntimeError as error:
            seen.append(str(error))
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        seen.append(asyncio.get_event_loop() is loop)
        asyncio.set_event_loop(None)
        loop.close()
        seen.append(isinstance(asyncio.run(running()), penstock.EventLoop))

    with EventLoopPolicy():
        thread = threading.Thread(target=child, name="child")
        thread.start()
        thread.join()
    assert seen == ["There is no current event loop in thread 'child'.", True, True]


def test_get_event_loop_in_the_main_thread_is_as_asyncio_has_it_on_this_version():
    def outcome(policy):
        _events_function("set_event_loop_policy")(policy)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                asyncio.get_event_loop().close()
                result = "a loop"
            except RuntimeError as error:
                result = str(error)
        asyncio.set_event_loop(None)
        return result, [(warning.category, str(warning.message), warning.filename) for warning in caught]

    assert outcome(EventLoopPolicy()) == outcome(policy_module._asyncio_policy()())


def test_a_bad_config_is_refused_when_the_policy_is_made(monkeypatch):
    monkeypatch.setenv("PENSTOCK_LOOP_SPIN_US", "x")
    with pytest.raises(ConfigError):
        EventLoopPolicy()


def test_where_asyncio_has_no_policies_the_name_points_to_what_there_is(monkeypatch):
    for name in ("_DefaultEventLoopPolicy", "DefaultEventLoopPolicy"):
        monkeypatch.delattr(sys.modules["asyncio.unix_events"], name, raising=False)
    gone = runpy.run_path(policy_module.__file__)
    with pytest.raises(PolicyRemovedError, match=r"penstock\.Runner.*loop_factory=penstock\.new_event_loop"):
        gone["EventLoopPolicy"]()
    with pytest.raises(PolicyRemovedError):
        gone["install"]()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="child watchers are gone")
def test_subprocesses_work_under_the_policy():
    async def main():
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "raise SystemExit(3)")
        return await process.wait()

    with EventLoopPolicy():
        assert asyncio.run(main()) == 3
