"""Tests of a gate's samples, which are kept by the task itself and not by its address."""

import asyncio
import os
from typing import Any

from penstock.pressure.admission.gate import Gate

STAYED_S = 0.4


async def test_a_measured_task_that_ended_inside_is_not_taken_for_the_next_at_its_address(
    gate_class: type[Gate],
) -> None:
    gate = gate_class(1000)

    async def passes() -> None:
        async with gate:
            pass

    async def stays() -> None:
        await gate.enter()

    async def address_of(coro: Any) -> int:
        task = asyncio.create_task(coro)
        await task
        return id(task)

    await address_of(passes())
    # one of these entries is sampled; none of them leaves in its own task
    stayed = [await address_of(stays()) for _ in range(40)]
    await asyncio.sleep(STAYED_S)
    passed = [await address_of(passes()) for _ in range(40)]
    # the sanitizer's allocator does not reuse freed memory soon
    assert set(stayed) & set(passed) or "PENSTOCK_SANITIZE" in os.environ, "no address was used again"
    assert gate.statistics().service.max_s < STAYED_S
    for _ in stayed:
        gate.leave()
