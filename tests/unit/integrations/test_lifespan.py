"""The bounds of an application's startup: by its own key, and by a drain that begins meanwhile."""

import asyncio
import signal
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("uvicorn")

import uvicorn

from penstock.integrations.uvicorn import process_deadline
from penstock.integrations.uvicorn.lifespan import BoundedLifespan
from penstock.runtime.deadline import GRACE_S
from penstock.testing import run


class Starting:
    """A lifespan of uvicorn's whose startup takes a time."""

    def __init__(self, startup_s: float) -> None:
        self.startup_s = startup_s
        self.startup_failed = self.should_exit = False

    async def startup(self) -> None:
        await asyncio.sleep(self.startup_s)


def bounded(lifespan: Starting, startup_s: float | None = None) -> tuple[BoundedLifespan, list[str]]:
    started: list[str] = []
    made = BoundedLifespan(lifespan, startup_s, None, started=lambda: started.append("started"), left_s=lambda: None)
    return made, started


async def start_and_drain(lifespan: BoundedLifespan, after_s: float, drain_s: float) -> float:
    """Start, begin a drain meanwhile, and return the time of the startup's end."""
    loop = asyncio.get_running_loop()
    loop.call_later(after_s, lifespan.drain, drain_s)
    await lifespan.startup()
    return loop.time()


def test_a_drain_ends_a_startup_that_hangs_after_the_drains_time(caplog: pytest.LogCaptureFixture) -> None:
    lifespan, started = bounded(Starting(3600.0))
    assert run(start_and_drain(lifespan, 5.0, 2.0)) == pytest.approx(7.0)
    assert lifespan.is_drained and lifespan.should_exit and started == []
    assert "startup took longer than the drain, 2 s" in caplog.text


def test_a_startup_that_ends_within_a_drain_is_no_failure() -> None:
    lifespan, started = bounded(Starting(6.0))
    assert run(start_and_drain(lifespan, 5.0, 2.0)) == pytest.approx(6.0)
    assert not lifespan.is_drained and not lifespan.should_exit and started == ["started"]


def test_the_earlier_of_both_bounds_ends_a_startup(caplog: pytest.LogCaptureFixture) -> None:
    lifespan, _ = bounded(Starting(3600.0), startup_s=6.0)
    assert run(start_and_drain(lifespan, 5.0, 2.0)) == pytest.approx(6.0)
    assert not lifespan.is_drained and lifespan.should_exit
    assert "serve.startup_s, 6 s" in caplog.text


def test_a_second_signal_does_not_extend_the_drain_of_a_startup() -> None:
    lifespan, _ = bounded(Starting(3600.0))

    async def main() -> float:
        asyncio.get_running_loop().call_later(6.0, lifespan.drain, 2.0)
        return await start_and_drain(lifespan, 5.0, 2.0)

    assert run(main()) == pytest.approx(7.0)
    lifespan.drain(1.0)


def test_the_clean_up_of_a_startup_has_less_time_than_that_of_a_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    server = uvicorn.Server(uvicorn.Config(lambda scope: None))
    monkeypatch.setattr(signal, "getsignal", lambda signum: server.handle_exit)
    assert process_deadline._grace_s() < 0.2
    server.started = True
    assert process_deadline._grace_s() == GRACE_S
    monkeypatch.setattr(signal, "getsignal", lambda signum: signal.SIG_DFL)
    assert process_deadline._grace_s() == GRACE_S


def test_a_signal_reaches_the_startup_of_penstocks_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.integrations.uvicorn.server import UvicornServer

    server, drained = UvicornServer(uvicorn.Config(lambda scope: None, timeout_graceful_shutdown=7)), []
    startup: Any = SimpleNamespace(drain=drained.append)
    server.handle_exit(signal.SIGTERM, None)
    server._lifespan = startup
    server.handle_exit(signal.SIGTERM, None)
    server.started = True
    server.handle_exit(signal.SIGTERM, None)
    assert drained == [7]
