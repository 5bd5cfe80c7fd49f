"""The echo server of an arm, by protocol or by streams. Prints its port, then serves until it is killed."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from benchmarks.arms import new_loop
from benchmarks.net.listener import BACKLOG, listen_anywhere

__all__ = ["main"]

READ_BYTES = 64 * 1024  # asyncio's own stream limit


class Echo(asyncio.Protocol):
    """A protocol that sends back its input, and pauses reading while the peer does not read."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # transports of other loops are not instances of it

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
        pass  # the client closes in the middle of an exchange
    finally:
        writer.close()


async def serve(kind: str) -> None:
    listener = listen_anywhere()
    port = listener.getsockname()[1]  # read now: rloop takes over the file descriptor
    if kind == "streams":
        server = await asyncio.start_server(echo_stream, sock=listener, backlog=BACKLOG)
    else:
        server = await asyncio.get_running_loop().create_server(Echo, sock=listener, backlog=BACKLOG)
    print(port, flush=True)
    await asyncio.get_running_loop().create_future()  # not serve_forever(): rloop would listen twice, and fail
    server.close()


def main() -> None:
    arm, kind = sys.argv[1:]
    loop = new_loop(arm)
    asyncio.set_event_loop(loop)
    loop.run_until_complete(serve(kind))


if __name__ == "__main__":
    main()
