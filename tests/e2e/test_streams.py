"""Streams behind the limit of `penstock serve`: real clients of event streams and long polls."""

import socket
from contextlib import ExitStack

import pytest

from tests.e2e.conftest import Command, answers, get, wait_for

pytest.importorskip("uvicorn")

APP = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/events":
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: begun\\n\\n", "more_body": True})
    if scope["path"].startswith(("/events", "/poll")):
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})
"""


def opened(address: tuple[str, int], path: str, stack: ExitStack) -> socket.socket:
    client = stack.enter_context(socket.create_connection(address, 20))
    client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    return client


def test_ten_event_streams_leave_a_limit_of_four_to_others(penstock: Command, free_port: int) -> None:
    penstock.write("events.py", APP)
    address = ("127.0.0.1", free_port)
    how = ("--limit", "4", "--max-wait", "0", "--set", "pressure.max_streams=10", "--set", "pressure.lag_high_s=none")
    server = penstock.start("serve", "events:app", "--port", str(free_port), "--no-access-log", *how)
    wait_for(lambda: answers(address), server)
    with ExitStack() as stack:
        # one after the other: until it begins, each needs a permit
        for _ in range(10):
            client = opened(address, "/events", stack)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert [get(address)[9:12] for _ in range(40)] == [b"200"] * 40
        assert get(address, "/events").endswith(b"overloaded: streams\n")


@pytest.mark.parametrize(("exempt", "status"), [((), b"503"), (("--exempt-path", "/poll/*"), b"200")])
def test_long_polls_fill_the_limit_unless_their_paths_are_exempt(
    penstock: Command, free_port: int, exempt: tuple[str, ...], status: bytes
) -> None:
    penstock.write("events.py", APP)
    address = ("127.0.0.1", free_port)
    how = ("--limit", "4", "--max-wait", "0", "--set", "pressure.lag_high_s=none")
    server = penstock.start("serve", "events:app", "--port", str(free_port), "--no-access-log", *how, *exempt)
    wait_for(lambda: answers(address), server)
    with ExitStack() as stack:
        for _ in range(4):
            opened(address, "/poll/1", stack)
        if exempt:
            assert {get(address)[9:12] for _ in range(20)} == {status}
        else:
            wait_for(lambda: get(address)[9:12] == status, server)
