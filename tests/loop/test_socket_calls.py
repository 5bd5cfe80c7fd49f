"""The loop's sock_* calls and name look-ups."""

import asyncio
import socket

import pytest

from .wire import pattern, read_exactly, settle, socket_pair


@pytest.fixture
def pair(family):
    one, other = socket_pair(family)
    yield one, other
    one.close()
    other.close()


async def test_sock_recv_waits_for_data_and_sees_the_end(loop, pair):
    one, other = pair

    receiving = asyncio.ensure_future(loop.sock_recv(one, 100))
    await settle()
    assert not receiving.done()
    other.send(b"data")
    assert await receiving == b"data"
    other.shutdown(socket.SHUT_WR)
    assert await loop.sock_recv(one, 100) == b""


async def test_sock_recv_into_fills_the_buffer(loop, pair):
    one, other = pair

    buffer = bytearray(10)
    receiving = asyncio.ensure_future(loop.sock_recv_into(one, buffer))
    await settle()
    other.send(b"data")
    assert await receiving == 4
    assert buffer[:4] == b"data"


async def test_sock_sendall_sends_more_than_the_socket_holds(loop, pair):
    one, other = pair

    got, _ = await asyncio.gather(read_exactly(other, 5_000_000), loop.sock_sendall(one, pattern(5_000_000)))
    assert got == pattern(5_000_000)


async def test_a_cancelled_sock_recv_gives_the_socket_back(loop, pair):
    one, other = pair

    receiving = asyncio.ensure_future(loop.sock_recv(one, 100))
    await settle()
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    await settle()
    assert loop.remove_reader(one) is False
    other.send(b"data")
    assert await loop.sock_recv(one, 100) == b"data"


async def test_sock_connect_and_sock_accept_meet(loop):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        client.setblocking(False)
        (accepted, address), _ = await asyncio.gather(
            loop.sock_accept(listener), loop.sock_connect(client, listener.getsockname())
        )
        with accepted:
            assert address == client.getsockname()
            await loop.sock_sendall(client, b"hello")
            assert await loop.sock_recv(accepted, 5) == b"hello"


def test_sock_connect_to_nobody_is_refused(loop, run):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

    async def main():
        with socket.socket() as client:
            client.setblocking(False)
            with pytest.raises(ConnectionRefusedError):
                await loop.sock_connect(client, address)

    run(main())


async def test_sock_sendto_and_sock_recvfrom_carry_datagrams(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
        for sock in (one, other):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        receiving = asyncio.ensure_future(loop.sock_recvfrom(other, 100))
        await settle()
        await loop.sock_sendto(one, b"hello", other.getsockname())
        assert await receiving == (b"hello", one.getsockname())


async def test_sock_sendfile_sends_a_file(loop, pair, tmp_path):
    one, other = pair
    path = tmp_path / "file"
    path.write_bytes(pattern(2_000_000))

    with path.open("rb") as file:
        got, sent = await asyncio.gather(read_exactly(other, 2_000_000), loop.sock_sendfile(one, file))
        assert sent == 2_000_000 and got == pattern(2_000_000)


async def test_a_blocking_socket_is_refused_in_debug_mode(loop):
    loop.set_debug(True)

    with socket.socket() as blocking, pytest.raises(ValueError, match="non-blocking"):
        await loop.sock_recv(blocking, 1)


async def test_many_sockets_are_served_at_once(loop):
    pairs = [socket_pair("unix") for _ in range(100)]
    receiving = [asyncio.ensure_future(loop.sock_recv(one, 10)) for one, _ in pairs]
    await settle()
    for number, (_, other) in enumerate(pairs):
        other.send(b"%d" % number)
    assert await asyncio.gather(*receiving) == [b"%d" % number for number in range(100)]
    for each in pairs:
        for sock in each:
            sock.close()


async def test_getaddrinfo_and_getnameinfo_answer(loop):
    found = await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert found[0][4] == ("127.0.0.1", 80)
    host, port = await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    assert (host, port) == ("127.0.0.1", "80")


async def test_a_name_that_does_not_resolve_raises(loop):
    with pytest.raises(socket.gaierror):
        await loop.getaddrinfo("name.invalid", 80, flags=socket.AI_NUMERICHOST)
