"""The accept queue of a real listener: closed to new clients, open to those that the kernel has."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest

import penstock
from penstock.runtime.acceptqueue import empty, has_clients, is_stopped, stop_new

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the accept queue is closed by a socket filter")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_refusing_listener_takes_no_new_client_and_keeps_those_it_has(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        address = listener.getsockname()
        with socket.create_connection(address[:2], 20) as early, socket.socket(family) as late:
            assert has_clients(listener) and not is_stopped(listener)
            stop_new(listener)
            assert is_stopped(listener)
            late.settimeout(0.05)
            with pytest.raises(TimeoutError):
                late.connect(address)
            accepted, _ = listener.accept()
            with accepted:
                early.sendall(b"x" * 100_000)
                early.shutdown(socket.SHUT_WR)
                assert len(accepted.makefile("rb").read()) == 100_000
            assert not has_clients(listener)


def test_a_refusing_unix_listener_has_no_name_and_keeps_its_clients(tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as early:
        listener.bind(path)
        listener.listen()
        early.connect(path)
        assert not is_stopped(listener)
        stop_new(listener)
        assert is_stopped(listener) and has_clients(listener)
        with socket.socket(socket.AF_UNIX) as late, pytest.raises(FileNotFoundError):
            late.connect(path)


def test_a_refusing_listener_is_emptied_and_a_shared_one_is_left() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            with socket.create_connection(listener.getsockname(), 20):
                # no server of this loop accepts from it: others do
                await empty(loop, [listener], loop.time() + 600)
                assert has_clients(listener)
                stop_new(listener)
                emptying = asyncio.create_task(empty(loop, [listener], loop.time() + 600))
                accepted, _ = listener.accept()
                accepted.close()
                await emptying
                assert not has_clients(listener)

    penstock.run(main())
