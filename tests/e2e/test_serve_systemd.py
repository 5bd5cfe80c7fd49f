"""`penstock serve` in one process as a service of systemd, with a datagram socket as the double of systemd."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE_S, Command, get

pytest.importorskip("uvicorn")

APP = """
import os, time
async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"] == "/block":
            time.sleep(5)
        body = repr(sorted(set(os.environ) & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""


class Systemd:
    """The socket that a service notifies, read by a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.found: list[str] = []
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        while True:
            message = self.socket.recv(4096).decode()
            with self.changed:
                self.found.append(message.split("\n")[0])
                self.changed.notify_all()
            if not message:
                return

    def wait(self, word: str, count: int = 1) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.found.count(word) >= count, PATIENCE_S), self.found

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.path))
        self.thread.join()
        self.socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(tmp_path / "notify")
    yield made
    made.close()


def test_systemd_is_told_of_the_start_and_the_stop(penstock: Command, systemd: Systemd, free_port: int) -> None:
    penstock.write("shop.py", APP)
    server = penstock.start("serve", "shop:app", "--port", str(free_port), NOTIFY_SOCKET=str(systemd.path))
    systemd.wait("READY=1")
    # it listens by then, and no program that it starts would speak for it
    assert get(("127.0.0.1", free_port)).endswith(b"[]")
    server.send_signal(signal.SIGTERM)
    systemd.wait("STOPPING=1")
    assert server.wait(PATIENCE_S) == 128 + signal.SIGTERM
    assert systemd.found == ["READY=1", "STOPPING=1"]


def test_a_hung_loop_stops_the_pings_of_the_watchdog(penstock: Command, systemd: Systemd, free_port: int) -> None:
    penstock.write("shop.py", APP)
    variables = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "400000"}
    server = penstock.start("serve", "shop:app", "--port", str(free_port), **variables)
    systemd.wait("WATCHDOG=1", 3)
    before, began_s = systemd.found.count("WATCHDOG=1"), time.monotonic()
    # five seconds, in which 25 pings would come
    assert get(("127.0.0.1", free_port), "/block").endswith(b"[]")
    during, lasted_s = systemd.found.count("WATCHDOG=1") - before, time.monotonic() - began_s
    assert during < 10 + (lasted_s - 5) * 6
    systemd.wait("WATCHDOG=1", before + during + 3)
    server.send_signal(signal.SIGTERM)
    assert server.wait(PATIENCE_S) == 128 + signal.SIGTERM
