"""Tasks on the loop: factories, eager start, contexts, async generators."""

import asyncio
import contextvars
import gc
import sys

import pytest

eager = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")


def test_create_task_runs_the_coroutine_and_keeps_its_name(loop, run):
    async def main():
        task = loop.create_task(asyncio.sleep(0, "result"), name="the name")
        assert task.get_name() == "the name"
        return await task

    assert run(main()) == "result"


def test_create_task_takes_a_context(loop, run):
    variable = contextvars.ContextVar("variable", default="outside")
    context = contextvars.copy_context()

    async def change():
        variable.set("changed")

    async def main():
        await loop.create_task(change(), context=context)
        return variable.get()

    assert run(main()) == "outside"
    assert context[variable] == "changed"


def test_a_user_factory_gets_only_what_the_caller_passed(loop, run):
    calls = []

    def factory(loop, coroutine, **kwargs):
        calls.append(kwargs)
        return asyncio.Task(coroutine, loop=loop, **kwargs)

    context = contextvars.copy_context()

    async def main():
        loop.set_task_factory(factory)
        await loop.create_task(asyncio.sleep(0))
        await loop.create_task(asyncio.sleep(0), context=context)
        loop.set_task_factory(None)

    run(main())
    allowed_on_newer = {"name", "eager_start"}
    assert all(value is None for key, value in calls[0].items() if key in allowed_on_newer)
    assert set(calls[0]) <= allowed_on_newer and "eager_start" not in calls[0]
    assert calls[1]["context"] is context


def test_a_factory_of_two_arguments_is_enough(loop, run):
    def factory(loop, coroutine, **kwargs):
        kwargs.pop("name", None)
        assert not kwargs
        return asyncio.Task(coroutine, loop=loop)

    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    assert run(asyncio.sleep(0, "fine")) == "fine"


def test_a_factory_must_be_callable(loop):
    with pytest.raises(TypeError):
        loop.set_task_factory("text")


def test_a_factory_may_return_any_future(loop, run):
    class OtherTask(asyncio.Task):
        pass

    async def main():
        loop.set_task_factory(lambda loop, coroutine, **kwargs: OtherTask(coroutine, loop=loop, **kwargs))
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        return type(task)

    assert run(main()) is OtherTask


def test_create_task_on_a_closed_loop_is_refused(loop):
    loop.close()
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="closed"):
        loop.create_task(coroutine)
    coroutine.close()


@eager
def test_an_eager_task_that_never_waits_is_done_at_once(loop, run):
    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)

        async def immediate():
            return "now"

        task = asyncio.create_task(immediate())
        assert task.done()
        return await task

    assert run(main()) == "now"


@eager
def test_an_eager_task_that_waits_goes_on_later(loop, run):
    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        order = []

        async def waits():
            order.append("start")
            await asyncio.sleep(0)
            order.append("end")

        task = asyncio.create_task(waits())
        order.append("created")
        await task
        return order

    assert run(main()) == ["start", "created", "end"]


def test_tasks_take_turns(run):
    async def main():
        order = []

        async def work(name):
            for step in range(3):
                order.append((step, name))
                await asyncio.sleep(0)

        await asyncio.gather(*(work(name) for name in "abc"))
        return order

    assert run(main()) == [(step, name) for step in range(3) for name in "abc"]


def test_a_context_variable_set_in_a_task_stays_in_it(run):
    variable = contextvars.ContextVar("variable", default="outside")

    async def set_and_wait(value):
        variable.set(value)
        await asyncio.sleep(0)
        return variable.get()

    async def main():
        return [await asyncio.gather(*map(set_and_wait, range(10))), variable.get()]

    assert run(main()) == [list(range(10)), "outside"]


def test_cancelling_reaches_the_task_where_it_waits(loop, run):
    async def main():
        started = asyncio.Event()
        seen = []

        async def waits():
            started.set()
            try:
                await loop.create_future()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        task = asyncio.create_task(waits())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return seen

    assert run(main()) == ["cancelled"]


def test_current_task_and_all_tasks_know_the_loop(loop, run):
    async def main():
        other = asyncio.create_task(asyncio.sleep(0))
        assert asyncio.current_task() in asyncio.all_tasks()
        assert other in asyncio.all_tasks(loop)
        await other
        assert other not in asyncio.all_tasks(loop)

    run(main())
    assert asyncio.all_tasks(loop) == set()


def test_a_lost_exception_of_a_task_reaches_the_handler(loop, turn, problems):
    async def broken():
        raise LookupError("nobody asked")

    task = loop.create_task(broken())
    turn()
    turn()
    del task
    gc.collect()
    assert any(isinstance(context.get("exception"), LookupError) for context in problems)


async def count_up(ended):
    try:
        for number in range(10):
            yield number
    finally:
        await asyncio.sleep(0)
        ended.append("ended")


def test_an_async_generator_left_behind_is_closed_by_the_loop(loop, run):
    ended = []

    async def main():
        async for _ in count_up(ended):
            break
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)

    run(main())
    assert ended == ["ended"]


def test_shutdown_asyncgens_closes_those_still_alive(loop, run):
    ended = []
    alive = count_up(ended)

    async def main():
        assert await anext(alive) == 0

    run(main())
    assert ended == []
    run(loop.shutdown_asyncgens())
    assert ended == ["ended"]


def test_the_asyncgen_hooks_are_the_users_again_after_the_run(loop, run):
    before = sys.get_asyncgen_hooks()
    run(asyncio.sleep(0))
    assert sys.get_asyncgen_hooks() == before


def test_create_future_belongs_to_the_loop(loop):
    assert loop.create_future().get_loop() is loop


def test_gather_of_thousands_of_tasks_ends(run):
    async def main():
        return sum(await asyncio.gather(*(asyncio.sleep(0, 1) for _ in range(5000))))

    assert run(main()) == 5000
