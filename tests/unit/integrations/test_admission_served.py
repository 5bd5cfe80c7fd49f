"""Admission under uvicorn, over real sockets: HTTP/1.1 with both of its parsers, and WebSockets."""

import asyncio
import logging
import math
import re
import socket
from types import SimpleNamespace

import pytest

from tests.support.waiting import until

pytest.importorskip("uvicorn")

import uvicorn

from penstock.errors import Overloaded
from penstock.integrations.admission import AdmissionMiddleware, EarlyAsk, refusal
from penstock.integrations.uvicorn.shedding import shed_early
from penstock.pressure.admission import replies
from penstock.pressure.admission.gate import Gate
from tests.unit.integrations.asgi_driven import answer

PARSERS = ("h11", "httptools")
# httptools, with refusals before there is a task
EARLY = "early"


class Service:
    """An application that echoes bodies; /held waits for the test. WebSockets are accepted and kept open."""

    def __init__(self):
        self.begun = []
        self.go = asyncio.Event()

    async def __call__(self, scope, receive, send):
        self.begun.append(scope["path"])
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            return
        if scope["path"] == "/held":
            await self.go.wait()
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        await answer(send, body=body or b"done")


class Served:
    """uvicorn with the application behind a gate."""

    def __init__(self, gate, app=None, *, http="h11", ws="auto", access_log=False, **how):
        self.gate = gate
        self.service = app or Service()
        admission = AdmissionMiddleware(self.service, gate, **how)
        config = uvicorn.Config(
            admission,
            http="httptools" if http == EARLY else http,
            ws=ws,
            proxy_headers=False,
            log_level="error",
            lifespan="off",
            access_log=access_log,
            date_header=False,
        )
        if http == EARLY:
            config.load()
            assert shed_early(config, admission)
        self.server = uvicorn.Server(config)

    async def __aenter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.serving = asyncio.ensure_future(self.server.serve(sockets=[self.listener]))
        await until(lambda: self.server.started)
        return self

    async def __aexit__(self, *error):
        self.server.should_exit = True
        if isinstance(self.service, Service):
            self.service.go.set()
        await self.serving
        self.listener.close()

    async def connect(self):
        return await asyncio.open_connection(*self.listener.getsockname())

    async def send(self, path="/", body=b"", more=""):
        reader, writer = await self.connect()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{more}\r\n"
        writer.write(head.encode() + body)
        return reader, writer

    async def ask(self, path="/", body=b""):
        reader, writer = await self.send(path, body, "connection: close\r\n")
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return head.decode().lower(), rest

    async def hold(self):
        begun = len(self.service.begun)
        _, writer = await self.send("/held")
        await until(lambda: len(self.service.begun) > begun)
        return writer


@pytest.mark.parametrize("http", [*PARSERS, EARLY])
async def test_a_refused_request_leaves_its_connection_usable(http):
    async with Served(Gate(1, max_wait_s=0), http=http) as served:
        held = await served.hold()
        reader, writer = await served.send(body=b"x" * 100)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ") and b"retry-after: " in head.lower()
        assert await reader.readexactly(18) == b"overloaded: limit\n"
        assert served.service.begun == ["/held"]
        served.service.go.set()
        await until(lambda: served.gate.statistics().inflight == 0)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        held.close()


@pytest.mark.parametrize("http", [*PARSERS, EARLY])
async def test_a_refused_upload_is_not_read(http):
    async with Served(Gate(1, max_wait_s=0), http=http) as served:
        held = await served.hold()
        reader, writer = await served.connect()
        # the body never comes: whoever waits for it waits for ever
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        answered = await reader.read()
        assert answered.startswith(b"HTTP/1.1 503 ") and b"connection: close" in answered.lower()
        writer.close()
        held.close()


@pytest.mark.parametrize("http", [*PARSERS, EARLY])
async def test_a_request_that_waits_has_its_whole_body(http):
    async with Served(Gate(1, max_wait_s=math.inf), http=http) as served:
        held = await served.hold()
        body = bytes(range(256)) * 2000
        waiting = asyncio.ensure_future(served.ask(body=body))
        await until(lambda: served.gate.statistics().queued == 1)
        served.service.go.set()
        head, got = await waiting
        assert head.startswith("http/1.1 200 ")
        assert dechunked(got) == body
        held.close()
        await until(lambda: served.gate.statistics().inflight == 0)


def dechunked(data):
    found = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        count = int(size, 16)
        found, data = found + data[:count], data[count + 2 :]
        if not count:
            break
    return found


@pytest.mark.parametrize("http", [*PARSERS, EARLY])
async def test_a_client_that_leaves_while_its_request_waits_is_dropped_at_once(http):
    async with Served(Gate(1, max_wait_s=math.inf), http=http) as served:
        held = await served.hold()
        _, writer = await served.send("/gone", b"body")
        await until(lambda: served.gate.statistics().queued == 1)
        writer.close()
        await until(lambda: served.gate.statistics().queued == 0)
        assert served.gate.statistics().inflight == 1
        served.service.go.set()
        assert (await served.ask("/next"))[0].startswith("http/1.1 200 ")
        assert served.service.begun == ["/held", "/next"]
        held.close()


async def test_an_early_refusal_makes_no_task():
    async with Served(Gate(1, max_wait_s=0), http=EARLY) as served:
        held = await served.hold()
        made, loop = [], asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **more: made.append(coro) or asyncio.Task(coro, loop=loop, **more))
        reader, writer = await served.send()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503 ")
        loop.set_task_factory(None)
        # asyncio's own server accepts by one
        assert [coro for coro in made if "accept" not in coro.__qualname__] == []
        assert served.gate.statistics().sheds["limit"] == 1
        writer.close()
        held.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /a?b=1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n",
    ],
)
async def test_an_early_refusal_says_and_logs_what_the_requests_task_would(request_bytes, monkeypatch):
    async def told(http, written):
        async with Served(Gate(1, max_wait_s=0), http=http, access_log=True) as served:
            held = await served.hold()
            logger = logging.getLogger("uvicorn.access")
            monkeypatch.setattr(logger, "info", lambda text, who, *what: written.append((text, what)))
            reader, writer = await served.connect()
            writer.write(request_bytes)
            head = await reader.readuntil(b"\r\n\r\n")
            # a connection that goes on ends with the server
            served.server.should_exit = True
            rest = await reader.read()
            writer.close()
            held.close()
        return head, rest

    # the same time to come back in both
    monkeypatch.setattr(replies, "_random", SimpleNamespace(random=lambda: 0.0))

    early, late = [], []
    assert await told(EARLY, early) == await told("httptools", late)
    assert early == late and [what[-1] for _, what in early] == [503, 200]


async def test_a_pipeline_of_refused_requests_is_answered_in_full():
    async with Served(Gate(1, max_wait_s=0), http=EARLY) as served:
        held = await served.hold()
        reader, writer = await served.connect()
        count = 3000
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * count)
        for _ in range(count):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503 ")
            assert await reader.readexactly(18) == b"overloaded: limit\n"
        writer.close()
        held.close()


async def test_a_priority_that_fails_is_the_requests_failure():
    def broken(scope):
        raise ZeroDivisionError

    async with Served(Gate(1), http=EARLY, priority=broken) as served:
        assert (await served.ask())[0].startswith("http/1.1 500 ")
        assert served.gate.statistics().inflight == 0


async def test_a_turn_asked_for_early_and_never_taken_gives_its_permit_back():
    gate = Gate(1, max_wait_s=math.inf)
    asked, waiting = (EarlyAsk((entry, entry.ask(), None, None)) for entry in (gate.entry(), gate.entry()))
    assert (gate.inflight, gate.queued()) == (1, 1)
    del waiting
    assert (gate.inflight, gate.queued()) == (1, 0)
    del asked
    assert gate.inflight == 0


async def test_a_refused_websocket_is_told_by_http():
    pytest.importorskip("websockets")

    gate = Gate(1, max_wait_s=0)
    async with Served(gate, websockets="connection") as served:
        upgrade = (
            b"GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        first, second = await served.connect(), await served.connect()
        first[1].write(upgrade)
        assert (await first[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert gate.statistics().inflight == 1
        second[1].write(upgrade)
        answered = await second[0].read()
        assert answered.startswith(b"HTTP/1.1 503 ") and b"overloaded: limit" in answered
        assert served.service.begun == ["/chat"]
        first[1].close()
        second[1].close()
        await until(lambda: gate.statistics().inflight == 0)


async def test_starlette_answers_an_overload_within_a_request_by_our_handler():
    applications = pytest.importorskip("starlette.applications")
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.routing import Route

    async def endpoint(request):
        raise Overloaded(reason="full", retry_after_s=7)

    async def dispatch(request, call_next):
        return await call_next(request)

    app = applications.Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    app.add_exception_handler(Overloaded, refusal)
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)

    async with Served(Gate(1), app) as served:
        head, body = await served.ask()
        assert head.startswith("http/1.1 503 ") and re.search("retry-after: (7|8|9|10)\r", head)
        assert body == b"overloaded: full\n"


async def stream_events(scope, receive, send):
    """Serve /events as an event stream with one event that stays open; answer every other path at once."""
    if scope["path"] != "/events":
        await answer(send)
        return
    events = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": events})
    await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


@pytest.mark.parametrize("http", [*PARSERS, EARLY])
async def test_ten_clients_of_an_event_stream_leave_the_service_to_others(http):
    gate = Gate(4, max_wait_s=0, max_streams=10)
    async with Served(gate, stream_events, http=http) as served:
        clients = [await served.send("/events") for _ in range(10)]
        for reader, _ in clients:
            assert b"data: 1" in await reader.readuntil(b"data: 1\n\n")
        assert (gate.statistics().inflight, gate.statistics().streams) == (0, 10)
        for _ in range(40):
            assert (await served.ask())[0].startswith("http/1.1 200 ")
        assert (await served.ask("/events"))[1] == b"overloaded: streams\n"
        for _, writer in clients:
            writer.close()
        await until(lambda: gate.statistics().streams == 0)
