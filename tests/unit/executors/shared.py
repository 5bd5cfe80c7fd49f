"""What the tests of process lanes share."""

import asyncio
import pathlib


def is_zombie(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
    except OSError:
        return True


def call(loop, lane, fn, *args, **options):
    return lane.call(loop, fn, args, options.pop("kwargs", None), **options)


def run(loop, work, patience_s=50):
    return loop.run_until_complete(asyncio.wait_for(work, patience_s))


async def until(condition):
    while not condition():
        await asyncio.sleep(0.002)


def lines(path):
    return path.read_text().split() if path.exists() else []
