"""The echo server of an arm, by protocol or by streams. Prints its port, then serves until it is killed."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from benchmarks.arms import new_loop

__all__ = ["main"]

READ_BYTES = 64 * 1024  # asyncio's own stream limit: what a plain `reader.read(...)` loop would ask for


class Echo(asyncio.Protocol):
    """Sends back what it gets, and stops reading while the peer does not read."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # rivals' transports are not instances of it

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # the client ends by closing, whatever is under way
    finally:
        writer.close()


async def serve(kind: str) -> None:
    if kind == "streams":
        server = await asyncio.start_server(echo_stream, "127.0.0.1", 0, backlog=1024)
    else:
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    await server.start_serving()  # rloop has only bound the socket until now, and hides it from now on
    print(port, flush=True)
    await asyncio.get_running_loop().create_future()


def main() -> None:
    arm, kind = sys.argv[1:]
    loop = new_loop(arm)
    asyncio.set_event_loop(loop)
    loop.run_until_complete(serve(kind))


if __name__ == "__main__":
    main()
