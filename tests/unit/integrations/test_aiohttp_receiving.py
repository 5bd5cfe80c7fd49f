"""`receive_s` with aiohttp's middleware that reports the progress of requests, over real sockets."""

import asyncio

import pytest

pytest.importorskip("aiohttp")

from aiohttp import web

from penstock.integrations.aiohttp import receiving_middleware
from penstock.loop import NATIVE
from tests.unit.integrations.test_receiving import HEAD, RECEIVE_S, UPGRADE, WHOLE, Client, run

pytestmark = pytest.mark.skipif(not NATIVE, reason="the bounds of connections are the native loop's")
__all__ = ["run"]


class Served:
    """An application that reads the body after the test's word; /early answers first, /chat is a WebSocket."""

    def __init__(self):
        self.go = asyncio.Event()
        self.go.set()
        app = web.Application(middlewares=[receiving_middleware()])
        app.router.add_route("*", "/{path:.*}", self.handle)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, lingering_time=5)

    async def handle(self, request):
        if request.path == "/early":
            return web.Response(text="done")
        if request.path == "/chat":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for _ in socket:
                pass
            return socket
        await self.go.wait()
        return web.Response(body=await request.read() or b"done")

    async def __aenter__(self):
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.writers = []
        return self

    async def __aexit__(self, *error):
        self.go.set()
        for writer in self.writers:
            writer.transport.abort()
        await self.runner.cleanup()

    async def connect(self):
        began_s = asyncio.get_running_loop().time()
        reader, writer = await asyncio.open_connection(*self.runner.addresses[0])
        self.writers.append(writer)
        return Client(reader, writer, began_s)


async def answered(client, body=b"done"):
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert await client.reader.readexactly(len(body)) == body


@pytest.mark.parametrize("earlier", [0, 2], ids=["the first", "a later one"])
@pytest.mark.parametrize("begun", [b"\r\n", b"\r\n12345"], ids=["none of it", "a part"])
async def test_a_body_that_stops_coming_is_cut(earlier, begun):
    async with Served() as served:
        client = await served.connect()
        for _ in range(earlier):
            client.send(WHOLE)
            await answered(client)
        client.send(HEAD + begun)
        assert await client.is_cut()


async def test_who_waits_to_be_told_to_go_on_and_then_does_not_is_cut():
    async with Served() as served:
        client = await served.connect()
        client.send(HEAD + b"expect: 100-continue\r\n\r\n")
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        assert await client.is_cut()


async def test_a_slow_handler_is_not_cut_and_the_next_request_is_served():
    async with Served() as served:
        served.go.clear()
        client = await served.connect()
        client.send(HEAD + b"\r\n01234")
        await asyncio.sleep(RECEIVE_S / 3)
        client.send(b"56789")
        assert await client.stays()
        served.go.set()
        await answered(client, b"0123456789")
        client.send(WHOLE)
        await answered(client)
        # between requests nothing is owed
        assert await client.stays()


async def test_headers_that_trickle_after_an_answered_request_are_cut():
    async with Served() as served:
        client = await served.connect()
        client.send(WHOLE)
        await answered(client)
        client.send(HEAD + b"x-slow: ")
        dripping = asyncio.ensure_future(client.drip(b"x", RECEIVE_S / 2))
        assert await client.is_cut()
        await dripping


async def test_a_body_that_does_not_come_after_an_early_answer_is_not_waited_for():
    async with Served() as served:
        client = await served.connect()
        client.send(HEAD.replace(b" / ", b" /early ") + b"\r\n12345")
        await answered(client)
        assert await client.is_cut()
        # and one that does is followed by the next request
        client = await served.connect()
        client.send(HEAD.replace(b" / ", b" /early ") + b"\r\n12345")
        await answered(client)
        client.send(b"67890" + WHOLE)
        await answered(client)
        assert await client.stays()


async def test_a_websocket_on_which_only_the_client_talks_is_not_cut():
    async with Served() as served:
        client = await served.connect()
        client.send(UPGRADE + b"\r\n")
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        for _ in range(5):
            # a frame of one byte, masked by zeros
            client.send(b"\x81\x81\0\0\0\0x")
            await asyncio.sleep(RECEIVE_S / 2)
        assert await client.stays()
