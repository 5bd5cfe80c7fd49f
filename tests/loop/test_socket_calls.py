"""The loop's sock_* calls and name look-ups."""

import asyncio
import errno
import gc
import inspect
import socket
import struct

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


async def test_a_socket_call_is_a_coroutine(loop, pair):
    one, other = pair
    calls = [
        loop.sock_recv(one, 1),
        loop.sock_recv_into(one, bytearray(1)),
        loop.sock_recvfrom(one, 1),
        loop.sock_recvfrom_into(one, bytearray(1)),
        loop.sock_sendall(one, b""),
        loop.sock_sendto(one, b"", None),
        loop.sock_accept(one),
        loop.sock_connect(one, None),
    ]
    for call in calls:
        assert inspect.iscoroutine(call) and inspect.iscoroutinefunction(getattr(loop, call.__name__))
        call.close()
    other.send(b"x")
    assert await loop.sock_recv(one, 1) == b"x"


async def test_the_second_sock_recv_on_a_socket_replaces_the_first(loop, pair):
    one, other = pair
    first = asyncio.ensure_future(loop.sock_recv(one, 10))
    await settle()
    second = asyncio.ensure_future(loop.sock_recv(one, 10))
    await settle()
    other.send(b"data")
    assert await second == b"data"
    assert not first.done()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await settle()
    other.send(b"more")
    assert await loop.sock_recv(one, 10) == b"more"


async def test_a_reader_that_is_added_replaces_a_sock_recv(loop, pair):
    one, other = pair
    receiving = asyncio.ensure_future(loop.sock_recv(one, 10))
    await settle()
    called = asyncio.Event()
    loop.add_reader(one, called.set)
    other.send(b"data")
    await called.wait()
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    await settle()
    assert loop.remove_reader(one) is True
    assert await loop.sock_recv(one, 10) == b"data"


async def test_a_sock_recv_replaces_a_reader_and_a_writer_stays(loop, pair):
    one, other = pair
    calls = []
    loop.add_reader(one, calls.append, "read")
    receiving = asyncio.ensure_future(loop.sock_recv(one, 10))
    await settle()
    written = asyncio.Event()
    loop.add_writer(one, written.set)
    await written.wait()
    other.send(b"data")
    assert await receiving == b"data"
    assert calls == []
    await settle()
    written.clear()
    await written.wait()
    assert loop.remove_writer(one) is True
    assert loop.remove_reader(one) is False


async def test_remove_reader_ends_the_wait_of_a_sock_recv(loop, pair):
    one, other = pair
    receiving = asyncio.ensure_future(loop.sock_recv(one, 10))
    await settle()
    assert loop.remove_reader(one) is True
    other.send(b"data")
    await settle()
    assert not receiving.done()
    assert await loop.sock_recv(one, 10) == b"data"
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)


async def test_a_number_that_comes_again_is_another_socket(loop, family):
    for _ in range(5):
        one, other = socket_pair(family)
        receiving = asyncio.ensure_future(loop.sock_recv(one, 10))
        await settle()
        other.send(b"x")
        assert await receiving == b"x"
        one.close()
        other.close()


async def test_a_number_of_a_socket_closed_in_a_wait_comes_again(loop, family):
    one, other = socket_pair(family)
    number = one.fileno()
    receiving = asyncio.ensure_future(loop.sock_recv(one, 10))
    await settle()
    loop.remove_reader(one)
    one.close()
    again, peer = socket_pair(family)
    if again.fileno() != number:
        again, peer = peer, again
    second = asyncio.ensure_future(loop.sock_recv(again, 10))
    await settle()
    peer.send(b"data")
    assert await second == b"data"
    assert not receiving.done()
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    for sock in (other, again, peer):
        sock.close()


async def test_two_socket_objects_share_a_descriptor(loop, pair):
    one, other = pair
    twin = socket.socket(fileno=one.fileno())
    twin.setblocking(False)
    for receiver in (one, twin, one, twin):
        receiving = asyncio.ensure_future(loop.sock_recv(receiver, 10))
        await settle()
        other.send(b"x")
        assert await receiving == b"x"
    twin.detach()


async def test_one_object_reads_and_another_writes_the_same_descriptor(loop, pair):
    one, other = pair
    twin = socket.socket(fileno=one.fileno())
    twin.setblocking(False)
    receiving = asyncio.ensure_future(loop.sock_recv(one, 10))
    await settle()
    sending = asyncio.ensure_future(loop.sock_sendall(twin, pattern(3_000_000)))
    await settle()
    other.send(b"data")
    assert await receiving == b"data"
    assert await read_exactly(other, 3_000_000) == pattern(3_000_000)
    await sending
    twin.detach()


async def test_a_duplicate_is_waited_for_beside_its_socket(loop, pair):
    one, other = pair
    twin = one.dup()
    first, second = (asyncio.ensure_future(loop.sock_recv(sock, 1)) for sock in (one, twin))
    await settle()
    other.send(b"ab")
    assert sorted(await asyncio.gather(first, second)) == [b"a", b"b"]
    twin.close()


async def test_reading_and_writing_wait_at_once(loop, pair):
    one, other = pair
    receiving = asyncio.ensure_future(loop.sock_recv(one, 10))
    sending = asyncio.ensure_future(loop.sock_sendall(one, pattern(3_000_000)))
    await settle()
    assert await read_exactly(other, 3_000_000) == pattern(3_000_000)
    await sending
    other.send(b"data")
    assert await receiving == b"data"


async def test_a_buffer_that_is_sent_keeps_its_size(loop, pair):
    one, other = pair
    data = bytearray(pattern(20_000_000))
    sending = asyncio.ensure_future(loop.sock_sendall(one, data))
    await settle()
    with pytest.raises(BufferError):
        data.extend(b"more")
    assert await read_exactly(other, 20_000_000) == data
    await sending
    data.extend(b"more")


async def test_a_cancelled_sock_sendall_gives_the_buffer_and_the_socket_back(loop, pair):
    one, _ = pair
    data = bytearray(pattern(20_000_000))
    sending = asyncio.ensure_future(loop.sock_sendall(one, data))
    await settle()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await settle()
    del sending
    gc.collect()
    data.extend(b"more")
    assert loop.remove_writer(one) is False


@pytest.mark.parametrize("size", [1, 4096, 65536, 262144, 1_000_000])
async def test_sock_recv_takes_what_there_is_up_to_its_size(loop, size):
    one, other = socket_pair("unix")
    got = b""
    sending = asyncio.ensure_future(loop.sock_sendall(other, pattern(100_000)))
    while len(got) < min(100_000, 20 * size):
        part = await loop.sock_recv(one, size)
        assert 0 < len(part) <= size
        got += part
    assert got == pattern(100_000)[: len(got)]
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    one.close()
    other.close()


@pytest.mark.parametrize("size", [-1, 2**70, "text", None, 1.5])
async def test_a_size_that_is_none_is_refused_as_a_socket_does(loop, pair, size):
    one, _ = pair
    with pytest.raises(Exception) as expected:
        one.recv(size)
    with pytest.raises(expected.type) as found:
        await loop.sock_recv(one, size)
    assert str(found.value) == str(expected.value)


async def test_calls_on_a_closed_socket_fail_as_the_socket_does(loop, pair):
    one, _ = pair
    one.close()
    for call in (
        loop.sock_recv(one, 1),
        loop.sock_recv_into(one, bytearray(1)),
        loop.sock_sendall(one, b"x"),
        loop.sock_recvfrom(one, 1),
        loop.sock_accept(one),
    ):
        with pytest.raises(OSError) as failed:
            await call
        assert failed.value.errno == errno.EBADF and failed.value.args == (errno.EBADF, "Bad file descriptor")
    assert await loop.sock_recv(one, 0) == b""


async def test_what_is_no_buffer_is_refused_as_a_socket_does(loop, pair):
    one, _ = pair
    with pytest.raises(TypeError, match="bytes-like object"):
        await loop.sock_sendall(one, "text")
    with pytest.raises(TypeError, match="bytes-like object"):
        await loop.sock_recv_into(one, b"constant")


async def test_a_socket_with_a_timeout_waits_by_itself(loop, pair):
    one, _ = pair
    one.settimeout(0.001)
    with pytest.raises(TimeoutError):
        await loop.sock_recv(one, 1)


async def test_a_reset_connection_raises(loop):
    one, other = socket_pair("tcp")
    receiving = asyncio.ensure_future(loop.sock_recv(one, 1))
    await settle()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    with pytest.raises(ConnectionResetError):
        await receiving
    one.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("as_text", [False, True])
async def test_sock_connect_takes_numbers_and_names(loop, host, as_text):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setblocking(False)
        port = listener.getsockname()[1]
        await loop.sock_connect(client, (host, str(port) if as_text else port))
        assert client.getpeername() == listener.getsockname()


async def test_sock_connect_refuses_a_wrong_address_as_a_socket_does(loop):
    with socket.socket() as client:
        client.setblocking(False)
        with pytest.raises(OverflowError, match=r"^connect\(\): port must be 0-65535"):
            await loop.sock_connect(client, ("127.0.0.1", 70_000))
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        with pytest.raises(FileNotFoundError):
            await loop.sock_connect(client, "/nowhere/at/all")


async def test_an_accepted_socket_is_like_its_listener(loop, tmp_path):
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "listener"))
        client.bind(str(tmp_path / "client"))
        listener.listen()
        listener.setblocking(False)
        client.setblocking(False)
        accepting = asyncio.ensure_future(loop.sock_accept(listener))
        await settle()
        await loop.sock_connect(client, listener.getsockname())
        accepted, address = await accepting
        with accepted:
            assert type(accepted) is socket.socket and address == client.getsockname()
            assert (accepted.family, accepted.type, accepted.proto) == (listener.family, listener.type, listener.proto)
            assert accepted.gettimeout() == 0 and not accepted.get_inheritable()


async def test_sock_recvfrom_into_fills_the_buffer(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
        for sock in (one, other):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        buffer = bytearray(10)
        receiving = asyncio.ensure_future(loop.sock_recvfrom_into(other, buffer))
        await settle()
        assert await loop.sock_sendto(one, b"hello", other.getsockname()) == 5
        assert await receiving == (5, one.getsockname())
        assert buffer[:5] == b"hello"


async def test_sock_sendto_waits_for_the_peer_of_an_unconnected_socket(loop, tmp_path):
    one, other = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    with one, other:
        other.bind(str(tmp_path / "other"))
        one.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while True:
                one.sendto(b"x", other.getsockname())
                sent += 1
        sending = asyncio.ensure_future(loop.sock_sendto(one, b"last", other.getsockname()))
        await settle()
        assert not sending.done()
        other.recv(1)
        assert await sending == 4


def test_a_loop_is_closed_while_socket_calls_wait(loop, pair):
    one, _ = pair
    call = loop.sock_recv(one, 1)
    call.send(None)
    loop.close()
    call.close()


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("recv", lambda loop, one: loop.sock_recv(one, 10)),
        ("recv_into", lambda loop, one: loop.sock_recv_into(one, bytearray(10))),
        ("send", lambda loop, one: loop.sock_sendall(one, b"data")),
        ("connect", lambda loop, one: loop.sock_connect(one, ("127.0.0.1", 9))),
    ],
)
async def test_a_method_of_sockets_that_a_program_replaces_is_called(loop, pair, monkeypatch, name, call):
    def guarded(sock, *args):
        raise PermissionError("guarded")

    pair[1].send(b"data")
    monkeypatch.setattr(socket.socket, name, guarded)
    with pytest.raises(PermissionError, match="guarded"):
        await call(loop, pair[0])
    monkeypatch.undo()
    await loop.sock_sendall(pair[0], b"data")
    assert pair[1].recv(10) == b"data"


def test_a_call_that_would_wait_on_a_closed_loop_says_that_it_is_closed(loop, pair):
    loop.close()
    receiving = loop.sock_recv(pair[0], 10)
    with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
        receiving.send(None)


async def test_a_buffer_that_cannot_be_written_is_asyncios_error(loop, pair):
    pair[1].send(b"data")
    for buffer in (memoryview(b"four"), memoryview(bytearray(8))[::2]):
        with pytest.raises((TypeError, BufferError)) as found:
            await loop.sock_recv_into(pair[0], buffer)
        with pytest.raises(found.type):
            pair[0].recv_into(buffer)
