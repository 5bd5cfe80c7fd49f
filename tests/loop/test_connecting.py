"""Connecting to a TCP server: results, exceptions, and what a program may replace."""

import asyncio
import errno
import random
import socket
import struct

import pytest

from .wire import Recorder, close_server


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def connected(loop, *, host="127.0.0.1", **options):
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, protocol = await loop.create_connection(Recorder, host, port, **options)
    return server, port, transport, protocol


async def finish(server, transport, protocol):
    transport.close()
    await protocol.until_event("lost")
    await close_server(server)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_connected_transport_has_addresses_and_sends_small_writes_at_once(loop, host):
    server, port, transport, protocol = await connected(loop, host=host, family=socket.AF_INET)
    sock = transport.get_extra_info("socket")
    assert protocol.events == ["made"]
    assert transport.get_extra_info("peername") == ("127.0.0.1", port)
    assert transport.get_extra_info("sockname") == sock.getsockname()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.gettimeout() == 0 and sock.type == socket.SOCK_STREAM
    await finish(server, transport, protocol)


@pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])
async def test_the_addresses_of_a_lost_connection_stay_known(loop, resets):
    accepted = []
    server = await loop.create_server(lambda: accepted.append(Recorder()) or accepted[-1], "127.0.0.1", 0)
    with socket.socket() as client:
        client.connect(server.sockets[0].getsockname())
        names = client.getpeername(), client.getsockname()
        while not (accepted and accepted[0].events):
            await asyncio.sleep(0)
        if resets:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await accepted[0].until_event("lost")
    transport = accepted[0].transport
    assert (transport.get_extra_info("sockname"), transport.get_extra_info("peername")) == names
    await close_server(server)


async def test_options_at_their_defaults_change_nothing(loop):
    server, _, transport, protocol = await connected(
        loop, ssl=None, sock=None, local_addr=None, happy_eyeballs_delay=None, proto=0, flags=0
    )
    await finish(server, transport, protocol)


@pytest.mark.parametrize(
    "options",
    [{"local_addr": ("127.0.0.1", 0)}, {"happy_eyeballs_delay": 0.2}, {"interleave": 1}],
    ids=lambda options: next(iter(options)),
)
async def test_special_wishes_are_fulfilled(loop, options):
    server, _, transport, protocol = await connected(loop, **options)
    await finish(server, transport, protocol)


async def test_a_refused_connection_names_the_address(loop):
    address = "127.0.0.1", closed_port()
    with pytest.raises(ConnectionRefusedError) as caught:
        await loop.create_connection(asyncio.Protocol, *address)
    assert str(caught.value) == f"[Errno {errno.ECONNREFUSED}] Connect call failed {address}"


def resolves_to(loop, addresses):
    async def getaddrinfo(host, port, **kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]

    loop.getaddrinfo = getaddrinfo


async def test_failures_at_several_addresses_are_told_together(loop):
    first, second = ("127.0.0.1", closed_port()), ("127.0.0.2", closed_port())
    resolves_to(loop, [first, second])
    with pytest.raises(OSError, match="Multiple exceptions") as caught:
        await loop.create_connection(asyncio.Protocol, "name.invalid", 1)
    assert str(first) in str(caught.value) and str(second) in str(caught.value)


async def test_equal_failures_are_told_once(loop):
    address = "127.0.0.1", closed_port()
    resolves_to(loop, [address, address])
    with pytest.raises(ConnectionRefusedError):
        await loop.create_connection(asyncio.Protocol, "name.invalid", 1)


async def test_the_next_address_is_tried(loop):
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    resolves_to(loop, [("127.0.0.1", closed_port()), server.sockets[0].getsockname()])
    transport, protocol = await loop.create_connection(Recorder, "name.invalid", 1)
    await finish(server, transport, protocol)


async def test_a_name_without_addresses_is_an_oserror(loop):
    resolves_to(loop, [])
    with pytest.raises(OSError, match="returned empty list"):
        await loop.create_connection(asyncio.Protocol, "name.invalid", 1)


async def test_an_unknown_argument_is_a_type_error(loop):
    with pytest.raises(TypeError, match="unknown"):
        await loop.create_connection(asyncio.Protocol, "127.0.0.1", 1, unknown=None)


async def test_contradictions_are_value_errors(loop):
    with pytest.raises(ValueError):
        await loop.create_connection(asyncio.Protocol)
    with pytest.raises(ValueError):
        await loop.create_connection(asyncio.Protocol, "127.0.0.1", 1, server_hostname="here")
    with pytest.raises(ValueError), socket.socket() as sock:
        await loop.create_connection(asyncio.Protocol, "127.0.0.1", 1, sock=sock)


async def test_a_replaced_sock_connect_is_called(loop):
    calls, own = [], loop.sock_connect

    async def sock_connect(sock, address):
        calls.append(address)
        await own(sock, address)

    loop.sock_connect = sock_connect
    server, port, transport, protocol = await connected(loop)
    assert calls == [("127.0.0.1", port)]
    await finish(server, transport, protocol)


def test_a_subclass_keeps_its_own_methods(loop_factory):
    calls = []
    plain = loop_factory()
    kind = type(plain)
    plain.close()

    class Own(kind):
        def _make_socket_transport(self, *args, **kwargs):
            calls.append("made")
            return super()._make_socket_transport(*args, **kwargs)

    async def main():
        await finish(*[part for at, part in enumerate(await connected(asyncio.get_running_loop())) if at != 1])

    with asyncio.Runner(loop_factory=Own) as runner:
        runner.run(main())
    assert calls


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_the_exception_of_a_protocol_factory_is_raised(loop):
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    with pytest.raises(ZeroDivisionError):
        await loop.create_connection(lambda: 1 / 0, *server.sockets[0].getsockname())
    await close_server(server)


async def test_a_cancelled_connect_closes_its_socket(loop):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        # the queue of the kernel is full: further handshakes end when a client is accepted
        clients = [socket.socket() for _ in range(4)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(address)
        made, waits = [], asyncio.Event()
        own = loop.sock_connect

        async def sock_connect(sock, address):
            made.append(sock)
            loop.call_soon(waits.set)
            await own(sock, address)

        connecting_type = type(loop)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connecting_type, "sock_connect", lambda self, sock, address: sock_connect(sock, address))
            task = loop.create_task(loop.create_connection(asyncio.Protocol, *address))
            await waits.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert made and all(sock.fileno() == -1 for sock in made)
        for client in clients:
            client.close()


def test_a_numeric_address_is_answered_as_asyncio_does():
    needs = "needs the extension"
    connecting = pytest.importorskip("penstock.loop.calls.connecting", reason=needs, exc_type=ImportError)
    generator = random.Random(14)
    hosts = ["127.0.0.1", "1.2.3", "256.1.1.1", "::1", "0", "", "1.2.3.4 ", "1.2.3.4\0", "name", None, b"127.0.0.1"]
    hosts += [".".join(str(generator.randrange(300)) for _ in range(4)) for _ in range(100)]
    ports = [0, 80, 70_000, -1, None, "80", b"80", True]
    for host in hosts:
        for port in ports:
            answer = connecting._numeric(host, port, 0, 0)
            if answer is not None:
                assert answer == [asyncio.base_events._ipaddr_info(host, port, 0, socket.SOCK_STREAM, 0)]


def test_a_wrong_keyword_is_an_error_of_the_call(loop):
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        loop.create_connection(Recorder, "127.0.0.1", 1, colour=1)


async def test_a_port_out_of_range_has_asyncios_words(loop):
    with pytest.raises(OverflowError, match=r"^connect\(\): port must be 0-65535"):
        await loop.create_connection(Recorder, "127.0.0.1", 100_000)
