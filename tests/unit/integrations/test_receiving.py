"""`receive_s` with uvicorn's reports of its progress: real sockets, both of its parsers, and TLS."""

import asyncio
import contextlib
import socket
from types import SimpleNamespace

import pytest

from tests.support.waiting import until

pytest.importorskip("uvicorn")

import uvicorn

from penstock.integrations.admission import AdmissionMiddleware
from penstock.integrations.uvicorn.request_timing import report_receiving
from penstock.integrations.uvicorn.shedding import shed_early
from penstock.loop import NATIVE
from penstock.pressure import Gate
from tests.unit.integrations.asgi_driven import answer

pytestmark = pytest.mark.skipif(not NATIVE, reason="the bounds of connections are the native loop's")

TIMEOUT_S = 20.0
RECEIVE_S = 0.2
# what is not cut by then is not cut by this: late by a tenth of a second at most
MUCH_LATER_S = 3 * RECEIVE_S
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n"
WHOLE = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
UPGRADE = (
    b"GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


class Service:
    """An application that echoes the body; /early answers first. Each waits for the test."""

    def __init__(self):
        self.begun = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope, receive, send):
        self.begun += 1
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return
        if scope["path"] == "/early":
            await answer(send, body=b"done")
            return
        await self.go.wait()
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        await answer(send, body=body or b"done")


class Served:
    """uvicorn on this loop with the reporting protocol; with TLS if there are contexts."""

    def __init__(self, http, contexts=None, early=None):
        self.service = Service()
        self.contexts = contexts
        self.config = uvicorn.Config(
            early or self.service,
            http=http,
            proxy_headers=False,
            log_level="critical",
            lifespan="off",
            access_log=False,
            timeout_keep_alive=60,
        )
        self.config.load()
        assert report_receiving(self.config)
        if early is not None:
            assert shed_early(self.config, early)
        self.config.ssl = None if contexts is None else contexts[0]
        self.server = uvicorn.Server(self.config)

    async def __aenter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.writers = []
        self.serving = asyncio.ensure_future(self.server.serve(sockets=[self.listener]))
        await until(lambda: self.server.started)
        return self

    async def __aexit__(self, *error):
        for writer in self.writers:
            writer.transport.abort()
        self.service.go.set()
        self.server.should_exit = True
        await self.serving
        self.listener.close()

    async def connect(self):
        how = {"ssl": self.contexts[1], "server_hostname": "localhost"} if self.contexts else {}
        began_s = asyncio.get_running_loop().time()
        reader, writer = await asyncio.open_connection(*self.listener.getsockname(), **how)
        self.writers.append(writer)
        return Client(reader, writer, began_s)


class Client:
    def __init__(self, reader, writer, began_s):
        self.reader, self.writer, self.began_s = reader, writer, began_s

    def send(self, data):
        self.writer.write(data)

    async def answered(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        return await self.reader.readuntil(b"0\r\n\r\n")

    async def is_cut(self):
        """Wait until the client is disconnected without another byte."""
        with contextlib.suppress(ConnectionError):
            assert await self.reader.read() == b""
        return True

    async def stays(self):
        """Return whether the client is still connected after a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MUCH_LATER_S):
                return not await self.is_cut()
        return True

    async def drip(self, data=b"x", every_s=RECEIVE_S):
        """Send a byte now and then, without end."""
        with contextlib.suppress(ConnectionError):
            while not self.writer.is_closing():
                self.send(data)
                await asyncio.sleep(every_s)


@pytest.fixture
def run():
    from penstock.loop import EventLoop
    from penstock.pressure.overload.connections import bound_memory

    loops = []

    def run(main, *, receive_s=RECEIVE_S, **bounds):
        loop = EventLoop()
        loops.append(loop)
        bound_memory(loop, receive_s=receive_s, **bounds)
        return loop.run_until_complete(asyncio.wait_for(main, TIMEOUT_S))

    yield run
    for loop in loops:
        loop.close()


@pytest.fixture(params=["httptools", "h11"])
def http(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture(params=["plain", "tls"])
def security(request, contexts):
    return None if request.param == "plain" else contexts


BEGUN = {
    "nothing": b"",
    "a byte": b"G",
    "a part of the line": b"GET / HT",
    "a part of the headers": HEAD,
    "headers without the body": HEAD + b"\r\n",
    "a part of the body": HEAD + b"\r\n12345",
    "an upgrade's headers in part": UPGRADE,
}


async def test_a_request_that_was_begun_and_falls_silent_is_cut(http, security):
    async with Served(http, security) as served:
        clients = {name: await served.connect() for name in BEGUN}
        for name, client in clients.items():
            client.send(BEGUN[name])
        for name, client in clients.items():
            assert await client.is_cut(), name
            assert asyncio.get_running_loop().time() - client.began_s >= RECEIVE_S * 0.9, name


async def test_so_is_the_second_one_of_a_connection(http):
    async with Served(http) as served:
        clients = {name: await served.connect() for name in BEGUN}
        for name, client in clients.items():
            client.send(WHOLE)
            assert await client.answered()
            client.send(BEGUN[name])
        # a connection that waits for its next request is uvicorn's to close, or idle_s
        assert await clients.pop("nothing").stays()
        for name, client in clients.items():
            assert await client.is_cut(), name


@pytest.mark.parametrize("begun", [HEAD + b"x-slow: ", HEAD + b"\r\n"], ids=["headers", "body"])
async def test_a_request_that_trickles_is_cut(http, security, begun):
    async with Served(http, security) as served:
        client = await served.connect()
        client.send(begun.replace(b"10", b"10000"))
        # over TLS a byte is 23 of them
        dripping = asyncio.ensure_future(client.drip())
        assert await client.is_cut()
        await dripping


@pytest.mark.runner(receive_s=4 * RECEIVE_S)
async def test_an_upload_at_a_decent_rate_lasts_as_long_as_it_takes(http):
    async with Served(http) as served:
        client = await served.connect()
        parts, part = 20, b"x" * 500
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (parts * len(part)))
        for _ in range(parts):
            await asyncio.sleep(RECEIVE_S / 4)
            client.send(part)
        assert b"x" * 500 in await client.answered()


async def test_a_slow_handler_is_not_cut_whatever_its_client_sends_beside(http, security):
    async with Served(http, security) as served:
        served.service.go.clear()
        client = await served.connect()
        client.send(WHOLE)
        assert await client.stays()
        if http == "httptools":
            # h11 takes these for a request, and refuses it
            client.send(b"\r\n")
            assert await client.stays()
        served.service.go.set()
        assert b"done" in await client.answered()


async def test_a_body_that_nobody_reads_is_not_its_clients_fault(http):
    async with Served(http) as served:
        served.service.go.clear()
        client = await served.connect()
        body = bytes(1 << 20)
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        assert await client.stays()
        served.service.go.set()
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_who_waits_to_be_told_to_go_on_and_then_does_not_is_cut(http):
    async with Served(http) as served:
        client = await served.connect()
        client.send(HEAD + b"expect: 100-continue\r\n\r\n")
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        assert await client.is_cut()


async def test_a_body_that_does_not_come_after_an_early_answer_is_not_waited_for(http):
    async with Served(http) as served:
        client = await served.connect()
        client.send(HEAD.replace(b" / ", b" /early ") + b"\r\n12345")
        assert b"done" in await client.answered()
        # uvicorn's own time ends with each byte that comes
        client.send(b"6")
        assert await client.is_cut()


async def test_line_ends_alone_do_not_keep_a_connection():
    pytest.importorskip("httptools")

    async with Served("httptools") as served:
        client = await served.connect()
        client.send(WHOLE)
        assert await client.answered()
        dripping = asyncio.ensure_future(client.drip(b"\r\n"))
        assert await client.is_cut()
        await dripping


async def test_the_rest_of_a_pipeline_is_waited_for_once_its_turn_comes(http):
    async with Served(http) as served:
        client = await served.connect()
        client.send(WHOLE + WHOLE + WHOLE[:10])
        assert await client.answered()
        assert await client.answered()
        assert await client.is_cut()


async def test_a_pipeline_is_answered_in_full(http):
    async with Served(http) as served:
        client = await served.connect()
        client.send((HEAD + b"\r\n0123456789") * 50)
        for _ in range(50):
            assert b"0123456789" in await client.answered()
        assert await client.stays()


@pytest.mark.parametrize("pieces", [1, 2], ids=["at once", "in two pieces"])
async def test_nothing_is_expected_on_a_websocket(http, pieces, contexts):
    pytest.importorskip("websockets")

    async with Served(http, contexts if pieces == 2 else None) as served:
        client = await served.connect()
        upgrade = UPGRADE + b"\r\n"
        if pieces == 2:
            client.send(upgrade[:50])
            await asyncio.sleep(RECEIVE_S / 3)
            upgrade = upgrade[50:]
        client.send(upgrade)
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await client.stays()
        # a frame's first bytes: how long a message takes is the application's business
        client.send(b"\x81")
        assert await client.stays()


@pytest.mark.runner(idle_s=2 * MUCH_LATER_S)
async def test_an_idle_connection_is_closed_by_idle_s_alone(http):
    async with Served(http) as served:
        client = await served.connect()
        client.send(WHOLE)
        assert await client.answered()
        assert await client.stays()
        assert await client.is_cut()


async def test_a_client_that_reads_slowly_is_not_cut(http):
    async with Served(http) as served:
        client = await served.connect()
        body = bytes(3 << 20)
        client.writer.transport.pause_reading()
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await asyncio.sleep(MUCH_LATER_S)
        client.writer.transport.resume_reading()
        await client.reader.readexactly(len(body))


async def test_what_is_refused_before_there_is_a_task_counts_as_well():
    pytest.importorskip("httptools")

    admission = AdmissionMiddleware(Service(), Gate(1, max_wait_s=0))
    async with Served("httptools", early=admission) as served:
        await admission.gate.enter()
        client = await served.connect()
        client.send(WHOLE)
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503 ")
        assert await client.reader.readexactly(18)
        assert await client.stays()
        client.send(WHOLE[:10])
        assert await client.is_cut()
        admission.gate.leave()


@pytest.mark.runner(receive_s=None, idle_s=60)
async def test_without_receive_s_on_the_loop_telling_changes_nothing(http):
    async with Served(http) as served:
        client = await served.connect()
        client.send(HEAD)
        assert await client.stays()


def test_a_protocol_that_is_not_as_expected_is_left_alone():
    config = SimpleNamespace(http_protocol_class=asyncio.Protocol)
    assert not report_receiving(config)
    assert config.http_protocol_class is asyncio.Protocol


async def test_one_without_the_state_it_should_have_serves_as_before(http):
    lacks = "cycle" if http == "httptools" else "conn"

    async with Served(http) as served:
        protocol = served.config.http_protocol_class
        made = protocol.connection_made

        def connection_made(self, transport):
            kept = self.__dict__.pop(lacks)
            made(self, transport)
            setattr(self, lacks, kept)

        protocol.connection_made = connection_made
        client = await served.connect()
        client.send(WHOLE)
        assert b"done" in await client.answered()
        client.send(WHOLE[:10])
        # the loop guesses: who falls silent may have sent all
        assert await client.stays()
