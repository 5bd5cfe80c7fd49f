"""Gathering, for programs that ask for it: a header and its body in one system call, late for nothing, lost by nothing.

The peer is a socket that keeps the bounds of messages: what it receives at once was sent by one system call.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import penstock
from tests.loop.wire import Recorder


class Answering(Recorder):
    """Gathers, and does `answer(transport)` for whatever comes in."""

    def __init__(self, answer: Callable[[Any], object]) -> None:
        super().__init__()
        self.answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert penstock.gather_writes(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.answer(self.transport)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    peer.setblocking(False)
    yield ours, peer
    peer.close()


@pytest.fixture
def asked(loop, run, pair):
    """`asked(answer)`: the messages that the peer gets when it has sent a request to a protocol that answers so."""

    def ask(answer: Callable[[Any], object], requests: int = 1) -> list[bytes]:
        async def main() -> list[bytes]:
            protocol = Answering(answer)
            loop._make_socket_transport(pair[0], protocol)
            for number in range(requests):
                pair[1].send(b"request")
                await protocol.until_bytes(7 * (number + 1))
            await asyncio.sleep(0)
            found = messages(pair[1])
            protocol.transport.abort()
            return found

        return run(main())

    return ask


def messages(peer: socket.socket) -> list[bytes]:
    """Everything that is there now."""
    found = []
    while True:
        try:
            found.append(peer.recv(1 << 20))
        except BlockingIOError:
            return found
        if not found[-1]:
            return found[:-1]


def write_each(*parts: bytes) -> Callable[[Any], None]:
    def write(transport: Any) -> None:
        for part in parts:
            transport.write(part)

    return write


def test_a_header_and_its_body_are_one_system_call(asked) -> None:
    assert asked(write_each(b"header, ", b"body"), requests=3) == [b"header, body"] * 3


def test_a_header_alone_leaves_when_its_callback_ends(asked) -> None:
    assert asked(write_each(b"header")) == [b"header"]


def test_only_the_first_write_waits(asked) -> None:
    assert asked(write_each(b"1", b"2", b"3", b"4")) == [b"12", b"3", b"4"]


def test_an_empty_body_ends_the_wait(asked, pair) -> None:
    seen = []

    def answer(transport: Any) -> None:
        transport.write(b"header")
        seen.extend(messages(pair[1]))
        transport.write(b"")
        seen.extend(messages(pair[1]))

    assert asked(answer) == []
    assert seen == [b"header"]


def test_a_large_first_write_leaves_at_once(asked) -> None:
    assert asked(write_each(bytes(20_000), b"more")) == [bytes(20_000), b"more"]


def test_several_buffers_at_once_are_one_system_call_with_the_header(asked) -> None:
    def answer(transport: Any) -> None:
        transport.write(b"header, ")
        transport.writelines([b"b", b"o", b"dy"])

    assert asked(answer) == [b"header, body"]


def test_what_waits_leaves_before_the_next_callback_runs(asked, pair, loop) -> None:
    seen = []

    def answer(transport: Any) -> None:
        # in the same turn as what the transport runs in
        loop.call_soon(lambda: seen.append(messages(pair[1])))
        transport.write(b"header")

    asked(answer)
    assert seen == [[b"header"]]


@pytest.mark.parametrize(
    "end",
    [
        lambda transport: transport.abort(),
        lambda transport: transport.close(),
        lambda transport: transport.write_eof(),
        lambda transport: transport.get_extra_info("socket").shutdown(socket.SHUT_WR),
        lambda transport: transport.set_write_buffer_limits(0),
        lambda transport: transport._make_empty_waiter(),
        lambda transport: transport._fatal_error(ConnectionError()),
        lambda transport: 1 / 0,
    ],
    ids=["abort", "close", "write_eof", "shutdown", "limits", "sendfile", "fatal error", "exception"],
)
def test_nothing_that_follows_overtakes_or_loses_what_waits(asked, loop, end) -> None:
    loop.set_exception_handler(lambda loop, context: None)

    def answer(transport: Any) -> None:
        transport.write(b"header")
        end(transport)

    assert asked(answer)[:1] == [b"header"]


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_an_exception_out_of_the_loop_leaves_nothing_waiting(loop, pair, exception) -> None:
    def answer(transport: Any) -> None:
        transport.write(b"header")
        raise exception

    protocol = Answering(answer)
    loop._make_socket_transport(pair[0], protocol)
    pair[1].send(b"request")
    with pytest.raises(exception):
        loop.run_forever()
    assert messages(pair[1]) == [b"header"]
    protocol.transport.abort()
    loop.run_until_complete(asyncio.sleep(0))


def test_outside_of_the_loop_nothing_waits(loop, run, pair) -> None:
    protocol = Answering(lambda transport: None)
    loop._make_socket_transport(pair[0], protocol)
    pair[1].send(b"request")
    run(protocol.until_bytes(7))
    protocol.transport.write(b"header")
    assert messages(pair[1]) == [b"header"]
    protocol.transport.abort()
    run(asyncio.sleep(0))


async def test_a_full_kernel_keeps_header_and_body_in_order(loop) -> None:
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    peer.setblocking(False)
    body = os.urandom(3_000_000)
    protocol = Answering(write_each(b"header", body, b"end"))
    loop._make_socket_transport(ours, protocol)
    peer.send(b"request")
    received = b""
    while len(received) < len(body) + 9:
        received += await loop.sock_recv(peer, 1 << 18)
    assert received == b"header" + body + b"end"
    protocol.transport.abort()
    peer.close()


def test_another_protocol_asks_anew(asked, pair) -> None:
    def answer(transport: Any) -> None:
        transport.set_protocol(transport.get_protocol())
        transport.write(b"1")
        transport.write(b"2")

    assert asked(answer) == [b"1", b"2"]


async def test_two_transports_written_in_one_callback_both_gather(loop, pair) -> None:
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    peer.setblocking(False)
    other = Answering(lambda transport: None)
    loop._make_socket_transport(ours, other)
    peer.send(b"request")
    await other.until_bytes(7)

    def answer(transport: Any) -> None:
        for part in (b"1", b"2"):
            transport.write(part)
            other.transport.write(part)

    protocol = Answering(answer)
    loop._make_socket_transport(pair[0], protocol)
    pair[1].send(b"request")
    await protocol.until_bytes(7)
    await asyncio.sleep(0)
    assert (messages(pair[1]), messages(peer)) == ([b"12"], [b"12"])
    for each in (protocol, other):
        each.transport.abort()
    peer.close()


def test_on_asyncios_own_loop_nothing_is_changed() -> None:
    async def main() -> bytes:
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
        assert not penstock.gather_writes(transport)
        transport.write(b"1")
        transport.abort()
        with peer:
            return peer.recv(9)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(main()) == b"1"


def test_tls_gathers_before_it_encrypts(loop, run, contexts) -> None:
    chunks = []

    def answer(transport: Any) -> None:
        for part in (b"header, ", b"body"):
            transport.write(part)

    async def main() -> bytes:
        servants = [Answering(answer)]
        server = await loop.create_server(lambda: servants[0], "127.0.0.1", 0, ssl=contexts[0])
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address, ssl=contexts[1], server_hostname="localhost")
        found = b""
        for _ in range(2):
            writer.write(b"request")
            chunks.append(await reader.read(100))
            found = chunks[-1]
        writer.close()
        await writer.wait_closed()
        await servants[0].until_event("lost")
        server.close()
        await server.wait_closed()
        return found

    assert run(main()) == b"header, body"
    assert chunks == [b"header, body"] * 2
