"""Admission before a real aiohttp application, over real sockets."""

import asyncio
import math
import socket

import pytest

from tests.support.waiting import until

pytest.importorskip("aiohttp")

from aiohttp import web

from penstock.errors import Overloaded
from penstock.integrations.aiohttp import admission_middleware
from penstock.pressure.admission.gate import Gate, Priority
from penstock.pressure.client.deadline import remaining_s


class Served:
    """An application on a socket of its own; its handler waits for the test."""

    def __init__(self, gate, *, lingering_s=0.1, **how):
        self.gate = gate
        self.begun = 0
        self.go = asyncio.Event()
        app = web.Application(middlewares=[admission_middleware(gate, **how)])
        app.router.add_route("*", "/{path:.*}", self.handle)
        # a body that does not come is waited for, 10 s by default
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, lingering_time=lingering_s)

    async def handle(self, request):
        self.begun += 1
        if request.path == "/left":
            return web.Response(text=f"{remaining_s():.0f}")
        if request.path == "/stream":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"first")
            await self.go.wait()
            return response
        if request.path == "/overloaded":
            raise Overloaded(reason="full")
        if request.path == "/chat":
            chat = web.WebSocketResponse()
            await chat.prepare(request)
        await self.go.wait()
        return chat if request.path == "/chat" else web.Response(text="done")

    async def __aenter__(self):
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.address = self.runner.addresses[0]
        return self

    async def __aexit__(self, *error):
        self.go.set()
        await self.runner.cleanup()

    async def send(self, path="/", more=""):
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n".encode())
        return reader, writer

    async def ask(self, path="/", more=""):
        reader, writer = await self.send(path, more)
        head = await reader.readuntil(b"\r\n\r\n")
        rest = await reader.read()
        writer.close()
        return head.decode().lower(), rest


UPGRADE = (
    "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


async def test_what_the_gate_refuses_is_503_and_never_reaches_a_handler():
    async with Served(Gate(1, max_wait_s=0)) as served:
        _, writer = await served.send()
        await until(lambda: served.begun == 1)
        head, body = await served.ask(more="content-length: 5\r\n")
        assert head.startswith("http/1.1 503 ") and "\r\nretry-after: " in head
        assert body == b"overloaded: limit\n"
        assert served.begun == 1
        writer.close()


@pytest.mark.parametrize("size_bytes", [200_000, 1_000_000])
async def test_a_client_that_sends_all_of_a_large_request_before_it_reads_gets_the_refusal(size_bytes):
    def send_all_then_read(address):
        with socket.create_connection(address, timeout=20) as client:
            client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size_bytes)
            client.sendall(bytes(size_bytes))
            got = b""
            while piece := client.recv(65536):
                got += piece
        return got

    gate = Gate(1, max_wait_s=0)
    async with Served(gate, lingering_s=10) as served:
        await gate.enter()
        got = await asyncio.gather(*[asyncio.to_thread(send_all_then_read, served.address) for _ in range(8)])
        assert [answered[:12] for answered in got] == [b"HTTP/1.1 503"] * 8
        gate.leave()


async def test_a_request_that_waits_is_served_in_its_turn():
    async with Served(Gate(1, max_wait_s=math.inf)) as served:
        first = asyncio.ensure_future(served.ask())
        await until(lambda: served.begun == 1)
        second = asyncio.ensure_future(served.ask())
        await until(lambda: served.gate.statistics().queued == 1)
        served.go.set()
        assert [body for _, body in await asyncio.gather(first, second)] == [b"done", b"done"]
        await until(lambda: served.gate.statistics().inflight == 0)


async def test_a_client_that_leaves_while_its_request_waits_is_not_served():
    async with Served(Gate(1, max_wait_s=math.inf)) as served:
        first = asyncio.ensure_future(served.ask())
        await until(lambda: served.begun == 1)
        _, writer = await served.send()
        await until(lambda: served.gate.statistics().queued == 1)
        writer.close()
        await until(lambda: [one.transport for one in served.runner.server.connections].count(None) == 1)
        served.go.set()
        await first
        await until(lambda: (served.gate.statistics().inflight, served.gate.statistics().queued) == (0, 0))
        assert served.begun == 1


async def test_health_checks_pass_a_full_gate_and_the_rest_is_as_told():
    gate = Gate(1, max_wait_s=0)
    how = {"priority": lambda request: Priority.LOW, "key": lambda request: request.remote, "health": ("/up",)}
    async with Served(gate, **how) as served:
        _, writer = await served.send()
        await until(lambda: served.begun == 1)
        _, health = await served.send("/up")
        await until(lambda: served.begun == 2)
        assert (await served.ask())[0].startswith("http/1.1 503 ")
        writer.close()
        health.close()


async def test_a_handler_inherits_its_clients_deadline():
    async with Served(Gate(1, deadline_s=100)) as served:
        assert round(int((await served.ask("/left", "X-Request-Timeout-Ms: 50000\r\n"))[1]), -1) == 50
        assert round(int((await served.ask("/left"))[1]), -1) == 100


async def test_an_overload_within_a_handler_is_answered_too():
    async with Served(Gate(1), as_json=True) as served:
        head, body = await served.ask("/overloaded")
        assert head.startswith("http/1.1 503 ") and "application/json" in head
        assert body.startswith(b'{"error": "overloaded", "reason": "full"')


async def test_a_websocket_gives_its_permit_back_once_it_has_begun():
    upgrade = "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    async with Served(Gate(1, max_wait_s=0)) as served:
        reader, writer = await asyncio.open_connection(*served.address)
        writer.write(f"GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n{upgrade}\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert served.gate.statistics().inflight == 0
        writer.close()


async def test_a_response_that_goes_on_gives_its_permit_back():
    async with Served(Gate(1, max_wait_s=0, max_streams=1), stream_after_s=0.02) as served:
        reader, writer = await served.send("/stream")
        await reader.readuntil(b"first")
        await until(lambda: served.gate.statistics().streams == 1)
        assert served.gate.statistics().inflight == 0
        served.go.set()
        await reader.read()
        await until(lambda: served.gate.statistics().streams == 0)
        assert served.gate.statistics().service.count == 0
        writer.close()


async def test_a_handler_that_has_sent_nothing_holds_its_permit():
    async with Served(Gate(1, max_wait_s=0), stream_after_s=0.01) as served:
        _, writer = await served.send()
        await until(lambda: served.begun == 1)
        await asyncio.sleep(0.1)
        assert (served.gate.statistics().inflight, served.gate.statistics().streams) == (1, 0)
        writer.close()


async def test_an_exempt_path_is_not_admitted_and_a_websocket_is_a_stream():
    gate = Gate(1, max_wait_s=0, max_streams=1)
    async with Served(gate, exempt=["/left"]) as served:
        reader, writer = await served.send("/chat", UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        assert (gate.statistics().inflight, gate.statistics().streams) == (0, 1)
        assert (await served.ask("/chat", UPGRADE))[1] == b"overloaded: streams\n"
        entered = gate.statistics().admitted
        # without a gate nothing has a deadline
        assert (await served.ask("/left"))[0].startswith("http/1.1 500 ")
        assert gate.statistics().admitted == entered
        writer.close()
