"""Calls that a type checker reads: what it must infer, and what it must refuse.

A `type: ignore` that hides nothing is an error. Never run: `tests/meta/test_typing.py` has mypy read it.
"""

from typing import assert_type

import penstock
from penstock.executors import Offload, ThreadLane


def area(width: int, height: int = 1, *, unit: str = "m") -> float:
    return width * height


class Shape:
    def scale(self, factor: float) -> "Shape":
        return self


@penstock.offloaded
def plain(width: int) -> str:
    return str(width)


@penstock.offloaded(lane="db", timeout=5)
def in_db(width: int, *, key: str) -> bytes:
    return bytes(width)


async def calls(lane: ThreadLane) -> None:
    assert_type(await penstock.offload(area, 1, height=2, unit="ft"), float)
    assert_type(await penstock.to_thread(area, 1), float)
    assert_type(await penstock.offload.options(lane="db", timeout=5, key=("a", 1))(area, 1, 2), float)
    assert_type(await penstock.offload(Shape().scale, 2.0), Shape)
    assert_type(await plain(1), str)
    assert_type(await in_db(1, key="its own"), bytes)
    assert_type(lane.submit(area, 1).result(), float)
    assert_type(lane.options(timeout=5).submit(area, 1, unit="ft").result(), float)
    assert_type(penstock.offload.options(retries=1), Offload)
    words: list[str] = await penstock.offload(sorted, ["b", "a"], key=len)
    assert_type(words, list[str])


async def mistakes(lane: ThreadLane) -> None:
    await penstock.offload(area, "1")  # type: ignore[arg-type]
    await penstock.offload(area, 1, 2, 3)  # type: ignore[arg-type,call-arg]
    await penstock.offload(area)  # type: ignore[call-arg]
    await penstock.offload(area, 1, timeout=5)  # type: ignore[call-arg]
    await penstock.offload(5)  # type: ignore[arg-type]
    await penstock.offload.options(timeout="5")(area, 1)  # type: ignore[arg-type]
    await penstock.offload.options(timeuot=5)(area, 1)  # type: ignore[call-arg]
    await penstock.offload.options(lane="db")(area, unit=3)  # type: ignore[arg-type,call-arg]
    await penstock.to_thread(area, 1, unit=3)  # type: ignore[arg-type]
    await plain("1")  # type: ignore[arg-type]
    await in_db(1)  # type: ignore[call-arg]
    lane.submit(area, "1")  # type: ignore[arg-type]
    lane.options(key="a").submit(area, 1, key="a")  # type: ignore[call-arg]
    lane.options(unit="ft")  # type: ignore[call-arg]
