"""An HTTP server under keep-alive load: thirty clients in a process of their own."""

import asyncio
import json
import subprocess
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = json.dumps({"path": head.split()[1].decode(), "items": list(range(50))}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def client(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        writer.write(b"GET /items HTTP/1.1\r\nhost: here\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.rpartition(b":")[2]))


async def load(port: int) -> None:
    await asyncio.gather(*[client(port) for _ in range(30)])


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    clients = subprocess.Popen([sys.executable, __file__, str(port)])
    try:
        await server.serve_forever()
    finally:
        clients.kill()


asyncio.run(load(int(sys.argv[1])) if sys.argv[1:] else main())
