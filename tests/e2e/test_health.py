"""Health checks of an overloaded, blocked, starting or draining service: the real command, real clients."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from penstock.loop import NATIVE
from tests.e2e.conftest import Command, answers, get, wait_for
from tests.support.ports import free_port as find_free_port

pytest.importorskip("uvicorn")

# each request computes for 5 ms, a health check does not
APP = """
import asyncio, os, time
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"].startswith("/block"):
        # until the test says so
        while not os.path.exists("go"):
            time.sleep(0.01)
    if scope["path"] == "/slow":
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
    if scope["path"] == "/":
        end_s = time.thread_time() + 0.005
        while time.thread_time() < end_s:
            pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})
"""
# its start takes until the test says so
LATE = """
import asyncio, os
from over import app as ready
async def app(scope, receive, send):
    if scope["type"] != "lifespan":
        await ready(scope, receive, send)
        return
    await receive()
    while not os.path.exists("start"):
        await asyncio.sleep(0.01)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
"""
FOUR_TIMES_PER_S = 800
# nobody reads the output meanwhile
QUIET = ("--no-access-log",)
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@contextmanager
def load(address: tuple[str, int]) -> Iterator[list[bytes]]:
    """Send four times the service's capacity on new connections, and yield the answers."""
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
    server = penstock.start(
        "serve", "over:app", "--port", str(free_port), "--limit", "auto", "--deadline", "0.1", *QUIET
    )
    wait_for(lambda: answers(address), server)
    with load(address) as told:
        checks = []
        for _ in range(40):
            checks.append(get(address, "/healthz"))
            time.sleep(0.03)
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in checks)
    assert any(b" 503 " in line for line in told), "it was overloaded"
    assert any(b" 200 " in line for line in told)


@pytest.mark.skipif(not NATIVE, reason="only the native loop has turns to look at")
def test_the_paths_are_those_of_the_command_line(penstock: Command, free_port: int) -> None:
    penstock.write("over.py", APP)
    address = ("127.0.0.1", free_port)
    paths = ("--health-path", "/up", "--health-path", "/ready")
    server = penstock.start(
        "serve", "over:app", "--port", str(free_port), "--limit", "1", "--max-wait", "0", *QUIET, *paths
    )
    wait_for(lambda: answers(address), server)
    with load(address):
        checks, others = [], []
        for _ in range(20):
            checks += [get(address, "/up"), get(address, "/ready?full")]
            others.append(get(address, "/healthz"))
            time.sleep(0.05)
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in checks)
    assert any(answer.startswith(b"HTTP/1.1 503 ") for answer in others)


@pytest.fixture
def health_port() -> int:
    return find_free_port()


def told(port: int, path: str) -> tuple[int, str]:
    """Return the status and the text of the health port."""
    head, _, text = get(("127.0.0.1", port), path).partition(b"\r\n\r\n")
    return int(head.split()[1]), text.decode().strip()


@contextmanager
def asked(address: tuple[str, int], path: str) -> Iterator[None]:
    """Keep a request in flight during the block."""
    with socket.create_connection(address, timeout=30) as client:
        client.sendall(REQUEST.replace(b"/ ", path.encode() + b" ", 1))
        yield
        assert client.recv(12) == b"HTTP/1.1 200"


def test_the_health_port_answers_under_overload(penstock: Command, free_port: int, health_port: int) -> None:
    penstock.write("over.py", APP)
    address = ("127.0.0.1", free_port)
    ports = ("--port", str(free_port), "--health-port", str(health_port))
    server = penstock.start("serve", "over:app", *ports, "--limit", "auto", "--deadline", "0.1", *QUIET)
    wait_for(lambda: answers(address), server)
    with load(address):
        checks = []
        for _ in range(40):
            checks += [told(health_port, "/livez"), told(health_port, "/readyz")]
            time.sleep(0.03)
    assert {status for status, _ in checks} == {200}
    assert not NATIVE or "overloaded" in {text for _, text in checks}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_blocked_loop_lives_and_a_stuck_one_does_not(
    penstock: Command, free_port: int, health_port: int, workers: int
) -> None:
    penstock.write("over.py", APP)
    address = ("127.0.0.1", free_port)
    ports = ("--port", str(free_port), "--health-port", str(health_port), "--workers", str(workers))
    server = penstock.start("serve", "over:app", *ports, "--set", "pressure.health_stuck_s=3", *QUIET)
    wait_for(lambda: answers(address) and told(health_port, "/readyz") == (200, "ok"), server)
    with asked(address, "/block"):
        wait_for(lambda: told(health_port, "/livez")[1].startswith("blocked for "), server)
        wait_for(lambda: told(health_port, "/livez")[1].startswith("stuck for "), server)
        assert told(health_port, "/livez")[0] == 503
        # another worker takes the work
        assert told(health_port, "/readyz")[0] == (503 if workers == 1 else 200)
        penstock.write("go", "")
    wait_for(lambda: told(health_port, "/livez")[0] == 200, server)


@pytest.mark.parametrize("workers", [1, 2])
def test_it_is_not_ready_before_its_start_is_done_and_from_the_first_signal_on(
    penstock: Command, free_port: int, health_port: int, workers: int
) -> None:
    penstock.write("over.py", APP)
    address = ("127.0.0.1", free_port)
    ports = ("--port", str(free_port), "--health-port", str(health_port), "--workers", str(workers))
    penstock.write("late.py", LATE)
    server = penstock.start("serve", "late:app", *ports, *QUIET)
    wait_for(lambda: answers(("127.0.0.1", health_port)), server)
    assert (told(health_port, "/livez"), told(health_port, "/readyz")) == ((200, "starting"), (503, "starting"))
    penstock.write("start", "")
    wait_for(lambda: told(health_port, "/readyz") == (200, "ok"), server)
    with asked(address, "/slow"):
        wait_for(lambda: get(address, "/healthz").startswith(b"HTTP/1.1 200 "), server)
        server.send_signal(signal.SIGTERM)
        wait_for(lambda: told(health_port, "/readyz") == (503, "draining"), server)
        assert told(health_port, "/livez") == (200, "draining")
        penstock.write("go", "")
    assert "Traceback" not in server.communicate(timeout=30)[0]
    assert not answers(("127.0.0.1", health_port)), "the port is closed with the service"


@pytest.mark.parametrize("path", ["up", "/a b"])
def test_what_is_no_path_is_one_line(penstock: Command, path: str) -> None:
    penstock.refuses("serve", "over:app", "--health-path", path, code=2, says="is not a path: from / on, or none")


def test_a_health_port_that_is_taken_is_one_line(penstock: Command, free_port: int) -> None:
    penstock.write("over.py", APP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        says = f"cannot listen for health checks on 127.0.0.1:{port}: Address already in use"
        penstock.refuses("serve", "over:app", "--port", str(free_port), "--health-port", port, code=1, says=says)
