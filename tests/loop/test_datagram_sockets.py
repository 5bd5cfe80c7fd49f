"""Datagram endpoints over each kind of socket: names, broadcasts, sockets that are given, datagrams too long."""

import errno
import socket

import pytest

from penstock.loop import NATIVE, EventLoop

from .test_datagrams import LOST, Endpoint, drained, opened, pattern, peer, settle

__all__ = ["peer"]


async def test_unix_names_are_paths_bytes_or_nothing(loop, tmp_path):
    _, endpoint = await loop.create_datagram_endpoint(Endpoint, local_addr=str(tmp_path / "own"), family=socket.AF_UNIX)
    abstract = b"\0penstock-%d" % id(loop)
    for number, name in enumerate([str(tmp_path / "peer"), abstract, None]):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            if name is not None:
                peer.bind(name)
            peer.sendto(b"hello", str(tmp_path / "own"))
            await endpoint.until_count(number + 1)
            assert endpoint.received[number] == (b"hello", name)
            if name is not None:
                endpoint.transport.sendto(b"answer", name)
                assert peer.recv(100) == b"answer"
    endpoint.transport.sendto(b"answer", str(tmp_path / "nothing"))
    await endpoint.close()
    assert endpoint.events == ["made", b"hello", b"hello", b"hello", FileNotFoundError, LOST]


async def test_ipv6_names_have_their_scope(loop):
    try:
        endpoint = await opened(local_addr=("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    address = endpoint.transport.get_extra_info("sockname")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        peer.bind(("::1", 0))
        for number, name in enumerate([peer.getsockname(), peer.getsockname()[:2], peer.getsockname()[:3]]):
            peer.sendto(b"hello", address)
            await endpoint.until_count(number + 1)
            assert endpoint.received[number] == (b"hello", peer.getsockname())
            endpoint.transport.sendto(b"answer", name)
            assert peer.recv(100) == b"answer"
    await endpoint.close()


async def test_a_broadcast_endpoint_with_one_receiver_is_not_connected(loop, peer):
    endpoint = await opened(peer, allow_broadcast=True)
    assert endpoint.transport.get_extra_info("peername") is None
    for number in range(3):
        endpoint.transport.sendto(b"%d" % number)
    endpoint.transport.sendto(b"3", peer.getsockname())
    await settle()
    assert [data for data, _ in drained(peer)] == [b"0", b"1", b"2", b"3"]
    with pytest.raises(ValueError, match="Invalid address"):
        endpoint.transport.sendto(b"data", ("127.0.0.1", 1))
    await endpoint.close()


async def test_a_given_socket_and_a_shared_port_work(loop, peer):
    first = await opened(reuse_port=True)
    address = first.transport.get_extra_info("sockname")
    second = await opened(local_addr=address, reuse_port=True)
    await second.close()
    await first.close()
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(peer.getsockname())
        given = await opened(local_addr=None, sock=sock.dup())
        given.transport.sendto(b"data", ("192.0.2.1", 1))  # a connected socket has one receiver
        assert [data for data, _ in drained(peer)] == [b"data"]
        await given.close()


async def test_sending_after_the_end_is_ignored_and_then_warned_of(loop, peer, caplog):
    endpoint = await opened(peer)
    await endpoint.close()
    for _ in range(6):
        endpoint.transport.sendto(b"data")
    assert [record.getMessage() for record in caplog.records] == ["socket.send() raised exception."] * 2


async def test_an_unconnected_endpoint_sends_between_close_and_its_end(loop, peer):
    endpoint = await opened()
    endpoint.transport.close()
    endpoint.transport.sendto(b"late", peer.getsockname())
    await endpoint.until_event(LOST)
    assert [data for data, _ in drained(peer)] == [b"late"]


@pytest.mark.filterwarnings("error::ResourceWarning")
async def test_a_descriptor_of_an_endpoint_is_not_for_others(loop, peer):
    endpoint = await opened(peer)
    sock = endpoint.transport.get_extra_info("socket")
    with pytest.raises(RuntimeError, match="is used by transport"):
        loop.add_reader(sock, print)
    await endpoint.close()


async def test_a_sender_that_is_no_unix_path_is_no_receiver(loop, problems, tmp_path):
    _, endpoint = await loop.create_datagram_endpoint(Endpoint, local_addr=str(tmp_path / "own"), family=socket.AF_UNIX)
    endpoint.transport.sendto(b"data", "x" * 200)
    await endpoint.until(lambda: isinstance(endpoint.events[-1], tuple) or OSError in endpoint.events)
    events = endpoint.events[1:]
    assert events in ([OSError], [("lost", OSError)])
    if not endpoint.transport.is_closing():
        await endpoint.close()


def test_a_subclass_of_socket_keeps_its_own_methods(loop, run, peer):
    sent = []

    class Counting(socket.socket):
        def sendto(self, *args):
            sent.append(args)
            return super().sendto(*args)

    async def main():
        sock = Counting(type=socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        endpoint = await opened(local_addr=None, sock=sock)
        endpoint.transport.sendto(b"data", peer.getsockname())
        await endpoint.close()

    run(main())
    assert sent == [(b"data", peer.getsockname())]


def test_a_large_unix_datagram_arrives_or_its_loss_is_told(loop, run, loop_factory, tmp_path):
    """asyncio cuts it off at 256 KiB and says nothing."""

    async def main():
        _, endpoint = await loop.create_datagram_endpoint(
            Endpoint, local_addr=str(tmp_path / "own"), family=socket.AF_UNIX
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            if peer.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < 600_000:
                peer.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_SNDBUFFORCE", 32), 1 << 20)
            peer.sendto(pattern(200_000), str(tmp_path / "own"))
            await endpoint.until_count(1)
            assert endpoint.received == [(pattern(200_000), None)]
            peer.sendto(pattern(300_000), str(tmp_path / "own"))
            peer.sendto(b"last", str(tmp_path / "own"))
            await endpoint.until_event(b"last")
        if NATIVE and loop_factory is EventLoop:
            assert [event for event in endpoint.events if event is OSError] == [OSError]
            assert len(endpoint.received) == 2
        else:
            assert len(endpoint.received[1][0]) == 256 * 1024
        await endpoint.close()

    run(main())


def test_the_truncation_is_an_emsgsize(loop, run, loop_factory, tmp_path):
    if not (NATIVE and loop_factory is EventLoop):
        pytest.skip("asyncio's own endpoint does not tell")
    errors = []

    async def main():
        _, endpoint = await loop.create_datagram_endpoint(
            Endpoint, local_addr=str(tmp_path / "own"), family=socket.AF_UNIX
        )
        endpoint.error_received = errors.append
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_SNDBUFFORCE", 32), 1 << 20)
            peer.sendto(pattern(300_000), str(tmp_path / "own"))
            peer.sendto(b"last", str(tmp_path / "own"))
            await endpoint.until_event(b"last")
        await endpoint.close()

    run(main())
    assert [exc.errno for exc in errors] == [errno.EMSGSIZE]


async def test_a_socket_that_the_program_closes_itself_reads_and_sends_by_no_other(loop, peer):
    given = socket.socket(type=socket.SOCK_DGRAM)
    given.bind(("127.0.0.1", 0))
    given.setblocking(False)
    others = []

    def close(transport, _):
        if not others:
            number = given.fileno()
            given.close()
            others.append(socket.socket(type=socket.SOCK_DGRAM))
            others[0].bind(("127.0.0.1", 0))
            others[0].setblocking(False)
            assert others[0].fileno() == number
            peer.sendto(b"another's", others[0].getsockname())
            transport.sendto(b"lost", peer.getsockname())
            transport.sendto(b"lost", peer.getsockname())

    # a full batch: another read would follow
    for _ in range(80):
        peer.sendto(b"x", given.getsockname())
    endpoint = await opened(None, close, sock=given, local_addr=None)
    await endpoint.until_event(OSError)
    await settle(20)
    endpoint.transport.sendto(b"lost", peer.getsockname())
    await settle(20)
    assert others[0].recv(100) == b"another's"
    assert drained(peer) == []
    assert b"another's" not in endpoint.events
    assert OSError in endpoint.events
    await endpoint.close()
    others[0].close()
