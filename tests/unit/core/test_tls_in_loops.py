"""TLS of the native loop with each of its engines."""

import asyncio

import pytest

from penstock._core import seams
from penstock._core.tls import sslobject

from .tlspair import pattern

CLASSES = {"openssl": "BioEngine", "memory": "MemoryEngine"}


@pytest.fixture(params=list(CLASSES))
def engine(request):
    """The engine of the test's connections: the name of its class."""
    sslobject.choose(request.param)
    if sslobject.engine() != request.param:
        pytest.skip(sslobject.why_memory())
    yield CLASSES[request.param]
    sslobject.choose("")


async def echo(reader, writer):
    while data := await reader.read(100_000):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize("size", [1, 16_384, 2_000_003])
def test_streams_carry_every_byte(run, contexts, engine, size):
    async def main():
        async with await asyncio.start_server(echo, "127.0.0.1", 0, ssl=contexts[0]) as server:
            address = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*address, ssl=contexts[1], server_hostname="localhost")
            assert seams.engine_of(writer.transport) == engine
            for _ in range(3):
                writer.write(pattern(size))
                assert await reader.readexactly(size) == pattern(size)
            writer.close()
            await writer.wait_closed()
            assert writer.get_extra_info("ssl_object").version()

    run(main())


def test_both_ends_write_much_at_once(run, contexts, engine):
    async def feed(reader, writer):
        writer.write(pattern(3_000_000))
        received = await reader.readexactly(3_000_000)
        writer.close()
        await writer.wait_closed()
        return received

    async def main():
        received = asyncio.get_running_loop().create_future()

        async def serve(reader, writer):
            received.set_result(await feed(reader, writer))

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=contexts[0]) as server:
            address = server.sockets[0].getsockname()
            mine = await feed(*await asyncio.open_connection(*address, ssl=contexts[1], server_hostname="localhost"))
            assert mine == await received == pattern(3_000_000)

    run(main())


def test_a_hundred_connections_keep_their_bytes_apart(run, contexts, engine):
    async def one(address, number):
        reader, writer = await asyncio.open_connection(*address, ssl=contexts[1], server_hostname="localhost")
        for turn in range(5):
            message = b"%d/%d " % (number, turn) * (1 + number * 37)
            writer.write(message)
            assert await reader.readexactly(len(message)) == message
        writer.close()
        await writer.wait_closed()

    async def main():
        async with await asyncio.start_server(echo, "127.0.0.1", 0, ssl=contexts[0]) as server:
            address = server.sockets[0].getsockname()
            await asyncio.gather(*[one(address, number) for number in range(100)])

    run(main())
