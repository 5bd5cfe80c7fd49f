"""The network in memory: latency and bandwidth in virtual time, and faults on demand."""

import asyncio
from typing import Any

import pytest

from penstock.errors import Deadlock
from penstock.testing import Link, VirtualLoop, run

pytestmark = pytest.mark.runner("virtual")


class Recorder(asyncio.Protocol):
    """A protocol that records its events and their times."""

    def __init__(self) -> None:
        self.events: list[tuple[float, str]] = []
        self.received = b""
        self.lost = asyncio.get_running_loop().create_future()

    def note(self, what: str) -> None:
        self.events.append((round(asyncio.get_running_loop().time(), 9), what))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.note("made")

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.note(f"{len(data)} bytes")

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.note(f"lost {type(exc).__name__}")
        self.lost.set_result(exc)


async def pair(port: int = 80) -> tuple[Recorder, Recorder, Any]:
    """Return the protocols of a client and its server, and their connection."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    accepted: list[Recorder] = []

    def accept() -> Recorder:
        accepted.append(Recorder())
        return accepted[0]

    await loop.create_server(accept, "shop", port)
    _, client = await loop.create_connection(Recorder, "shop", port)
    await loop.wait_all_blocked()
    return client, accepted[0], loop.network.connections[-1]


@pytest.mark.runner("virtual", link=Link(latency_s=0.05))
async def test_bytes_take_their_latency_and_the_handshake_takes_it_twice() -> None:
    client, server, _ = await pair()
    assert client.events == [(0.1, "made")]
    assert server.events == [(0.05, "made")]
    client.transport.write(b"abc")
    await asyncio.sleep(1)
    assert server.events[1:] == [(0.15, "3 bytes")]


@pytest.mark.runner("virtual", link=Link(bytes_per_s=10_000))
async def test_bandwidth_spreads_bytes_over_time() -> None:
    client, server, _ = await pair()
    for _ in range(10):
        client.transport.write(bytes(1000))
    await asyncio.sleep(60)
    assert server.events[1:] == [(number / 10, "1000 bytes") for number in range(1, 11)]


def test_jitter_is_drawn_from_the_seed_and_reorders_nothing() -> None:
    async def main() -> list[tuple[float, str]]:
        client, server, _ = await pair()
        for number in range(50):
            client.transport.write(bytes([number]))
            await asyncio.sleep(0.001)
        await asyncio.sleep(1)
        assert server.received == bytes(range(50))
        return server.events

    link = Link(latency_s=0.01, jitter_s=0.02)
    assert run(main, seed=1, link=link) == run(main, seed=1, link=link)
    assert run(main, seed=1, link=link) != run(main, seed=2, link=link)


@pytest.mark.runner("virtual", seed=1, link=Link(segment_bytes=100))
async def test_segments_tear_messages_apart_and_lose_nothing() -> None:
    client, server, _ = await pair()
    data = bytes(range(256)) * 40
    client.transport.writelines([data[:5000], data[5000:]])
    await asyncio.sleep(1)
    assert server.received == data
    sizes = [int(what.split()[0]) for _, what in server.events if "bytes" in what]
    assert max(sizes) <= 100 and len(set(sizes)) > 5


@pytest.mark.runner("virtual", link=Link(client_reads=False, buffer_bytes=10_000))
async def test_a_client_that_never_reads_pauses_the_writer_and_costs_what_the_buffer_holds() -> None:
    client, server, connection = await pair()
    while server.events[-1][1] != "pause":
        server.transport.write(bytes(1000))
    await asyncio.sleep(3600)
    assert server.events[-1][1] == "pause"
    assert connection.sent_bytes == 10_000
    assert server.transport.get_write_buffer_size() > 65536
    assert client.received == b""
    server.transport.abort()
    await server.lost


async def test_a_reset_ends_both_sides_with_an_error() -> None:
    client, server, connection = await pair()
    server.transport.pause_reading()
    connection.reset()
    for end in (client, server):
        assert isinstance(await end.lost, ConnectionResetError)
    client.transport.write(b"into nothing")
    assert asyncio.get_running_loop().network.connections == []  # type: ignore[attr-defined]


@pytest.mark.runner("virtual", link=Link(reset_after_bytes=5000))
async def test_a_reset_comes_after_so_many_bytes() -> None:
    client, server, _ = await pair()
    for _ in range(10):
        client.transport.write(bytes(1000))
        await asyncio.sleep(0.01)
    assert isinstance(client.lost.result(), ConnectionResetError)
    assert isinstance(server.lost.result(), ConnectionResetError)
    assert 4000 <= len(server.received) <= 5000


async def test_a_cut_connection_is_silent_and_a_mended_one_goes_on() -> None:
    client, server, connection = await pair()
    connection.cut()
    client.transport.write(b"abc")
    await asyncio.sleep(60)
    assert server.received == b""
    connection.mend()
    await asyncio.sleep(1)
    assert server.received == b"abc"


def test_a_half_open_connection_is_never_told_and_a_wait_for_it_is_a_deadlock() -> None:
    async def main() -> None:
        client, server, connection = await pair()
        connection.half_open()
        await client.lost
        await asyncio.sleep(3600)
        assert not server.lost.done()
        await server.lost

    with pytest.raises(Deadlock, match="1 task waits: Task-1"):
        run(main)


def test_closing_sends_what_is_buffered_and_aborting_drops_it() -> None:
    async def main(close: str) -> int:
        client, server, _ = await pair()
        client.transport.write(bytes(100_000))
        getattr(client.transport, close)()
        assert await client.lost is None
        assert await server.lost is None
        return len(server.received)

    link = Link(buffer_bytes=1000, latency_s=0.001)
    assert run(main("close"), link=link) == 100_000
    assert run(main("abort"), link=link) == 1000


async def test_writing_to_an_end_that_has_gone_brings_a_reset() -> None:
    class Keeps(Recorder):
        def eof_received(self) -> bool:
            self.note("eof")
            return True

    loop = asyncio.get_running_loop()
    accepted: list[Keeps] = []
    await loop.create_server(lambda: accepted.append(Keeps()) or accepted[0], "shop", 80)  # type: ignore[func-returns-value]
    transport, client = await loop.create_connection(Recorder, "shop", 80)
    transport.close()
    await client.lost
    await asyncio.sleep(1)
    server = accepted[0]
    assert server.events[-1][1] == "eof"
    server.transport.write(b"hello?")
    assert isinstance(await server.lost, ConnectionResetError)


async def test_unread_bytes_at_closing_reset_the_peer() -> None:
    client, server, _ = await pair()
    server.transport.pause_reading()
    client.transport.write(b"abc")
    await asyncio.sleep(1)
    server.transport.close()
    assert isinstance(await client.lost, ConnectionResetError)


@pytest.mark.runner("virtual", link=Link(latency_s=0.05))
async def test_connecting_to_nobody_refuses_after_a_round_trip_and_a_port_is_taken_once() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(ConnectionRefusedError, match="no server listens"):
        await asyncio.open_connection("shop", 80)
    assert loop.time() == 0.1
    server = await loop.create_server(Recorder, ["shop", "store"], 80)
    with pytest.raises(OSError, match="in use"):
        await loop.create_server(Recorder, "store", 80)
    server.close()
    await loop.create_server(Recorder, "store", 80)
    with pytest.raises(ConnectionRefusedError):
        await loop.create_connection(Recorder, "shop", 80)


async def test_a_port_may_have_a_link_of_its_own() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.network.set_link(Link(latency_s=1), port=80)
    await pair(81)
    assert loop.time() == 0
    await pair(80)
    assert loop.time() == 2


async def test_a_paused_server_leaves_connections_waiting_and_takes_them_later() -> None:
    loop = asyncio.get_running_loop()
    accepted: list[Recorder] = []
    server: Any = await loop.create_server(lambda: accepted.append(Recorder()) or accepted[-1], "shop", 80)  # type: ignore[func-returns-value]
    server.pause_accepting()
    transport, _ = await loop.create_connection(Recorder, "shop", 80)
    transport.write(b"early")
    await asyncio.sleep(1)
    assert not accepted
    server.resume_accepting()
    await asyncio.sleep(1)
    assert accepted[0].received == b"early"
    assert accepted[0].transport.get_extra_info("peername") == transport.get_extra_info("sockname")


async def test_a_server_waits_for_its_connections_before_it_is_closed() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Recorder, "shop", 80)
    transport, client = await loop.create_connection(Recorder, "shop", 80)
    server.close()
    waiting = asyncio.create_task(server.wait_closed())
    await asyncio.sleep(1)
    assert not waiting.done()
    transport.close()
    await waiting


async def test_a_path_is_an_address_too() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    await asyncio.start_unix_server(serve, "/run/shop")
    reader, writer = await asyncio.open_unix_connection("/run/shop")
    writer.write(b"hello\n")
    assert await reader.read() == b"hello\n"
    writer.close()
    await writer.wait_closed()


async def test_a_protocol_with_its_own_buffer_gets_all_bytes() -> None:
    class Borrowing(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(7)
            self.received = b""

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.received += self.buffer[:nbytes]

    loop = asyncio.get_running_loop()
    borrowing = Borrowing()
    await loop.create_server(lambda: borrowing, "shop", 80)
    transport, _ = await loop.create_connection(Recorder, "shop", 80)
    transport.write(bytes(range(100)))
    await asyncio.sleep(1)
    assert borrowing.received == bytes(range(100))


def test_a_protocol_that_raises_loses_its_connection_and_is_reported() -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            raise ValueError(data)

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        told: list[str] = []
        loop.set_exception_handler(lambda _, context: told.append(context["message"]))
        failing = Failing()
        await loop.create_server(lambda: failing, "shop", 80)
        transport, client = await loop.create_connection(Recorder, "shop", 80)
        transport.write(b"abc")
        assert isinstance(await failing.lost, ValueError)
        await client.lost
        return told

    assert run(main) == ["Fatal error: protocol.data_received() call failed."]


@pytest.mark.parametrize("name", ["add_reader", "sock_recv", "subprocess_exec", "add_signal_handler", "start_tls"])
def test_what_needs_the_machine_is_refused_by_name(name: str) -> None:
    loop = VirtualLoop()
    with pytest.raises(NotImplementedError, match=f"VirtualLoop.{name}: "):
        getattr(loop, name)(1, print)
    loop.close()


def test_encrypted_connections_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="leave ssl= out"):
        run(lambda: asyncio.open_connection("shop", 80, ssl=True))


@pytest.mark.parametrize("wrong", [{"latency_s": -1}, {"bytes_per_s": 0}, {"buffer_bytes": 0}, {"segment_bytes": 0}])
def test_a_link_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Link(**wrong)


def test_uvicorns_own_protocol_answers_over_it() -> None:
    uvicorn = pytest.importorskip("uvicorn")
    protocols = pytest.importorskip("uvicorn.protocols.http.h11_impl")
    states = pytest.importorskip("uvicorn.server")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.5)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def main() -> bytes:
        config = uvicorn.Config(app, log_config=None, lifespan="off", http="h11")
        config.load()
        state = states.ServerState()

        def accept() -> Any:
            return protocols.H11Protocol(config=config, server_state=state, app_state={})

        server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 8000)
        reader, writer = await asyncio.open_connection("127.0.0.1", 8000)
        writer.write(b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        assert asyncio.get_running_loop().time() >= 0.6
        return answer

    answer = run(main, seed=1, link=Link(latency_s=0.05, segment_bytes=20))
    assert answer.startswith(b"HTTP/1.1 200 OK") and answer.endswith(b"ok")
