"""The delay of the drain: not ready, but serving."""

import http.client
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import PATIENCE_S, Command, answers, get, wait_for
from tests.support.ports import free_port as find_free_port

pytest.importorskip("uvicorn")

APP = """
import asyncio, os
async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"] == "/slow":
            os.write(1, b"began\\n")
            await asyncio.sleep(600)
        headers = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"done"})
"""
# signals within this time are one
TOGETHER_S = 0.05


class Shop:
    """A server with a health port."""

    def __init__(self, penstock: Command) -> None:
        penstock.write("shop.py", APP)
        self.penstock = penstock
        self.port, self.health_port = find_free_port(), find_free_port()

    def start(self, *options: str) -> subprocess.Popen[str]:
        ports = ("--port", str(self.port), "--health-port", str(self.health_port))
        server = self.penstock.start("serve", "shop:app", *ports, *options)
        wait_for(lambda: answers(("127.0.0.1", self.port)), server)
        return server

    def ready(self) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.health_port, timeout=PATIENCE_S)
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            return response.status, response.read().decode().strip()
        finally:
            connection.close()


@pytest.fixture
def shop(penstock: Command) -> Iterator[Shop]:
    yield Shop(penstock)


def test_a_server_in_its_delay_is_not_ready_and_serves_until_a_second_signal(shop: Shop) -> None:
    server = shop.start("--drain-delay", "600")
    assert shop.ready()[0] == 200
    with socket.create_connection(("127.0.0.1", shop.port), PATIENCE_S) as kept:
        server.send_signal(signal.SIGTERM)
        first_s = time.monotonic()
        wait_for(lambda: shop.ready() == (503, "draining"), server)
        for _ in range(3):
            assert get(("127.0.0.1", shop.port)).endswith(b"done")
        kept.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = kept.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" not in answer.lower()
    wait_for(lambda: time.monotonic() > first_s + 4 * TOGETHER_S, server)
    server.send_signal(signal.SIGTERM)
    output = server.communicate(timeout=PATIENCE_S)[0]
    assert server.returncode == 128 + signal.SIGTERM
    assert "the drain begins in 600 s" in output and "second signal" in output


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_drain_begins_after_the_delay(shop: Shop, signum: signal.Signals) -> None:
    server = shop.start("--set", "serve.drain_delay_s=0.5")
    began_s = time.monotonic()
    server.send_signal(signum)
    output = server.communicate(timeout=PATIENCE_S)[0]
    assert time.monotonic() - began_s >= 0.5
    assert server.returncode == 128 + signum
    assert "Shutting down" in output and "Traceback" not in output


def test_the_bound_of_the_end_is_later_by_the_delay(shop: Shop) -> None:
    server = shop.start("--drain-delay", "2.5", "--drain", "0.2")
    with socket.create_connection(("127.0.0.1", shop.port), PATIENCE_S) as slow:
        slow.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        assert server.stdout is not None
        while "began" not in server.stdout.readline():
            assert server.poll() is None
        began_s = time.monotonic()
        server.send_signal(signal.SIGTERM)
        output = server.communicate(timeout=PATIENCE_S)[0]
        assert time.monotonic() - began_s >= 2.5
    assert server.returncode == 128 + signal.SIGTERM
    assert "Cancel 1 running task(s)" in output


def test_without_a_bound_of_the_drain_a_second_signal_ends_the_delay(shop: Shop) -> None:
    server = shop.start("--drain-delay", "600", "--set", "signals.drain_s=none")
    server.send_signal(signal.SIGTERM)
    first_s = time.monotonic()
    wait_for(lambda: shop.ready() == (503, "draining"), server)
    wait_for(lambda: time.monotonic() > first_s + 4 * TOGETHER_S, server)
    server.send_signal(signal.SIGTERM)
    output = server.communicate(timeout=PATIENCE_S)[0]
    assert server.returncode == 128 + signal.SIGTERM
    assert "Shutting down" in output


def test_a_bad_delay_is_one_line(penstock: Command) -> None:
    penstock.write("shop.py", APP)
    penstock.refuses("serve", "shop:app", "--drain-delay", "-1", code=2, says="'-1' is not a time")
    penstock.refuses("serve", "shop:app", "--set", "serve.drain_delay_s=x", code=2, says="serve.drain_delay_s")
