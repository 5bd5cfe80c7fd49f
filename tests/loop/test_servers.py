"""Servers and clients: listening, accepting, connecting, refusing, closing."""

import asyncio
import contextlib
import os
import resource
import socket
import struct
import sys

import pytest

from .wire import Recorder, close_server, read_to_end, settle


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


def address_of(server):
    return server.sockets[0].getsockname()


async def ask(host, port, message=b"hello"):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(message)
    answer = await reader.readexactly(len(message))
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_server_answers_its_clients(loop):
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    answers = await asyncio.gather(*(ask(*address_of(server), b"%d" % number) for number in range(100)))
    await close_server(server)
    assert answers == [b"%d" % number for number in range(100)]


async def test_a_server_on_a_unix_socket_answers(loop, tmp_path):
    path = str(tmp_path / "socket")

    server = await loop.create_unix_server(Echo, path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.close()
    await writer.wait_closed()
    await close_server(server)


def test_a_unix_server_replaces_a_stale_socket_file(loop, run, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)

    async def main():
        await close_server(await loop.create_unix_server(Echo, path))

    run(main())


async def test_a_client_reaches_localhost_whatever_family_it_listens_on(loop):
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    port = address_of(server)[1]
    assert await ask("localhost", port) == b"hello"
    _, protocol = await loop.create_connection(Recorder, "localhost", port, happy_eyeballs_delay=0.05)
    protocol.transport.close()
    await protocol.until_event("lost")
    await close_server(server)


async def test_a_client_can_bind_its_own_address(loop):
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    transport, protocol = await loop.create_connection(Recorder, *address_of(server), local_addr=("127.0.0.1", 0))
    assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
    assert transport.get_extra_info("peername") == address_of(server)
    assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    transport.close()
    await protocol.until_event("lost")
    await close_server(server)


def test_a_refused_connection_raises(loop, run):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

    async def main():
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, *address)

    run(main())


async def test_a_port_in_use_raises_with_the_address(loop):
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    with pytest.raises(OSError, match="address already in use"):
        await loop.create_server(Echo, *address_of(server))
    await close_server(server)


def test_a_cancelled_connect_leaves_no_socket_behind(loop, run):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            task = asyncio.ensure_future(loop.create_connection(Recorder, *listener.getsockname()))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    before = open_fds()
    run(main())
    assert open_fds() <= before + 2


def open_fds():
    return len(os.listdir("/proc/self/fd"))


async def test_a_server_that_is_not_started_accepts_only_after_start_serving(loop):
    server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
    assert not server.is_serving()
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    assert await ask(*address_of(server)) == b"hello"
    await close_server(server)
    assert not server.is_serving()


async def test_serve_forever_ends_when_cancelled_and_closes_the_server(loop):
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    address = address_of(server)
    serving = asyncio.ensure_future(server.serve_forever())
    assert await ask(*address) == b"hello"
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await ask(*address)


async def test_a_closed_server_lets_its_connections_live(loop):
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*address_of(server))
    writer.write(b"a")
    assert await reader.readexactly(1) == b"a"
    server.close()
    server.close()
    writer.write(b"b")
    assert await reader.readexactly(1) == b"b"
    writer.close()
    await writer.wait_closed()
    await server.wait_closed()
    assert server.sockets == ()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="close_clients is new in 3.13")
@pytest.mark.parametrize("name", ["close_clients", "abort_clients"])
async def test_a_server_can_close_and_abort_its_clients(loop, name):
    made = asyncio.Event()
    servants = []

    def factory():
        servants.append(Recorder())
        made.set()
        return servants[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    _transport, client = await loop.create_connection(Recorder, *address_of(server))
    await made.wait()
    await servants[0].until_event("made")
    server.close()
    getattr(server, name)()
    await client.until_event("lost")
    await servants[0].until_event("lost")
    await server.wait_closed()


async def test_the_context_manager_closes_the_server(loop):
    async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
        address = address_of(server)
        assert await ask(*address) == b"hello"
    with pytest.raises(ConnectionRefusedError):
        await ask(*address)


async def test_a_given_socket_is_used(loop):
    listener = socket.create_server(("127.0.0.1", 0))
    server = await loop.create_server(Echo, sock=listener, backlog=5)
    assert address_of(server) == listener.getsockname()
    assert await ask(*address_of(server)) == b"hello"
    await close_server(server)
    assert listener.fileno() == -1


async def test_a_datagram_socket_is_refused(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with pytest.raises(ValueError, match="Stream Socket"):
            await loop.create_server(Echo, sock=sock)
        with pytest.raises(ValueError, match="Stream Socket"):
            await loop.create_connection(Recorder, sock=sock)


async def test_more_clients_at_once_than_one_accept_batch_are_all_accepted(loop):
    count = 400

    servants = []

    def factory():
        servants.append(Recorder())
        return servants[-1]

    listener = socket.create_server(("127.0.0.1", 0), backlog=count)
    clients = [socket.create_connection(listener.getsockname()) for _ in range(count)]
    server = await loop.create_server(factory, sock=listener, backlog=count)
    while len(servants) < count:
        await asyncio.sleep(0)
    for client in clients:
        client.close()
    for servant in servants:
        await servant.until_event("lost")
    await close_server(server)


async def test_a_client_that_is_gone_before_the_accept_does_no_harm(loop):
    listener = socket.create_server(("127.0.0.1", 0))
    for _ in range(20):
        socket.create_connection(listener.getsockname()).close()
    server = await loop.create_server(Echo, sock=listener)
    assert await ask(*address_of(server)) == b"hello"
    await settle(10)
    await close_server(server)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
async def test_the_address_of_a_client_that_left_before_the_accept_is_known(loop, tmp_path, family):
    where = {
        socket.AF_INET: ("127.0.0.1", 0),
        socket.AF_INET6: ("::1", 0),
        socket.AF_UNIX: str(tmp_path / "server"),
    }
    listener, client = socket.socket(family), socket.socket(family)
    try:
        listener.bind(where[family])
    except OSError as error:
        pytest.skip(str(error))
    listener.listen()
    client.bind(str(tmp_path / "client") if family == socket.AF_UNIX else where[family])
    client.connect(listener.getsockname())
    address = client.getsockname()
    if family != socket.AF_UNIX:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    servant = Recorder()
    serve = loop.create_unix_server if family == socket.AF_UNIX else loop.create_server
    server = await serve(lambda: servant, sock=listener)
    await servant.until_event("lost")
    info = servant.transport.get_extra_info
    assert (info("peername"), info("sockname")) == (address, listener.getsockname())
    await close_server(server)


@pytest.mark.skipif(not hasattr(socket, "AF_VSOCK"), reason="no vsock")
async def test_a_server_on_vsock_serves(loop):
    try:
        listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
    except OSError as error:
        pytest.skip(f"no vsock: {error}")
    address = listener.getsockname()
    server = await loop.create_server(Echo, sock=listener)
    assert address_of(server) == address
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        # this kernel may have no loopback for it
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(loop.sock_connect(client, (1, address[1])), 0.1)
            transport, protocol = await loop.create_connection(Recorder, sock=client)
            assert transport.get_extra_info("peername") == (1, address[1])
            transport.write(b"hello")
            await protocol.until_bytes(5)
            transport.abort()
            await settle()
    await close_server(server)


async def test_the_address_of_a_family_without_a_form_of_its_own_is_the_socket_modules(loop):
    try:
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        sock.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
    except (AttributeError, OSError) as error:
        pytest.skip(f"no vsock: {error}")
    sock.setblocking(False)
    address = sock.getsockname()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
    assert (transport.get_extra_info("sockname"), transport.get_extra_info("peername")) == (address, None)
    transport.abort()
    await settle()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncio leaves the accepted socket to the collector
async def test_a_protocol_factory_that_raises_drops_its_client_only(loop, problems):
    fail = [True]

    def factory():
        if fail:
            fail.pop()
            raise LookupError("factory")
        return Echo()

    server = await loop.create_server(factory, "127.0.0.1", 0)
    with socket.create_connection(address_of(server)) as unlucky:
        unlucky.setblocking(False)
        assert await read_to_end(unlucky) == b""
    assert await ask(*address_of(server)) == b"hello"
    await close_server(server)
    assert fail == []


def test_running_out_of_descriptors_pauses_accepting_and_does_not_spin(loop, run, problems):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        clients = [socket.socket() for _ in range(5)]
        with no_more_descriptors():
            for client in clients:
                client.setblocking(False)
                client.connect_ex(address_of(server))
            while not problems:
                await asyncio.sleep(0)
            reported = len(problems)
            await settle(100)
            assert len(problems) == reported
        clients[0].send(b"hello")
        assert await loop.sock_recv(clients[0], 5) == b"hello"
        for client in clients:
            client.close()
        await settle(5)
        await close_server(server)

    run(main())
    assert isinstance(problems[0]["exception"], OSError)


@contextlib.contextmanager
def no_more_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    held = [os.open(os.devnull, os.O_RDONLY)]
    while held[-1] < highest:
        held.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(highest, held[-1]) + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in held:
            os.close(number)
