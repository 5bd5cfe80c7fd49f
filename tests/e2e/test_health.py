"""Health checks of a service under four times the load that it can serve: the real command, new connections each time."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from penstock.loop import NATIVE
from tests.e2e.conftest import Command, answers, get, wait_for

pytest.importorskip("uvicorn")

# each request computes for 5 ms, a health check does not
APP = """
import time
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/":
        end_s = time.thread_time() + 0.005
        while time.thread_time() < end_s:
            pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})
"""
FOUR_TIMES_PER_S = 800
# nobody reads the output meanwhile
QUIET = ("--no-access-log",)
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@contextmanager
def load(address: tuple[str, int]) -> Iterator[list[bytes]]:
    """Four times what the service can do, from new connections; what those are answered, once it is over."""
    over, told = threading.Event(), []

    def send() -> None:
        with ExitStack() as stack:
            clients = []
            while not over.wait(1 / FOUR_TIMES_PER_S):
                clients.append(stack.enter_context(socket.create_connection(address, timeout=30)))
                clients[-1].sendall(REQUEST)
            for client in clients:
                told.append(stack.enter_context(client.makefile("rb")).readline())

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield told
    finally:
        over.set()
        thread.join()


@pytest.mark.skipif(not NATIVE, reason="only the native loop has turns to look at")
def test_a_health_check_is_served_and_others_are_refused(penstock: Command, free_port: int) -> None:
    penstock.write("over.py", APP)
    address = ("127.0.0.1", free_port)
    server = penstock.start("serve", "over:app", "--port", str(free_port), "--limit", "auto", "--deadline", "0.1", *QUIET)
    wait_for(lambda: answers(address), server)
    with load(address) as told:
        checks = []
        for _ in range(60):
            checks.append(get(address, "/healthz"))
            time.sleep(0.05)
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in checks)
    assert any(b" 503 " in line for line in told), "it was overloaded"
    assert any(b" 200 " in line for line in told)


@pytest.mark.skipif(not NATIVE, reason="only the native loop has turns to look at")
def test_the_paths_are_those_of_the_command_line(penstock: Command, free_port: int) -> None:
    penstock.write("over.py", APP)
    address = ("127.0.0.1", free_port)
    paths = ("--health-path", "/up", "--health-path", "/ready")
    server = penstock.start("serve", "over:app", "--port", str(free_port), "--limit", "1", "--max-wait", "0", *QUIET, *paths)
    wait_for(lambda: answers(address), server)
    with load(address):
        checks, others = [], []
        for _ in range(20):
            checks += [get(address, "/up"), get(address, "/ready?full")]
            others.append(get(address, "/healthz"))
            time.sleep(0.05)
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in checks)
    assert any(answer.startswith(b"HTTP/1.1 503 ") for answer in others)


@pytest.mark.parametrize("path", ["up", "/a b"])
def test_what_is_no_path_is_one_line(penstock: Command, path: str) -> None:
    penstock.refuses("serve", "over:app", "--health-path", path, code=2, says="is not a path: from / on, or none")
