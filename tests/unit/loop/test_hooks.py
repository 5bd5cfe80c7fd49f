"""The hooks of the runtime on both of penstock's loops."""

import asyncio
import contextlib

import pytest

from penstock.loop import EventLoop
from penstock.loop.selector import SelectorEventLoop as SelectorLoop

LOOPS = list(dict.fromkeys((EventLoop, SelectorLoop)))


@pytest.fixture(params=LOOPS, ids=lambda made: made.__module__)
def loop(request):
    made = request.param()
    yield made
    made.close()


async def nothing():
    pass


def test_the_scope_is_around_every_run(loop):
    seen = []

    @contextlib.contextmanager
    def scope():
        seen.append(loop.is_running())
        yield
        seen.append(loop.is_running())

    loop.set_run_scope(scope)
    loop.run_until_complete(nothing())
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [False] * 4


def test_the_main_task_is_known_however_it_was_given(loop):
    async def main():
        return loop.main_task() is asyncio.current_task()

    assert loop.main_task() is None
    assert loop.run_until_complete(main())
    assert loop.run_until_complete(loop.create_task(main()))
    assert loop.main_task() is None


def test_a_bare_run_forever_has_no_main_task(loop):
    seen = []
    loop.call_soon(lambda: (seen.append(loop.main_task()), loop.stop()))
    loop.run_forever()
    assert seen == [None]


def test_a_run_that_was_ended_raises_what_ended_it(loop):
    async def main():
        loop.ended_by = SystemExit(143)
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    with pytest.raises(SystemExit) as caught:
        loop.run_until_complete(main())
    assert caught.value.code == 143


def test_servers_are_remembered_until_they_are_gone(loop, tmp_path):
    async def main():
        tcp = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        unix = await asyncio.start_unix_server(lambda r, w: None, str(tmp_path / "s"))
        assert set(loop.servers()) == {tcp, unix}
        for server in (tcp, unix):
            server.close()
            await server.wait_closed()

    assert loop.servers() == []
    loop.run_until_complete(main())


def test_the_task_hook_is_around_asyncios_factory_and_the_users(loop):
    calls = []

    def hook(loop, coro, make, **kwargs):
        calls.append("hook")
        return make(loop, coro, **kwargs)

    def user(loop, coro, **kwargs):
        calls.append("user")
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def main():
        await loop.create_task(nothing(), name="named")
        loop.set_task_factory(user)
        assert loop.get_task_factory() is user
        task = loop.create_task(nothing(), name="named")
        assert task.get_name() == "named"
        await task
        loop.set_task_factory(None)
        assert loop.get_task_factory() is None
        await loop.create_task(nothing())

    loop.set_task_hook(hook)
    loop.run_until_complete(main())
    assert calls == ["hook", "hook", "hook", "user", "hook"]


def test_a_hook_set_after_the_users_factory_is_around_it_too(loop):
    calls = []

    def user(loop, coro, **kwargs):
        calls.append("user")
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(user)
    loop.set_task_hook(lambda loop, coro, make, **kwargs: (calls.append("hook"), make(loop, coro, **kwargs))[1])
    loop.run_until_complete(loop.create_task(nothing()))
    loop.set_task_hook(None)
    loop.run_until_complete(loop.create_task(nothing()))
    assert calls == ["hook", "user", "user"]


def test_only_the_keywords_the_caller_passed_reach_the_factory(loop):
    def seen_by(set_factory):
        seen = []

        def factory(loop, coro, *make, **kwargs):
            seen.append(sorted(kwargs))
            kwargs.pop("name", None)
            return asyncio.Task(coro, loop=loop, **kwargs)

        set_factory(factory)
        loop.run_until_complete(loop.create_task(nothing()))
        loop.run_until_complete(loop.create_task(nothing(), name="x"))
        set_factory(None)
        return seen

    plain = asyncio.SelectorEventLoop()
    try:
        plain.set_task_factory(
            lambda loop, coro, **kwargs: (stock.append(sorted(kwargs)), asyncio.Task(coro, loop=loop))[1]
        )
        stock = []
        plain.run_until_complete(plain.create_task(nothing()))
        plain.run_until_complete(plain.create_task(nothing(), name="x"))
    finally:
        plain.close()
    assert seen_by(loop.set_task_hook) == seen_by(loop.set_task_factory) == stock


def test_a_factory_that_is_no_callable_is_refused_as_asyncio_does(loop):
    with pytest.raises(TypeError, match="task factory must be a callable or None"):
        loop.set_task_factory(5)
