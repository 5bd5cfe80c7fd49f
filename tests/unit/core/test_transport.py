"""Native transports: the write queue in order, addresses as the socket module's, descriptors used anew."""

import asyncio
import gc
import os
import socket
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock._core.net.stream import Stream
from penstock.loop import EventLoop
from tests.loop.wire import BufferedRecorder, Recorder

SIZES = st.lists(st.lists(st.integers(0, 9000), min_size=1, max_size=12), max_size=12)


@settings(derandomize=True, deadline=None, max_examples=40, database=None)
@given(SIZES)
def test_the_peer_reads_everything_in_order(batches: list[list[int]]) -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
    chunks = [[os.urandom(size) for size in sizes] for sizes in batches]

    async def exchange() -> bytes:
        reader, peer = await asyncio.open_connection(sock=theirs)
        _, writer = await asyncio.open_connection(sock=ours)
        for batch in chunks:
            writer.write(batch[0]) if len(batch) == 1 else writer.writelines(batch)
        writer.close()
        received = await reader.read()
        peer.close()
        await peer.wait_closed()
        return received

    loop = EventLoop()
    try:
        assert loop.run_until_complete(exchange()) == b"".join(chunk for batch in chunks for chunk in batch)
    finally:
        loop.close()


@pytest.mark.parametrize("kind", ["ipv4", "ipv6", "path", "abstract", "unnamed"])
def test_addresses_are_the_socket_modules(loop, kind: str, tmp_path: Path) -> None:
    if kind == "unnamed":
        client, accepted = socket.socketpair()
    else:
        family = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}.get(kind, socket.AF_UNIX)
        where = {"ipv4": ("127.0.0.1", 0), "ipv6": ("::1", 0), "path": str(tmp_path / "s")}
        with socket.socket(family) as listener:
            try:
                listener.bind(where.get(kind, f"\0penstock-{os.getpid()}"))
            except OSError:
                pytest.skip(f"no {kind} on this machine")
            listener.listen()
            client = socket.create_connection(listener.getsockname()[:2]) if kind[:2] == "ip" else socket.socket(family)
            if kind[:2] != "ip":
                client.connect(listener.getsockname())
            accepted, _ = listener.accept()
    client.setblocking(False)
    expected = client.getsockname(), client.getpeername()

    async def told() -> tuple[object, object]:
        _, writer = await asyncio.open_connection(sock=client)
        found = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        writer.close()
        await writer.wait_closed()
        return found

    assert loop.run_until_complete(told()) == expected
    accepted.close()


def test_a_descriptor_closed_behind_our_back_and_used_anew_gets_its_own_watch(loop) -> None:
    seen = []
    first, peer = socket.socketpair()
    number = first.fileno()
    loop.add_reader(number, seen.append, "stale")
    first.close()
    second, other = socket.socketpair()
    os.dup2(second.fileno(), number)
    loop.add_reader(number, lambda: (seen.append("fresh"), loop.stop()))
    other.send(b"x")
    loop.call_later(5, loop.stop)
    loop.run_forever()
    assert seen == ["fresh"]
    loop.remove_reader(number)
    if second.fileno() != number:
        os.close(number)
    for sock in (second, other, peer):
        sock.close()


def registered() -> list[str]:
    """Return the entries of the process's epoll instances, duplicates of closed descriptors too."""
    found: list[str] = []
    for entry in Path("/proc/self/fd").iterdir():
        if entry.is_symlink() and os.readlink(entry) == "anon_inode:[eventpoll]":
            lines = Path(f"/proc/self/fdinfo/{entry.name}").read_text().splitlines()
            found += [line for line in lines if line.startswith("tfd:")]
    return sorted(found)


async def test_a_closed_connection_is_watched_no_more_although_a_duplicate_lives_on(loop) -> None:
    before = registered()
    duplicates = []

    def hand_out(writer: asyncio.StreamWriter) -> None:
        duplicates.append(os.dup(writer.get_extra_info("socket").fileno()))

    def fork(writer: asyncio.StreamWriter) -> None:
        duplicates.append(child_that_waits())

    for share in (hand_out, fork):
        done = loop.create_future()

        def serve(reader, writer, share=share, done=done) -> None:
            share(writer)
            writer.transport.abort()
            done.set_result(None)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        listening = registered()
        with socket.create_connection(server.sockets[0].getsockname()):
            await done
            await asyncio.sleep(0)
            assert registered() == listening, share.__name__
        server.close()
        await server.wait_closed()
    assert registered() == before
    for duplicate in duplicates:
        os.close(duplicate)
    os.wait()


def child_that_waits() -> int:
    """A forked child that ends when the descriptor that is returned is closed."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking beside threads: the child calls the kernel alone
        child = os.fork()
    if child == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    os.close(read_end)
    return write_end


async def test_a_descriptor_that_a_sharer_has_made_blocking_does_not_block_the_loop(loop) -> None:
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=ours)
    os.set_blocking(ours.fileno(), True)
    size = 5_000_000
    writer.write(bytes(size))
    peer.send(b"hello")
    assert await reader.readexactly(5) == b"hello"
    peer.setblocking(False)
    while size:
        size -= len(await loop.sock_recv(peer, 1 << 18))
    writer.transport.abort()
    peer.close()


async def test_a_protocol_switched_while_it_lends_a_buffer_loses_nothing(loop) -> None:
    class Lending(asyncio.BufferedProtocol):
        def __init__(self, successor: asyncio.BaseProtocol) -> None:
            self.successor = successor

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def get_buffer(self, sizehint: int) -> bytearray:
            self.transport.set_protocol(self.successor)
            return bytearray(100)

    for successor in (Recorder(), BufferedRecorder()):
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        transport, _ = await loop.create_connection(lambda successor=successor: Lending(successor), sock=ours)
        told = successor if isinstance(successor, Recorder) else successor.inner
        told.connection_made(transport)
        peer.send(b"hello")
        await told.until_bytes(5)
        assert successor.data == b"hello"
        transport.abort()
        peer.close()


@pytest.mark.parametrize("protocol", [0, 262], ids=["tcp", "mptcp"])
async def test_every_byte_arrives_over_tcp_and_over_what_may_read_less_than_there_is(loop, protocol) -> None:
    try:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    except OSError as error:
        pytest.skip(str(error))
    listener.bind(("127.0.0.1", 0))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, sock=listener)
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    client.connect(listener.getsockname())
    client.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=client)
    data = os.urandom(1_000_000)
    writer.write(data)
    writer.write_eof()
    assert await reader.read() == data
    writer.close()
    server.close()


# Each allocation of a read fails in its turn: the connection goes on with every byte, or ends with the error.
STARVED = """
import asyncio, contextlib, logging, socket
import _testcapi
from penstock._core.net.stream import Stream
from penstock.loop import EventLoop
from tests.loop.wire import BufferedRecorder, Recorder

logging.disable(logging.CRITICAL)

class Noting(asyncio.Protocol):
    def __init__(self):
        self.data, self.error = b"", None
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.data += data
    def connection_lost(self, error):
        self.error = error

async def main():
    loop = asyncio.get_running_loop()
    for failing in range(12):
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        transport, noting = await loop.create_connection(Noting, sock=ours)
        for size in (1000, 40000, 1000):
            with contextlib.suppress(BrokenPipeError):
                peer.sendall(b"x" * size)
            if size == 40000:
                # the read follows in the next turn, and nothing else
                loop.call_soon(_testcapi.set_nomemory, failing, failing + 1)
                loop.call_later(0.002, _testcapi.remove_mem_hooks)
            await asyncio.sleep(0.004)
        whole = noting.data == b"x" * 42000 and noting.error is None
        ended = isinstance(noting.error, MemoryError) and len(noting.data) in (1000, 41000)
        assert whole or ended, (failing, len(noting.data), noting.error)
        transport.abort()
        peer.close()
        print("ended" if ended else "whole")

loop = EventLoop()
loop.set_exception_handler(lambda loop, context: None)
try:
    loop.run_until_complete(main())
finally:
    _testcapi.remove_mem_hooks()
"""


def test_a_failed_allocation_ends_a_connection_or_loses_nothing_of_it() -> None:
    pytest.importorskip("_testcapi")
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", STARVED], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "ended" in ran.stdout


async def test_empty_chunks_of_writelines_hold_nothing_up():
    """gh-155888: an empty chunk stood at the head of a queue for ever."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
    reader, peer = await asyncio.open_connection(sock=theirs)
    _, writer = await asyncio.open_connection(sock=ours)
    chunks = [b"", b"a" * 100_000, b"", b"", b"b", b""]
    writer.writelines(chunks)
    writer.writelines([b"", b""])
    writer.writelines([])
    writer.writelines(iter([b"", b"c"]))
    reading = asyncio.ensure_future(reader.readexactly(100_002))
    await writer.drain()
    assert await reading == b"".join(chunks) + b"c"
    assert writer.transport.get_write_buffer_size() == 0
    writer.close()
    peer.close()


def test_a_stream_defines_the_methods_that_its_bases_have() -> None:
    # CPython calls a C method directly only where the type of the object itself defines it
    for name in ("write", "writelines", "is_closing", "get_extra_info", "get_write_buffer_size"):
        assert vars(Stream)[name].__objclass__ is Stream


@pytest.mark.parametrize("asks", [["peername"], ["sockname"], ["sockname", "peername"], ["sslcontext"]])
async def test_the_names_of_an_accepted_connection_outlive_it(loop, asks) -> None:
    accepted: asyncio.Future[Recorder] = loop.create_future()

    class Accepted(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            accepted.set_result(self)

    server = await loop.create_server(Accepted, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        protocol = await accepted
        found = {name: protocol.transport.get_extra_info(name) for name in asks}
        names = {"sockname": client.getpeername(), "peername": client.getsockname()}
    await protocol.until_event("lost")
    server.close()
    assert found == {name: names.get(name) for name in asks}
    assert {name: protocol.transport.get_extra_info(name) for name in names} == names
    assert {name: protocol.transport._extra[name] for name in names} == names


def test_an_idle_connection_takes_at_most_900_bytes() -> None:
    loop, count = EventLoop(), 400
    clients = []
    made = []

    class Idle(asyncio.Protocol):
        __slots__ = ()

        def connection_made(self, transport):
            made.append(transport)

    async def accepted(server, total) -> None:
        clients.extend(socket.create_connection(server.sockets[0].getsockname()) for _ in range(total - len(made)))
        while len(made) < total:
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # `start`, behind connection_made

    async def grown_bytes() -> int:
        server = await loop.create_server(Idle, "127.0.0.1", 0, backlog=count)
        await accepted(server, 10)
        gc.collect()
        tracemalloc.start()
        begun_bytes, _ = tracemalloc.get_traced_memory()
        await accepted(server, 10 + count)
        gc.collect()
        end_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        clients_bytes = count * (sys.getsizeof(clients[0]) + 64)
        for transport in made:
            transport.abort()
        server.close()
        await asyncio.sleep(0)
        return end_bytes - begun_bytes - clients_bytes

    try:
        assert loop.run_until_complete(grown_bytes()) / count < 900
    finally:
        for client in clients:
            client.close()
        loop.close()
