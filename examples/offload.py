"""CPU work in a service, off its loop: `python examples/offload.py`, or `penstock run examples/offload.py`.

A ticker stands for the other tasks of the loop: it is due every 5 ms. Its delay is measured while tiles of a map are
drawn in the loop, then while the same tiles are drawn in the lane `cpu`. At the end come the lane's statistics.
"""

import asyncio
import time

import penstock
from penstock.executors import statistics

TICK_S = 0.005
TILES = [complex(-1.5 + column / 8, -1 + row / 4) for row in range(8) for column in range(8)]
SIDE = 32


def tile(corner: complex) -> bytes:
    """Return a tile of the Mandelbrot set, a byte a point: milliseconds of Python code, which block the loop."""
    return bytes(steps(corner + complex(x / 192, y / 96)) for y in range(SIDE) for x in range(SIDE))


def steps(point: complex) -> int:
    value = 0j
    for count in range(255):
        if abs(value) > 2:
            return count
        value = value * value + point
    return 255


@penstock.offloaded(timeout=10, retries=1)
def summary(tiles: list[bytes]) -> str:
    """Return the counts of all points. It is always offloaded, and may be retried, as it changes nothing."""
    drawn = b"".join(tiles)
    return f"{len(drawn)} points, {drawn.count(255)} of them in the set"


async def in_the_loop() -> list[bytes]:
    tiles = []
    for corner in TILES:
        tiles.append(tile(corner))
        await asyncio.sleep(0)
    return tiles


async def in_the_lane() -> list[bytes]:
    return await asyncio.gather(*[penstock.offload(tile, corner) for corner in TILES])


async def longest_wait_s(work: "asyncio.Future[list[bytes]]") -> float:
    """Return the longest delay of the ticker until the work is done, in seconds."""
    longest_s = 0.0
    while not work.done():
        due_s = time.perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        longest_s = max(longest_s, time.perf_counter() - due_s)
    return longest_s


async def main() -> None:
    await penstock.offload(tile, 0j)  # the first call starts the workers
    for where in (in_the_loop, in_the_lane):
        began_s = time.perf_counter()
        work = asyncio.ensure_future(where())
        late_s = await longest_wait_s(work)
        took_s = time.perf_counter() - began_s
        print(
            f"{where.__name__}: {len(work.result())} tiles in {took_s:.2f} s, the loop up to {late_s * 1e3:.1f} ms late"
        )
    print(await summary(work.result()))
    lane = statistics()["cpu"]
    print(f"{lane.workers} of at most {lane.workers_limit} workers, {lane.completed['ok']} jobs done,", end=" ")
    print(f"wait p50 {lane.wait.p50_s * 1e3:.1f} ms, run p50 {lane.run.p50_s * 1e3:.1f} ms")


if __name__ == "__main__":
    penstock.run(main())
