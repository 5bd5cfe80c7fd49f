"""TLS over the loop's transports, upgrades in the middle of a connection, files sent by the kernel or by hand."""

import asyncio
import ssl

import pytest

from .wire import Recorder, close_server, pattern, read_to_end, wired

SIZES = [0, 1, 65_537, 2_000_003]


@pytest.mark.parametrize("size", SIZES)
async def test_tls_streams_carry_every_byte_both_ways(contexts, size):
    async def echo(reader, writer):
        while data := await reader.read(100_000):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=contexts[0])
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(), ssl=contexts[1], server_hostname="localhost"
    )
    assert writer.get_extra_info("ssl_object").version() is not None
    writer.write(pattern(size))
    assert await reader.readexactly(size) == pattern(size)
    writer.close()
    await writer.wait_closed()
    await close_server(server)


async def test_an_untrusted_certificate_is_refused(loop, contexts, problems):
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=contexts[0])
    with pytest.raises(ssl.SSLCertVerificationError):
        await loop.create_connection(
            Recorder,
            *server.sockets[0].getsockname(),
            ssl=ssl.create_default_context(),
            server_hostname="localhost",
        )
    await close_server(server)


async def test_a_client_that_does_not_speak_tls_harms_no_other(loop, contexts, problems):
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=contexts[0])
    address = server.sockets[0].getsockname()
    _, plain = await loop.create_connection(Recorder, *address)
    plain.transport.write(b"GET / HTTP/1.0\r\n\r\n")
    await plain.until_event("lost")
    reader, writer = await asyncio.open_connection(*address, ssl=contexts[1], server_hostname="localhost")
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    await close_server(server)


async def test_start_tls_upgrades_both_sides_of_a_connection(loop, contexts):
    done = loop.create_future()

    async def serve(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        await writer.start_tls(contexts[0])
        writer.write((await reader.readline()).upper())
        await writer.drain()
        done.set_result(writer.get_extra_info("ssl_object") is not None)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"plain\n")
    assert await reader.readline() == b"PLAIN\n"
    await writer.start_tls(contexts[1], server_hostname="localhost")
    writer.write(b"secret\n")
    assert await reader.readline() == b"SECRET\n"
    assert await done is True
    writer.close()
    await writer.wait_closed()
    await close_server(server)


@pytest.fixture
def a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(pattern(3_000_000))
    with path.open("rb") as file:
        yield file


async def test_sendfile_sends_a_file(loop, family, a_file):
    async with wired(family=family) as (transport, _, peer):
        transport.write(b"before")
        receiving = asyncio.ensure_future(read_to_end(peer))
        assert await loop.sendfile(transport, a_file) == 3_000_000
        transport.write(b"after")
        transport.close()
        assert await receiving == b"before" + pattern(3_000_000) + b"after"


async def test_sendfile_sends_a_part_of_a_file(loop, a_file):
    async with wired() as (transport, _, peer):
        receiving = asyncio.ensure_future(read_to_end(peer))
        assert await loop.sendfile(transport, a_file, 1000, 5000) == 5000
        transport.close()
        assert await receiving == pattern(3_000_000)[1000:6000]
        assert a_file.tell() == 6000


def test_sendfile_goes_on_reading_afterwards(loop, run, a_file):
    async def main():
        async with wired() as (transport, protocol, peer):
            peer.send(b"early")
            await asyncio.gather(loop.sendfile(transport, a_file), loop.sock_recv_into(peer, bytearray(1)), drain(peer))
            peer.send(b"late")
            await protocol.until_bytes(9)
            assert protocol.data == b"earlylate"

    async def drain(peer):
        received = 1
        while received < 3_000_000:
            received += len(await loop.sock_recv(peer, 1 << 20))

    run(main())


async def test_sendfile_falls_back_when_the_kernel_cannot(loop, tmp_path):
    import io

    async with wired() as (transport, _, peer):
        receiving = asyncio.ensure_future(read_to_end(peer))
        assert await loop.sendfile(transport, io.BytesIO(pattern(1_000_000))) == 1_000_000
        transport.close()
        assert await receiving == pattern(1_000_000)


async def test_sendfile_without_fallback_refuses_what_the_kernel_cannot(loop):
    import io

    async with wired() as (transport, _, _):
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await loop.sendfile(transport, io.BytesIO(b"data"), fallback=False)
        assert transport.is_reading()


async def test_sendfile_on_a_closing_transport_is_refused(loop, a_file):
    async with wired() as (transport, _, _):
        transport.close()
        with pytest.raises(RuntimeError, match="closing"):
            await loop.sendfile(transport, a_file)


async def test_sendfile_over_tls_falls_back(loop, contexts, a_file):
    received = loop.create_future()

    async def take(reader, writer):
        received.set_result(await reader.readexactly(3_000_000))
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=contexts[0])
    _, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(), ssl=contexts[1], server_hostname="localhost"
    )
    assert await loop.sendfile(writer.transport, a_file) == 3_000_000
    assert await received == pattern(3_000_000)
    writer.close()
    await writer.wait_closed()
    await close_server(server)
