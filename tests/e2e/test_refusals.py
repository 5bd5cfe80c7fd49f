"""Sheds of an overloaded service in responses, metrics and the log: the real command, real clients."""

import re
import socket
import threading

import pytest

from penstock.loop import NATIVE
from tests.e2e.conftest import Command, answers, get, wait_for

pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

# each request computes for 5 ms
APP = """
import time
from penstock.integrations.metrics.exporter import metrics_app
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/metrics":
        return await metrics_app(scope, receive, send)
    end_s = time.thread_time() + 0.005
    while time.thread_time() < end_s:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})
"""
MEGABYTE = 1_000_000
UPLOAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % MEGABYTE + bytes(MEGABYTE)
CLIENTS = 40
ENOUGH = 200
PATIENCE_S = 60.0


class Uploads:
    """Clients that each send a megabyte before they read, from new connections, until enough were refused."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.heads: list[bytes] = []
        self.failed: list[OSError] = []
        self.over = threading.Event()

    def run(self) -> None:
        threads = [threading.Thread(target=self.go) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        self.over.wait(PATIENCE_S)
        self.over.set()
        for thread in threads:
            thread.join()

    def go(self) -> None:
        while not self.over.is_set():
            try:
                self.heads.append(self.ask())
            except OSError as error:
                self.failed.append(error)
            if self.failed or len(self.refusals()) >= ENOUGH:
                self.over.set()

    def ask(self) -> bytes:
        with socket.create_connection(self.address, timeout=30) as client, client.makefile("rb") as answer:
            client.sendall(UPLOAD)
            head = b""
            while line := answer.readline().strip():
                head += line.lower() + b"\n"
        return head

    def refusals(self) -> list[bytes]:
        return [head for head in self.heads if head.startswith(b"http/1.1 503 ")]


def rejected(text: str) -> int:
    """Return the number of sheds in the metrics, without those of disconnected clients."""
    lines = re.findall(r"^asyncio_backpressure_rejected_total\{(.*)\} ([0-9.]+)$", text, re.MULTILINE)
    return sum(int(float(number)) for labels, number in lines if 'reason="left"' not in labels)


@pytest.mark.skipif(not NATIVE, reason="only the native loop turns clients away unread")
def test_each_refused_upload_reads_its_503_and_is_in_the_metrics_and_the_log(penstock: Command, free_port: int) -> None:
    penstock.write("over.py", APP)
    address = ("127.0.0.1", free_port)
    options = ("--port", str(free_port), "--limit", "auto", "--deadline", "0.1", "--no-access-log")
    server = penstock.start("serve", "over:app", *options)
    wait_for(lambda: answers(address), server)
    uploads = Uploads(address)
    uploads.run()
    refused = uploads.refusals()
    assert uploads.failed == []
    assert len(refused) >= ENOUGH
    assert all(re.search(rb"\nretry-after: [123]\n", head) for head in refused)
    assert len({re.search(rb"retry-after: (.)", head)[1] for head in refused}) == 3  # type: ignore[index]
    told = []
    wait_for(lambda: told.append(get(address, "/metrics")) or told[-1].startswith(b"HTTP/1.1 200 "), server)
    text = told[-1].decode()
    # asking for the metrics may have been refused, too
    assert len(refused) <= rejected(text) <= len(refused) + len(told)
    assert re.search(r'gate="loop",reason="lag"\} [1-9]', text)
    assert server.stdout is not None
    line = next(line for line in server.stdout if "were shed" in line)
    counted = r"WARNING penstock\.pressure: \d+ requests and connections were shed in [0-9.]+ s: .*loop: lag"
    assert re.search(counted, line)
