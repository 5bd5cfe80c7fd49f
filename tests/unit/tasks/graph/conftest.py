"""Tasks to inspect, on penstock's and on stock asyncio's loop."""

import asyncio

import pytest

import penstock


@pytest.fixture(params=["penstock", "asyncio"])
def loop(request):
    made = penstock.new_event_loop() if request.param == "penstock" else asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def start(loop):
    """`start(coroutine, name)`: a task; all of them are released, unfinished, at the end."""
    made = []

    def begin(coroutine, name=None):
        task = loop.create_task(coroutine, name=name)
        task._log_destroy_pending = False
        made.append(task)
        return task

    yield begin
    while made:
        task = made.pop()
        # not cancelled: tasks that await each other would cancel each other without end
        if not task.done():
            task.get_coro().close() if task._fut_waiter is None else _let_go(loop, task)


def _let_go(loop, task):
    waited = task._fut_waiter
    if isinstance(waited, asyncio.Task):
        return
    task.cancel()
    settle(loop)


def settle(loop, turns=5):
    """Run what is ready, and what that makes ready."""
    for _ in range(turns):
        loop.stop()
        loop.run_forever()
