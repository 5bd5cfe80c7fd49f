"""Drives `penstock top` in a terminal in memory, before fake processes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from penstock.monitor.top.app import TopApp
from tests.support.monitored import FakeProcess, FakeSource

SMALL, LARGE = (80, 24), (120, 40)
WITHIN_S = 5.0


def application(*processes: FakeProcess, **options: Any) -> TopApp:
    """Return the application before these processes; the first is the one that is attached to."""
    source = FakeSource(*processes)
    return TopApp(lambda pid: source, options.pop("pid", processes[0].pid), **{"interval_s": 0.1, **options})


def screen(pilot: Any) -> str:
    """Return the text of the whole screen."""
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips)


async def shows(pilot: Any, text: str, *, gone: bool = False) -> str:
    """Wait until the screen has the text, or has it no more; return the screen."""
    limit_s = time.monotonic() + WITHIN_S
    while (text in screen(pilot)) is gone:
        assert time.monotonic() < limit_s, (
            f"{text!r} {'stays on' if gone else 'is not on'} the screen:\n{screen(pilot)}"
        )
        await pilot.pause(0.02)
    return screen(pilot)


def drive(app: TopApp, script: Callable[[Any], Awaitable[None]], size: tuple[int, int] = SMALL) -> None:
    """Run the application with the script that presses its keys."""

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await script(pilot)

    asyncio.run(run())
