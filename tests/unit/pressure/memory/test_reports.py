"""Tests of the reports of connections' bounds: figures, log records and exceptions."""

import asyncio
import logging
from typing import Any

import pytest

from penstock import Config, LoopConfig, PressureConfig
from penstock.errors import ConfigError, PenstockError, SlowPeer
from penstock.loop.native import native_core
from penstock.pressure import bound_memory, memory_statistics
from penstock.runtime.build import build_loop
from tests.unit.pressure.memory.peers import Service


def test_the_config_binds_a_loop(make_loop):
    config = Config(pressure=PressureConfig(buffer_bytes=5_000_000, receive_s=0.2))
    loop: Any = build_loop(config)

    async def main() -> None:
        async with Service() as service:
            side, _ = await service.connect()
            await side.until_event("lost")
            assert isinstance(side.error, SlowPeer)

    try:
        loop.run_until_complete(main())
        assert memory_statistics().budget_bytes == 5_000_000
    finally:
        loop.close()
    make_loop()


def test_a_loop_has_no_bounds_by_default():
    loop: Any = build_loop(Config())
    assert not native_core(loop).limits_connections
    loop.close()


def test_asyncios_loop_warns_that_bounds_have_no_effect(caplog):
    config = Config(loop=LoopConfig(poller="selector"), pressure=PressureConfig(idle_s=1.0, receive_s=2.0))
    build_loop(config).close()
    assert "pressure.receive_s, pressure.idle_s: no effect on asyncio's loop" in caplog.text
    plain = asyncio.SelectorEventLoop()
    assert not bound_memory(plain, idle_s=1.0)
    plain.close()


def test_bytes_without_a_time_bound_nothing_and_are_refused():
    with pytest.raises(ConfigError, match=r"slow_reader_bytes = 5 .*only with pressure\.slow_reader_s"):
        PressureConfig(slow_reader_bytes=5)


def test_each_disconnect_is_logged_with_its_figures_and_many_in_one_second_as_a_number(run, caplog):
    caplog.set_level(logging.INFO, "penstock.pressure")

    async def main() -> None:
        async with Service() as service:
            for _ in range(40):
                await service.connect()
            for side in service.sides:
                await side.until_event("lost")

    before = memory_statistics().disconnects["receive"]
    run(main(), receive_s=0.15)
    assert memory_statistics().disconnects["receive"] == before + 40
    records: list[Any] = [record for record in caplog.records if record.name == "penstock.pressure"]
    # the disconnects fall into two seconds at most
    assert 10 <= len(records) <= 20
    first = records[0]
    assert first.levelno == logging.INFO
    assert first.getMessage().startswith("disconnected (receive): 127.0.0.1:")
    assert "pressure.receive_s = 0.15" in first.getMessage()
    assert {*first.penstock} == {"reason", "peer", "bytes", "seconds", "left_out"}


def test_a_program_that_asks_for_no_such_lines_gets_none(run, caplog):
    caplog.set_level(logging.WARNING, "penstock.pressure")

    async def main() -> None:
        async with Service() as service:
            side, _ = await service.connect()
            await side.until_event("lost")

    run(main(), idle_s=0.15)
    assert not caplog.records


def test_a_hook_that_raises_is_reported_and_the_peer_is_disconnected(make_loop):
    loop = make_loop(receive_s=0.15)
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    native_core(loop).on_disconnect = lambda *_: 1 / 0

    async def main() -> None:
        async with Service() as service:
            for _ in range(2):
                side, _ = await service.connect()
                await side.until_event("lost")
                assert isinstance(side.error, ConnectionAbortedError)
                assert not isinstance(side.error, PenstockError)

    loop.run_until_complete(asyncio.wait_for(main(), 20))
    assert len(problems) == 1
    assert isinstance(problems[0]["exception"], ZeroDivisionError)


def test_a_stream_reader_raises_the_reason(run):
    caught: list[BaseException] = []

    async def main() -> None:
        over = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readline()
            except ConnectionAbortedError as exc:
                caught.append(exc)
            over.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        while not over.is_set():
            writer.write(b"x")
            await asyncio.sleep(0.05)
        writer.transport.abort()
        server.close()

    run(main(), receive_s=0.2)
    assert isinstance(caught[0], SlowPeer)
    assert isinstance(caught[0], OSError)


def test_statistics_are_frozen_and_name_every_reason():
    figures = memory_statistics()
    assert set(figures.disconnects) == {"slow_reader", "receive", "idle"}
    with pytest.raises(AttributeError):
        figures.paused = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        figures.disconnects["idle"] = 1  # type: ignore[index]


def test_the_exception_has_its_figures():
    error = SlowPeer("too slow", reason="idle", peer=("::1", 5), size_bytes=3, late_s=2.0)
    assert str(error) == "too slow"
    assert (error.reason, error.peer, error.size_bytes, error.late_s) == ("idle", ("::1", 5), 3, 2.0)
    assert isinstance(error, ConnectionAbortedError)
