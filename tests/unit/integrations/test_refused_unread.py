"""Responses of an overloaded loop to unread requests of uvicorn and streams, over real sockets."""

import asyncio
import functools
import socket
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from tests.support.loops import run_on
from tests.support.waiting import until

pytest.importorskip("uvicorn")

import uvicorn

from penstock import Config, PressureConfig, TasksConfig, new_event_loop
from penstock.integrations.metrics.exporter import process_sources
from penstock.integrations.streams import start_server
from penstock.integrations.uvicorn.shedding import UNREAD, shed_unread
from penstock.loop import NATIVE, EventLoop
from penstock.loop.native import native_core
from penstock.loop.servers import connection_count
from penstock.pressure import loop_statistics
from penstock.tasks.observers.registry import observer_of
from penstock.telemetry.readings import MetricReader
from tests.unit.integrations.asgi_driven import answer

pytestmark = pytest.mark.skipif(not NATIVE, reason="only the native loop has turns to look at")

HOUR_NS = 3600 * 10**9
PATIENCE_S = 30.0
REQUEST = b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n"


class Served:
    """uvicorn in a loop that reads until it is `behind`, and then defers its reads."""

    def __init__(self, http):
        self.asked, self.go = [], asyncio.Event()
        quiet = {"log_level": "error", "lifespan": "off", "access_log": False}
        self.config = uvicorn.Config(self.app, interface="asgi3", http=http, **quiet)
        self.config.load()
        shed_unread(self.config)
        self.server = uvicorn.Server(self.config)

    async def app(self, scope, receive, send):
        self.asked.append(scope["path"])
        if scope["path"] == "/slow":
            await self.go.wait()
        await answer(send)

    async def __aenter__(self):
        watch(high_ns=HOUR_NS)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.serving = asyncio.ensure_future(self.server.serve(sockets=[self.listener]))
        await until(lambda: self.server.started)
        self.silent = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        self.stuck = socket.create_connection(self.silent.sockets[0].getsockname())
        reader, writer = await self.connect()
        await self.ask(reader, writer)
        writer.close()
        await writer.wait_closed()
        return self

    async def __aexit__(self, *error):
        native_core(asyncio.get_running_loop()).watch_lag(None)
        self.go.set()
        self.server.should_exit = True
        self.stuck.close()
        self.silent.close()
        await self.serving
        await until(lambda: not connection_count(self.silent))
        self.listener.close()

    async def behind(self):
        await behind(self.stuck)

    async def connect(self):
        return await asyncio.open_connection(*self.listener.getsockname())

    async def ask(self, reader, writer, path=b"/"):
        writer.write(REQUEST % path)
        head = await busy(reader.readuntil(b"\r\n0\r\n\r\n"))
        assert head.startswith(b"HTTP/1.1 200 ")


def watch(high_ns):
    from penstock._core.overload.lag import Lag

    native_core(asyncio.get_running_loop()).watch_lag(Lag(high_ns=high_ns, low_ns=high_ns, for_ns=HOUR_NS, defer_ns=1))


async def behind(stuck):
    """Make the loop defer reads while a callback is ready: this connection has waited for too long already."""
    loop = asyncio.get_running_loop()
    watch(high_ns=1)
    await asyncio.sleep(0)
    stuck.sendall(b"x")
    while not len(native_core(loop).deferred_reads):
        await asyncio.sleep(0)
    # one turn more than may be a stall
    for _ in range(2):
        await asyncio.sleep(0)


async def busy(waited):
    """Wait with a callback always ready."""
    task = asyncio.ensure_future(waited)
    while not task.done():
        await asyncio.sleep(0)
    return await task


async def told(address, asked):
    """Return all bytes that a new client receives."""
    loop = asyncio.get_running_loop()
    with socket.create_connection(address) as client:
        client.sendall(asked)
        client.setblocking(False)
        answered = b""
        while piece := await busy(loop.sock_recv(client, 65536)):
            answered += piece
    return answered


@pytest.fixture
def run():
    """Return `run(coroutine)`, which runs it to its end in penstock's loop."""
    return functools.partial(run_on, EventLoop)


both_parsers = pytest.mark.parametrize("http", ["h11", "httptools"])


def test_the_answer_is_a_whole_http_answer():
    for retry_s, whole in enumerate(UNREAD, start=1):
        head, _, body = whole.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        headers = {b"retry-after: %d" % retry_s, b"connection: close", b"content-length: %d" % len(body)}
        assert headers <= set(head.split(b"\r\n"))
        assert body == b"overloaded: lag\n"
    assert retry_s == 3


@both_parsers
def test_an_idle_connection_is_told_at_once_and_the_application_hears_nothing(run, http):
    async def main():
        async with Served(http) as served:
            reader, writer = await served.connect()
            await served.ask(reader, writer)
            await served.behind()
            writer.write(REQUEST % b"/unread")
            assert await busy(reader.read()) in UNREAD
            assert served.asked == ["/", "/"]
            assert native_core(asyncio.get_running_loop()).shed_unread_count == 1
            writer.close()

    run(main())


@both_parsers
def test_a_new_connection_is_told_before_uvicorn_knows_of_it(run, http):
    async def main():
        async with Served(http) as served:
            await served.behind()
            answered = await told(served.listener.getsockname(), REQUEST % b"/unread")
            assert served.asked == ["/"]
            assert answered in UNREAD

    run(main())


@both_parsers
def test_a_connection_whose_request_is_worked_on_is_not(run, http):
    async def main():
        async with Served(http) as served:
            reader, writer = await served.connect()
            writer.write(REQUEST % b"/slow")
            while "/slow" not in served.asked:
                await asyncio.sleep(0.001)
            await served.behind()
            writer.write(REQUEST % b"/next")
            loop = asyncio.get_running_loop()
            while len(native_core(loop).deferred_reads) < 2:
                await asyncio.sleep(0)
            assert native_core(loop).shed_unread_count == 0
            served.go.set()
            assert (await busy(reader.readuntil(b"\r\n\r\n"))).startswith(b"HTTP/1.1 200 ")
            writer.close()

    run(main())


async def test_a_new_client_of_streams_is_sent_the_refusal_and_no_handler_hears_of_it():
    heard = []

    async def handle(reader, writer):
        heard.append(await reader.readline())
        writer.close()

    loop = asyncio.get_running_loop()
    watch(high_ns=HOUR_NS)
    silent = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    server = await start_server(handle, "127.0.0.1", 0, refusal=b"busy\n")
    with socket.create_connection(silent.sockets[0].getsockname()) as stuck:
        first = socket.create_connection(server.sockets[0].getsockname())
        await until(lambda: connection_count(server))
        await behind(stuck)
        assert await told(server.sockets[0].getsockname(), b"second\n") == b"busy\n"
        # a handler may have spoken to this one: it waits
        before = len(native_core(loop).deferred_reads)
        first.sendall(b"first\n")
        while len(native_core(loop).deferred_reads) == before:
            await asyncio.sleep(0)
        native_core(loop).watch_lag(None)
        await until(lambda: heard)
        assert heard == [b"first\n"]
        first.close()
    silent.close()
    server.close()
    while connection_count(silent) or connection_count(server):
        await asyncio.sleep(0.001)


async def test_streams_take_asyncios_own_limit():
    async def handle(reader, writer):
        with pytest.raises(asyncio.LimitOverrunError):
            await reader.readuntil(b"\n")
        writer.close()

    server = await start_server(handle, "127.0.0.1", 0, limit=4)
    assert await told(server.sockets[0].getsockname(), b"0123456789") == b""
    server.close()
    while connection_count(server):
        await asyncio.sleep(0.001)


async def read_a_line(reader, writer):
    await reader.readline()
    writer.close()


@asynccontextmanager
async def overloaded_server():
    """Yield the address of a server of lines while its loop is behind, then close the server."""
    loop = asyncio.get_running_loop()
    silent = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    server = await start_server(read_a_line, "127.0.0.1", 0, refusal=b"busy\n")
    address = server.sockets[0].getsockname()
    with socket.create_connection(silent.sockets[0].getsockname()) as stuck:
        # the server learns its answer from a connection
        assert await told(address, b"first\n") == b""
        await behind(stuck)
        yield address
        native_core(loop).watch_lag(None)
    silent.close()
    server.close()
    while connection_count(silent) or connection_count(server):
        await asyncio.sleep(0.001)


def test_sheds_of_unread_requests_are_in_the_statistics_the_metrics_the_trace_and_the_log(caplog):
    """The config's own gate counts while the test makes the loop be behind."""
    config = Config(tasks=TasksConfig(level="trace"), pressure=PressureConfig(lag_high_s=3600.0))

    async def main():
        async with overloaded_server() as address:
            for _ in range(3):
                assert await told(address, b"next\n") == b"busy\n"
            while not caplog.records:
                await asyncio.sleep(0)
            return loop_statistics().sheds, metric(reason="lag"), noted()

    def metric(**labels):
        wanted = ("loop", labels["reason"])
        return MetricReader(process_sources()).take()["asyncio.backpressure.rejected"][wanted]

    def noted():
        events = observer_of(asyncio.get_running_loop()).events()
        return Counter(event.text for event in events if event.kind == "shed")

    with asyncio.Runner(loop_factory=lambda: new_event_loop(config)) as runner:
        sheds, count, notes = runner.run(asyncio.wait_for(main(), PATIENCE_S))
    assert sheds == {"lag": 3, "left": 0, "closed": 0}
    assert count >= 3
    assert notes == {"loop: lag 1": 3}
    (record,) = [record for record in caplog.records if record.name == "penstock.pressure"]
    assert record.getMessage().endswith(" s: loop: lag 3")


def test_a_listener_that_fails_is_told_to_the_exception_handler_and_the_loop_goes_on(run):
    async def main():
        failed = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: failed.append(context))
        watch(high_ns=HOUR_NS)
        native_core(loop).sheds.watch(lambda: 1 / 0)
        async with overloaded_server() as address:
            for _ in range(2):
                assert await told(address, b"next\n") == b"busy\n"
        return failed, native_core(loop).sheds

    failed, sheds = run(main())
    assert [(context["message"], type(context["exception"])) for context in failed] == [
        ("a listener to sheds failed", ZeroDivisionError)
    ]
    assert (sheds.on_shed, sheds.counts()) == (None, (2, 0, 0))
