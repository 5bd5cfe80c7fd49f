"""Tests of tracebacks at a gate: sheds and cancellations show every line of the program.

On the native core they show no line of the gate. The traceback of any other exception shows the gate's lines too.
"""

import asyncio
import math
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from penstock.errors import Overloaded
from penstock.pressure import CapacityLimiter, Gate, Semaphore
from penstock.pressure.admission.core import GateCore, plain
from tests.support.waiting import turns

NATIVE = GateCore is not plain("gate").GateCore


def below(gate: Gate) -> None:
    """Raise as program code that a gate calls."""
    gate.try_enter()
    raise LookupError("below")


async def through(guard: Any) -> None:
    async with guard:
        await asyncio.sleep(0)


async def by_entry(gate: Gate) -> None:
    async with gate.entry(key="a"):
        await asyncio.sleep(0)


async def by_enter(gate: Gate) -> None:
    await gate.enter()


async def above(way: Callable[[Any], Awaitable[None]], guard: Any) -> None:
    try:
        await way(guard)
    finally:
        await asyncio.sleep(0)


def functions(problem: BaseException) -> list[str]:
    """Return the functions of the traceback from `above` on, without those of tests and loops."""
    found = [frame.name for frame in traceback.extract_tb(problem.__traceback__)]
    return found[found.index("above") :]


def lines(problem: BaseException) -> list[str]:
    return [frame.line or "" for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == __file__]


WAYS = {"through": through, "by_entry": by_entry, "by_enter": by_enter}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_a_refusal_at_once_shows_the_program_whole(way: Callable[[Any], Awaitable[None]]) -> None:
    gate = Gate(1, max_wait_s=0)
    async with gate:
        with pytest.raises(Overloaded) as refused:
            await above(way, gate)
    shown = functions(refused.value)
    assert shown[:2] == ["above", way.__name__]
    if NATIVE:
        assert shown[2:] == (["enter"] if way is by_enter else [])
    assert lines(refused.value)[-2:] == [
        "await way(guard)",
        {
            "through": "async with guard:",
            "by_entry": 'async with gate.entry(key="a"):',
            "by_enter": "await gate.enter()",
        }[way.__name__],
    ]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("end", ["cancelled", "refused"])
async def test_a_shed_after_a_wait_shows_the_whole_program(way: Callable[[Any], Awaitable[None]], end: str) -> None:
    gate = Gate(1, max_wait_s=math.inf)
    assert gate.try_enter()
    task = asyncio.create_task(above(way, gate))  # type: ignore[arg-type]
    await turns()
    if end == "cancelled":
        task.cancel("enough")
    else:
        gate.close()
    with pytest.raises((asyncio.CancelledError, Overloaded)) as ended:
        await task
    shown = functions(ended.value)
    assert shown[:2] == ["above", way.__name__]
    if NATIVE:
        assert shown[2:] == (["enter"] if way is by_enter else [])
    gate.leave()


@pytest.mark.parametrize("kind", [Semaphore, CapacityLimiter])
async def test_a_cancelled_wait_for_a_permit_shows_the_program_whole(kind: Any) -> None:
    task = asyncio.create_task(above(through, kind(0)))  # type: ignore[arg-type]
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as ended:
        await task
    shown = functions(ended.value)
    assert shown[:2] == ["above", "through"]
    assert not NATIVE or len(shown) == 2


async def test_an_exception_of_the_program_below_the_gate_is_logged_with_its_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate(1, max_wait_s=0)
    gate.on_shed = lambda gate, reason: below(Gate(1))
    async with gate:
        with pytest.raises(Overloaded):
            await above(through, gate)
    logged = caplog.records[-1].exc_info
    assert logged
    assert traceback.extract_tb(logged[2])[-1].name == "below"


async def test_any_other_exception_shows_the_gate_as_well() -> None:
    gate = Gate(1)

    class Late(Exception):
        pass

    def fail() -> float:
        raise Late

    async with gate:
        pass
    gate.clock = fail
    assert gate.try_enter()
    with pytest.raises(Late) as failed:
        await above(through, gate)
    shown = functions(failed.value)
    assert shown[:2] == ["above", "through"]
    assert shown[-1] == "fail"
    assert "begin" in shown[2] or "__aenter__" in shown[2]
    gate.clock = asyncio.get_running_loop().time
    gate.leave()


async def test_an_exception_of_the_program_inside_has_only_its_own_lines() -> None:
    async def inside(guard: Any) -> None:
        async with guard:
            raise ZeroDivisionError

    for guard in (Gate(1), Semaphore(1), CapacityLimiter(1)):
        with pytest.raises(ZeroDivisionError) as failed:
            await above(inside, guard)
        assert functions(failed.value) == ["above", "inside"]
