"""An echo server on asyncio's streams, without an import of penstock: `penstock run examples/echo.py 8888`."""

import asyncio
import sys


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def main(port: int) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", port)
    loop = type(asyncio.get_running_loop())
    print(f"echo on port {server.sockets[0].getsockname()[1]} by {loop.__module__}.{loop.__qualname__}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8888))
