"""Tests of the bounds over TLS: the buffer of asyncio's TLS protocol counts like the transport's own."""

import array
import asyncio
import contextlib
import fcntl
import socket

import pytest

from penstock._core.limits.budget import shared_budget
from penstock.errors import SlowPeer
from penstock.pressure import expect_request, memory_statistics, set_receive_deadline
from tests.unit.pressure.memory.peers import KERNEL_BYTES, Accepted

BUDGET_BYTES = 3_000_000
# More than the kernel's buffer and the native transport's watermark.
FILL_BYTES = 200_000


@contextlib.asynccontextmanager
async def secured(contexts, *, high_bytes: int | None = None):
    """Yield `connect()` of a TLS server, which returns the server-side protocol and a client's streams."""
    sides: asyncio.Queue[Accepted] = asyncio.Queue()
    writers = []

    def accept() -> Accepted:
        return Accepted(on_made=sides.put_nowait, high_bytes=high_bytes)

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
    server = await asyncio.get_running_loop().create_server(accept, sock=listener, ssl=contexts[0])

    async def connect():
        client = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * KERNEL_BYTES)
        await asyncio.get_running_loop().sock_connect(client, listener.getsockname())
        reader, writer = await asyncio.open_connection(
            sock=client, ssl=contexts[1], server_hostname="localhost", limit=1000
        )
        writers.append(writer)
        return await sides.get(), reader, writer

    try:
        yield connect
    finally:
        for writer in writers:
            writer.transport.abort()
        server.close()
        await asyncio.sleep(0.05)


def below(side: Accepted):
    """Return the native transport under the TLS one."""
    return side.transport._ssl_protocol._transport


def overfill(side: Accepted, size_bytes: int) -> None:
    """Fill the native transport past its watermark, then the TLS protocol with `size_bytes`."""
    side.transport.write(bytes(FILL_BYTES))
    side.transport.write(bytes(size_bytes))


@pytest.mark.runner(buffer_bytes=BUDGET_BYTES)
async def test_bytes_that_wait_above_the_native_transport_count_and_are_given_back(contexts):
    async with secured(contexts, high_bytes=1 << 30) as connect:
        side, _, _ = await connect()
        overfill(side, 1_400_000)
        native = below(side)
        above_bytes = side.transport.get_write_buffer_size()
        assert above_bytes > 500_000
        assert shared_budget().total == native.get_write_buffer_size() + above_bytes
        assert side.events == ["made"]
        side.transport.abort()
        await side.until_event("lost")
        assert shared_budget().total == 0


@pytest.mark.runner(buffer_bytes=BUDGET_BYTES)
async def test_the_program_is_paused_through_tls_and_resumed_when_there_is_room(contexts):
    async with secured(contexts, high_bytes=1 << 30) as connect:
        (heavy, reader, _), (light, _, _) = await connect(), await connect()
        overfill(heavy, 2_000_000)
        overfill(light, 500_000)
        assert (heavy.is_paused, light.is_paused) == (False, False)
        light.transport.write(bytes(700_000))
        await heavy.until_event("pause")
        assert not light.is_paused
        assert memory_statistics().paused == 1
        await reader.readexactly(FILL_BYTES + 2_000_000)
        await heavy.until_event("resume")
        assert memory_statistics().paused == 0
        assert light.events == ["made"]
        # the transport's own watermark applies again
        assert below(heavy)._protocol._outgoing_high_water == 1 << 30


@pytest.mark.parametrize("note_bytes", [10, 40_000])
@pytest.mark.runner(buffer_bytes=300_000)
async def test_a_write_within_the_budgets_pause_comes_behind_the_write_that_led_to_it(contexts, note_bytes):
    async with secured(contexts, high_bytes=1 << 30) as connect:
        side, reader, _ = await connect()
        side.pause_writing = lambda: side.transport.write(b"n" * note_bytes)
        below(side).set_write_buffer_limits(1 << 30)
        side.transport.write(bytes(1_000_000))
        assert await reader.readexactly(1_000_000 + note_bytes) == bytes(1_000_000) + b"n" * note_bytes


@pytest.mark.runner(slow_reader_bytes=1_000_000, slow_reader_s=0.3)
async def test_a_slow_reader_is_seen_by_what_tls_keeps(contexts):
    async with secured(contexts, high_bytes=1 << 30) as connect:
        side, _, _ = await connect()
        overfill(side, 3_000_000)
        assert below(side).get_write_buffer_size() < 1_000_000
        await side.until_event("lost")
        assert isinstance(side.error, SlowPeer)
        assert side.error.reason == "slow_reader"
        assert side.error.size_bytes > 1_000_000


@pytest.mark.runner(receive_s=0.3, idle_s=0.6)
async def test_a_slow_request_through_tls_is_disconnected_and_an_idle_connection_is_closed(contexts):
    async with secured(contexts) as connect:
        (slow, _, writer), (idle, _, _) = await connect(), await connect()
        while "lost" not in slow.events:
            writer.write(b"x")
            await asyncio.sleep(0.15)
        assert isinstance(slow.error, SlowPeer)
        assert slow.error.reason == "receive"
        await idle.until_event("lost")
        assert idle.error is None


@pytest.mark.runner(idle_s=0.2)
async def test_an_integration_reaches_the_native_transport_through_tls(contexts):
    async with secured(contexts) as connect:
        side, _, _ = await connect()
        assert set_receive_deadline(side.transport, None)
        await asyncio.sleep(0.5)
        assert "lost" not in side.events
        assert expect_request(side.transport)
        await side.until_event("lost")


@pytest.mark.runner(receive_s=0.3)
async def test_a_protocol_switched_above_tls_sends_no_more_requests(contexts):
    async with secured(contexts) as connect:
        side, _, writer = await connect()
        upgraded = Accepted()
        upgraded.note("made")
        side.transport.set_protocol(upgraded)
        for _ in range(8):
            writer.write(b"m")
            await asyncio.sleep(0.15)
        await upgraded.until_bytes(8)
        assert "lost" not in upgraded.events


class Pouring(asyncio.Protocol):
    """A protocol that writes without end while it is not paused."""

    def __init__(self, made: asyncio.Queue["Pouring"]) -> None:
        self.made, self.may_write = made, asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        self.may_write.set()
        self.pouring = asyncio.ensure_future(self.pour())
        self.made.put_nowait(self)

    def pause_writing(self):
        self.may_write.clear()

    def resume_writing(self):
        self.may_write.set()

    async def pour(self):
        while True:
            await self.may_write.wait()
            self.transport.write(bytes(CHUNK_BYTES))
            await asyncio.sleep(0)

    def connection_lost(self, exc):
        self.pouring.cancel()


CHUNK_BYTES = 64 * 1024
# The kernel takes a segment of at most 64 KiB while less than 128 KiB is unsent. Unacknowledged bytes come on top; the
# peer's window and the machine's load bound them.
UNSENT_BYTES = (128 + 64) * 1024
SIOCOUTQNSD = 0x894B


@pytest.mark.runner(buffer_bytes=BUDGET_BYTES)
async def test_a_hundred_tls_clients_that_never_read_cost_kernel_and_process_no_more_than_their_bounds(contexts):
    count = 100

    made: asyncio.Queue[Pouring] = asyncio.Queue()
    server = await asyncio.get_running_loop().create_server(
        lambda: Pouring(made), "127.0.0.1", 0, ssl=contexts[0], backlog=count
    )
    clients, sides = [], []
    for _ in range(count):
        _, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=contexts[1], server_hostname="localhost", limit=1000
        )
        clients.append(writer)
        sides.append(await made.get())
    while any(side.may_write.is_set() for side in sides):
        await asyncio.sleep(0.01)
    assert shared_budget().most <= BUDGET_BYTES + count * CHUNK_BYTES
    kept = [unsent_bytes(side.transport.get_extra_info("socket")) for side in sides]
    assert max(kept) <= UNSENT_BYTES
    server.close()
    for transport in [each.transport for each in (*clients, *sides)]:
        transport.abort()
    while any(not side.pouring.done() for side in sides):
        await asyncio.sleep(0.01)


def unsent_bytes(sock) -> int:
    found = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), SIOCOUTQNSD, found)
    return found[0]
