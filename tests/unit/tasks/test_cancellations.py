"""Cancellations with their cancellers: on both loops, with asyncio's results, and only where the config asks for it."""

import asyncio
import gc
import inspect
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import penstock
from penstock.config import Config, LoopConfig, TasksConfig
from penstock.loop import NATIVE
from penstock.tasks.cancellations import MOST_KEPT, Cancellation, cancellations
from penstock.tasks.observers.registry import observer_of
from tests.support.loops import POLLERS

EAGER = pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has eager tasks from 3.12 on")
HERE = __file__


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    was_enabled = cancellations.is_enabled
    cancellations.forget()
    yield
    cancellations.forget()
    cancellations.is_enabled = was_enabled


@pytest.fixture(params=POLLERS)
def make(request: pytest.FixtureRequest) -> Callable[..., asyncio.AbstractEventLoop]:
    return partial(loop_of, request.param)


def loop_of(poller: Any, **tasks: Any) -> asyncio.AbstractEventLoop:
    options = {"name_cancellers": True, **tasks}
    return penstock.new_event_loop(Config(loop=LoopConfig(poller=poller), tasks=TasksConfig(**options)))


def run(make: Callable[..., asyncio.AbstractEventLoop], main: Any, **tasks: Any) -> Any:
    with asyncio.Runner(loop_factory=lambda: make(**tasks)) as runner:
        return runner.run(asyncio.wait_for(main(), 20))


def found() -> list[Cancellation]:
    return cancellations.since(0)[0]


def of(name: str) -> Cancellation:
    return next(each for each in found() if each.task.name == name)


def line_of(function: Callable[..., Any], text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(at for at, line in enumerate(lines) if text in line)


async def forever() -> None:
    await asyncio.sleep(1000)


async def cancel_at_the_end(other: "asyncio.Task[None]") -> None:
    try:
        await forever()
    finally:
        other.cancel()


async def cancel_in_a_chain() -> None:
    first = asyncio.create_task(forever(), name="A")
    second = asyncio.create_task(cancel_at_the_end(first), name="B")
    asyncio.current_task().set_name("C")  # type: ignore[union-attr]
    await asyncio.sleep(0)
    second.cancel("secret")
    await asyncio.gather(first, second, return_exceptions=True)


def test_a_cancellation_names_its_task_its_canceller_and_the_place(make):
    run(make, cancel_in_a_chain)
    told = of("B")
    assert told.task.site is not None
    assert (told.task.site.file, told.task.site.line) == (HERE, line_of(cancel_in_a_chain, 'name="B"'))
    assert told.by is not None
    assert told.by.name == "C"
    assert told.task.number != told.by.number != 0 != told.task.number
    assert told.thread == threading.current_thread().name
    assert told.place is not None
    assert (told.place.file, told.place.line) == (HERE, line_of(cancel_in_a_chain, "secret"))


def test_the_chain_names_the_canceller_of_the_canceller(make):
    run(make, cancel_in_a_chain)
    assert of("A").chain == ("B", "C")
    assert of("B").chain == ("C",)


def test_no_message_of_the_program_is_kept(make):
    run(make, cancel_in_a_chain)
    assert "secret" not in repr(found())


def test_a_task_cancels_what_it_awaits(make):
    async def main() -> None:
        async def outer() -> None:
            await asyncio.gather(asyncio.create_task(forever(), name="inner"))

        task = asyncio.create_task(outer(), name="outer")
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(make, main)
    told = of("inner")
    assert told.by is not None
    assert told.by.name == "outer"
    assert told.chain[0] == "outer"
    assert len(told.chain) == 2


def test_a_timeout_is_a_canceller_without_a_task(make):
    async def main() -> None:
        asyncio.current_task().set_name("slow")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await forever()

    run(make, main)
    told = of("slow")
    assert told.by is None
    assert told.chain == ()
    assert told.place is not None
    assert told.place.function == "Timeout._on_timeout"


def test_a_cancellation_outside_of_a_loop_names_the_thread(make):
    loop = make()
    task = loop.create_task(forever(), name="idle")
    thread = threading.Thread(target=task.cancel, name="canceller")
    thread.start()
    thread.join()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    assert of("idle").by is None
    assert of("idle").thread == "canceller"


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals need the main thread")
def test_an_interrupt_names_no_task(make):
    async def main() -> None:
        asyncio.current_task().set_name("main")
        signal.raise_signal(signal.SIGINT)
        await forever()

    with asyncio.Runner(loop_factory=make) as runner, pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert of("main").by is None


def test_an_ended_task_records_nothing(make):
    async def main() -> bool:
        task = asyncio.create_task(asyncio.sleep(0), name="ended")
        await task
        return task.cancel()

    assert run(make, main) is False
    assert [each for each in found() if each.task.name == "ended"] == []


def test_at_most_256_cancellations_are_kept(make):
    async def main() -> None:
        tasks = [asyncio.create_task(forever(), name=f"task {at}") for at in range(MOST_KEPT + 10)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(make, main)
    kept, mark = cancellations.since(0)
    assert len(kept) == MOST_KEPT
    assert mark >= MOST_KEPT + 10
    assert cancellations.since(mark) == ([], mark)


def test_no_task_is_kept_alive(make):
    async def main() -> None:
        task = asyncio.create_task(forever(), name="gone")
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        weak = weakref.ref(task)
        del task
        await asyncio.sleep(0)
        gc.collect()
        assert weak() is None

    run(make, main)


# --- asyncio's results


def test_the_message_and_the_count_of_requests_are_asyncios(make):
    async def main() -> tuple[Any, ...]:
        told: list[Any] = []

        async def patient() -> str:
            try:
                await forever()
            except asyncio.CancelledError as error:
                told.extend(error.args)
                told.append(asyncio.current_task().uncancel())
            return "ended"

        task = asyncio.create_task(patient())
        await asyncio.sleep(0)
        told.append(task.cancel(msg="as given"))
        told.append(task.cancelling())
        return *told, await task, *told[2:], task.cancelled()

    assert run(make, main) == (True, 1, "ended", "as given", 0, False)


def test_a_task_group_ends_as_on_asyncio(make):
    async def main() -> int:
        async def broken() -> None:
            raise LookupError

        with pytest.raises(ExceptionGroup) as raised:
            async with asyncio.TaskGroup() as group:
                group.create_task(forever(), name="member")
                group.create_task(broken())
        assert [type(each) for each in raised.value.exceptions] == [LookupError]
        return asyncio.current_task().cancelling()

    # up to 3.12 asyncio leaves one request behind
    assert run(make, main) == asyncio.run(main())
    assert of("member").place.function == "TaskGroup._abort"


def test_tasks_look_as_asyncios(make):
    async def main() -> tuple[str, bool, str]:
        task = asyncio.create_task(asyncio.sleep(0))
        named = asyncio.create_task(asyncio.sleep(0), name="named")
        await asyncio.gather(task, named)
        return repr(task).partition(" ")[0], task.get_name().startswith("Task-"), named.get_name()

    assert run(make, main) == ("<Task", True, "named")


@EAGER
def test_eager_tasks_stay_eager(make):
    async def main() -> bool:
        task = asyncio.create_task(asyncio.sleep(0, "now"), name="later")
        eager = asyncio.create_task(immediate())
        is_done = eager.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return is_done

    async def immediate() -> None:
        pass

    assert run(make, main, eager=True) is True
    assert of("later").place.file == HERE


def test_a_factory_of_the_program_makes_its_own_tasks(make):
    async def main() -> tuple[Any, ...]:
        loop = asyncio.get_running_loop()
        assert loop.get_task_factory() is None
        ours = type(asyncio.create_task(asyncio.sleep(0)))
        loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.Task(coro, loop=loop, **kwargs))
        theirs = type(asyncio.create_task(asyncio.sleep(0)))
        loop.set_task_factory(None)
        return ours is not asyncio.Task, theirs is asyncio.Task, type(asyncio.create_task(asyncio.sleep(0))) is ours

    assert run(make, main) == (True, True, True)


def test_a_hook_of_the_config_makes_recording_tasks(make):
    def hook(loop: Any, coro: Any, make: Any, **kwargs: Any) -> Any:
        return make(loop, coro, **kwargs)

    run(make, cancel_in_a_chain, factory=hook)
    assert of("A").chain == ("B", "C")


def test_without_the_option_tasks_are_asyncios_own(make):
    async def main() -> type:
        task = asyncio.create_task(forever())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return type(task)

    assert run(make, main, name_cancellers=False) is asyncio.Task
    assert found() == []


def test_a_closed_loop_makes_no_task(make):
    loop = make()
    loop.close()
    coro = forever()
    with pytest.raises(RuntimeError, match="closed"):
        loop.create_task(coro)
    coro.close()


# --- the telemetry of such tasks


@pytest.mark.parametrize("level", ["count", "time", "trace"])
def test_the_telemetry_counts_each_task_once(make, level):
    async def main() -> tuple[int, ...]:
        before = penstock.tasks.statistics()
        await asyncio.create_task(asyncio.sleep(0))
        cancelled = asyncio.create_task(forever())
        left = asyncio.create_task(forever())
        await asyncio.sleep(0)
        cancelled.cancel()
        broken = asyncio.create_task(fail())
        await asyncio.gather(cancelled, broken, return_exceptions=True)
        await asyncio.sleep(0)
        after = penstock.tasks.statistics()
        left.cancel()
        names = ("created", "completed", "failed", "cancelled", "live", "errors")
        return tuple(getattr(after, name) - getattr(before, name) for name in names)

    async def fail() -> None:
        raise LookupError

    assert run(make, main, level=level) == (4, 1, 1, 1, 1, 0)


@pytest.mark.skipif(not NATIVE, reason="only the probe sees steps and writes a flight recorder")
def test_the_probe_sees_the_steps_the_sites_and_the_cancel():
    async def main() -> tuple[Any, ...]:
        observer = observer_of(asyncio.get_running_loop())
        task = asyncio.create_task(forever(), name="seen")
        await asyncio.sleep(0)
        live = next(each for each in penstock.tasks.live() if each.name == "seen")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        events = [event for event in observer.events() if event.kind in ("cancel", "end") and event.task == live.number]
        return (
            live.steps,
            live.state,
            live.site.line,
            [(event.kind, event.text.partition(" in ")[0]) for event in events],
        )

    steps, state, line, events = run(partial(loop_of, "auto"), main)
    assert (steps, state, line) == (1, "waiting", line_of(main, 'name="seen"'))
    assert ("cancel", f"seen by {of('seen').by.name}") in events
    assert [kind for kind, _ in events].count("end") == 1
