"""Tests of linear cost: ten times the waiters take ten times the steps, in any order of service and cancellation.

Steps are counted instead of timed. A step is a check, a comparison or a hash of a waiting future. A semaphore has no
futures; its steps are the executed lines of its plain core. asyncio's classes are counted too and are shown to
be quadratic, which proves that the count is meaningful.
"""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from penstock.pressure import CapacityLimiter, Channel, Queue
from penstock.pressure.admission.core import plain
from tests.unit.pressure.driving import SEMAPHORES

FEW, MANY = 500, 5_000
RATIO = 25


class Counted:
    """An object that counts its comparisons and hashes."""

    steps = 0

    def __hash__(self) -> int:
        Counted.steps += 1
        return id(self) >> 4

    def __eq__(self, other: object) -> bool:
        Counted.steps += 1
        return self is other


@contextmanager
def counted_lines() -> Iterator[None]:
    """Count each executed line of the plain turnstile as a step."""
    source, before = plain("turnstile").__file__, sys.gettrace()

    def count(frame: Any, event: str, argument: object) -> Any:
        Counted.steps += event == "line"
        return count

    sys.settrace(lambda frame, *_: count if frame.f_code.co_filename == source else None)
    try:
        yield
    finally:
        sys.settrace(before)


class CountedFuture(Counted, asyncio.Future[Any]):
    def done(self) -> bool:
        Counted.steps += 1
        return super().done()

    def cancelled(self) -> bool:
        Counted.steps += 1
        return super().cancelled()


class CountingLoop(asyncio.SelectorEventLoop):
    def create_future(self) -> asyncio.Future[Any]:
        return CountedFuture(loop=self)


class Scene:
    """A way to wait, and the call that serves one waiter."""

    def __init__(self, wait: Callable[[Any], Awaitable[object]], serve: Callable[[], object]) -> None:
        self.wait = wait
        self.serve = serve


def of_semaphore(kind: type[asyncio.Semaphore] = SEMAPHORES["plain"]) -> Scene:
    made = kind(0)
    return Scene(lambda _: made.acquire(), made.release)


def of_limiter() -> Scene:
    made = CapacityLimiter(0)
    return Scene(
        lambda _: made.acquire_on_behalf_of(Counted()), lambda: setattr(made, "total_tokens", made.total_tokens + 1)
    )


def of_getters(kind: type[asyncio.Queue[Any]] = Queue) -> Scene:
    made = kind(MANY)
    return Scene(lambda _: made.get(), lambda: made.put_nowait(1))


def of_putters() -> Scene:
    made: Queue[int] = Queue(MANY)
    for item in range(MANY):
        made.put_nowait(item)
    return Scene(made.put, made.get_nowait)


def of_receivers() -> Scene:
    made: Channel[int] = Channel(MANY + 1)
    return Scene(lambda _: made.receive(), lambda: made.try_send(1))


def of_senders() -> Scene:
    made: Channel[int] = Channel(1)
    made.try_send(0)
    return Scene(made.send, made.close)


def forwards(count: int) -> list[int]:
    return list(range(count))


def backwards(count: int) -> list[int]:
    return list(range(count))[::-1]


def anyhow(count: int) -> list[int]:
    return random.Random(5).sample(range(count), count)


async def waiting(scene: Scene, count: int) -> list["asyncio.Task[object]"]:
    async def one(number: int) -> None:
        await scene.wait(number)

    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    await asyncio.sleep(0)
    Counted.steps = 0
    return tasks


async def served(make: Callable[[], Scene], count: int) -> int:
    scene = make()
    tasks = await waiting(scene, count)
    for _ in range(count):
        scene.serve()
    await asyncio.gather(*tasks)
    return Counted.steps


async def left(make: Callable[[], Scene], order: Callable[[int], list[int]], count: int) -> int:
    tasks = await waiting(make(), count)
    for step, number in enumerate(order(count)):
        tasks[number].cancel()
        if step % 50 == 0:
            # in parts, so that cancelled waiters stand among waiting ones
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    return Counted.steps


def ratio(measure: Callable[[int], Any], few: int = FEW, many: int = MANY) -> float:
    def steps(count: int) -> int:
        with asyncio.Runner(loop_factory=CountingLoop) as runner, counted_lines():
            return runner.run(measure(count))  # type: ignore[no-any-return]

    return steps(many) / steps(few)


SCENES = [of_semaphore, of_limiter, of_getters, of_putters, of_receivers]


@pytest.mark.parametrize("make", SCENES)
def test_serving_all_is_linear(make: Callable[[], Scene]) -> None:
    assert ratio(lambda count: served(make, count)) < RATIO


@pytest.mark.parametrize("make", [*SCENES, of_senders])
@pytest.mark.parametrize("order", [forwards, backwards, anyhow])
def test_cancelling_all_is_linear(make: Callable[[], Scene], order: Callable[[int], list[int]]) -> None:
    assert ratio(lambda count: left(make, order, count)) < RATIO


def test_asyncios_are_not() -> None:
    few, many = 100, 1000
    assert ratio(lambda count: served(lambda: of_semaphore(asyncio.Semaphore), count), few, many) > RATIO
    assert ratio(lambda count: left(lambda: of_getters(asyncio.Queue), backwards, count), few, many) > RATIO
