"""anyio's sync calls in a lane, and plain endpoints of Starlette: anyio's promises still hold."""

import asyncio
import contextvars
import threading

import pytest

import penstock
from penstock import Config, ExecutorsConfig, LaneConfig
from penstock.errors import ConfigError, Overloaded
from penstock.executors import statistics

anyio = pytest.importorskip("anyio")
from anyio import from_thread, to_thread  # noqa: E402

from penstock.integrations import anyio as integration  # noqa: E402

variable = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(autouse=True)
def installed():
    integration.install()
    yield
    integration.uninstall()


@pytest.fixture(params=["penstock", "asyncio"])
def run(request, monkeypatch):
    """Return `run(coroutine, io="threads ...")` for penstock's loop and for asyncio's."""

    def run(main, io="threads"):
        monkeypatch.setenv("PENSTOCK_EXECUTORS_IO", io)
        factory = penstock.new_event_loop if request.param == "penstock" else asyncio.SelectorEventLoop
        return anyio.run(lambda: main, backend_options={"loop_factory": factory})

    return run


def thread_name():
    return threading.current_thread().name


def test_a_sync_call_runs_in_the_lane_and_is_counted(run):
    async def main():
        name = await to_thread.run_sync(thread_name)
        with pytest.raises(ZeroDivisionError):
            await to_thread.run_sync(lambda: 1 / 0)
        return name, statistics()["io"].completed

    name, completed = run(main())
    assert name.startswith("penstock-io")
    assert (completed["ok"], completed["error"]) == (1, 1)


@pytest.mark.runner(io="threads workers=1 queue_jobs=1 full=shed")
async def test_a_full_lane_refuses_it():
    gate = threading.Event()

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(to_thread.run_sync, gate.wait)
        while statistics().get("io") is None or statistics()["io"].queued < 1:
            await anyio.sleep(0)
        with pytest.raises(Overloaded):
            await to_thread.run_sync(thread_name)
        gate.set()


def test_it_sees_the_callers_context_and_changes_its_own(run):
    def work():
        seen = variable.get()
        variable.set("changed")
        return seen

    async def main():
        variable.set("mine")
        return await to_thread.run_sync(work), variable.get()

    assert run(main()) == ("mine", "mine")


def test_the_worker_reaches_the_loop(run):
    async def add(left, right):
        await anyio.sleep(0)
        return left + right

    def work():
        from_thread.check_cancelled()
        return from_thread.run(add, 1, 2), from_thread.run_sync(threading.get_ident)

    async def main():
        return await to_thread.run_sync(work), threading.get_ident()

    (total, loops_thread), own = run(main())
    assert total == 3
    assert loops_thread == own


def test_a_cancelled_caller_waits_for_its_call_unless_it_abandons_it(run):
    entered, gate, ended = threading.Event(), threading.Event(), []

    def work():
        entered.set()
        gate.wait(20)
        try:
            from_thread.check_cancelled()
        except BaseException as problem:
            ended.append(type(problem))

    async def call(abandon):
        entered.clear()
        gate.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: to_thread.run_sync(work, abandon_on_cancel=abandon))
            while not entered.is_set():
                await anyio.sleep(0)
            group.cancel_scope.cancel()
            if not abandon:
                asyncio.get_running_loop().call_soon(gate.set)

    async def main():
        await call(abandon=False)
        assert ended == [asyncio.CancelledError]
        await call(abandon=True)
        assert len(ended) == 1
        gate.set()

    run(main())
    assert ended == [asyncio.CancelledError] * 2


def test_an_abandoned_call_that_waits_in_the_lane_never_runs(run):
    gate, ran = threading.Event(), []

    async def main():
        async with anyio.create_task_group() as holding:
            holding.start_soon(to_thread.run_sync, gate.wait)
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: to_thread.run_sync(ran.append, 1, abandon_on_cancel=True))
                while statistics().get("io") is None or not statistics()["io"].queued:
                    await anyio.sleep(0)
                group.cancel_scope.cancel()
            assert statistics()["io"].queued == 0
            gate.set()

    run(main(), io="threads workers=1")
    assert ran == []


def test_anyios_default_limiter_bounds_the_calls(run):
    inside, most = [], []

    def work():
        inside.append(1)
        most.append(len(inside))
        inside.pop()

    async def main():
        limiter = to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(to_thread.run_sync, work)
        assert limiter.borrowed_tokens == 0

    run(main())
    assert most == [1] * 20


def test_a_call_with_a_limiter_of_its_own_waits_for_no_place_in_the_lane(run):
    gate = threading.Event()

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(to_thread.run_sync, gate.wait)
            name = await to_thread.run_sync(thread_name, limiter=anyio.CapacityLimiter(1))
            gate.set()
        return name

    assert run(main(), io="threads workers=1").startswith("AnyIO")


@pytest.mark.runner(io="processes")
async def test_a_lane_of_processes_is_refused():
    with pytest.raises(ConfigError, match="anyio's calls need threads"):
        await to_thread.run_sync(thread_name)


def test_another_lane_may_be_named_and_all_be_undone():
    async def main():
        return await to_thread.run_sync(thread_name)

    lanes = ExecutorsConfig(lanes={"web": LaneConfig(workers=2)})
    integration.install("web")
    assert penstock.run(main(), config=Config(executors=lanes)).startswith("penstock-web")
    integration.uninstall()
    integration.uninstall()
    assert penstock.run(main()).startswith("AnyIO")


def test_plain_endpoints_of_starlette_run_in_the_lane(run):
    applications = pytest.importorskip("starlette.applications")
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    app = applications.Starlette(routes=[Route("/", lambda request: PlainTextResponse(thread_name()))])

    async def main():
        sent = []

        async def receive():
            return {"type": "http.request", "body": b""}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "root_path": "", "query_string": b"", "headers": []}
        await app(scope, receive, send)
        return sent[-1]["body"], statistics()["io"].completed["ok"]

    body, count = run(main())
    assert body.startswith(b"penstock-io")
    assert count == 1
