"""An echo server under load: twenty clients, each with a connection, in a process of their own."""

import asyncio
import subprocess
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def client(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        writer.write(b"x" * 1024)
        await reader.readexactly(1024)


async def load(port: int) -> None:
    await asyncio.gather(*[client(port) for _ in range(20)])


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    clients = subprocess.Popen([sys.executable, __file__, str(port)])
    try:
        await server.serve_forever()
    finally:
        clients.kill()


asyncio.run(load(int(sys.argv[1])) if sys.argv[1:] else main())
