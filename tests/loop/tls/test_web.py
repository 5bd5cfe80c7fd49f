"""HTTPS and WebSockets over TLS by others' libraries: aiohttp, uvicorn and websockets, on both loops."""

import asyncio
import contextlib

import pytest

BODY = bytes(range(256)) * 4096  # 1 MiB


async def test_aiohttp_serves_uploads_streams_and_websockets(contexts):
    aiohttp = pytest.importorskip("aiohttp")
    web = pytest.importorskip("aiohttp.web")

    async def echo(request):
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in request.content.iter_chunked(50_000):
            await response.write(chunk)
        return response

    async def socket(request):
        answer = web.WebSocketResponse(max_msg_size=0)
        await answer.prepare(request)
        async for message in answer:
            await answer.send_bytes(message.data)
        return answer

    application = web.Application(client_max_size=1 << 24)
    application.add_routes([web.post("/", echo), web.get("/socket", socket)])
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=contexts[0])
    await site.start()
    port = runner.addresses[0][1]
    connector = aiohttp.TCPConnector(ssl=contexts[1])
    async with aiohttp.ClientSession(f"https://localhost:{port}", connector=connector) as session:
        for _ in range(3):
            async with session.post("/", data=BODY) as response:
                assert await response.read() == BODY
        many = await asyncio.gather(*(posted(session, number) for number in range(20)))
        assert many == [b"%d" % number * 1000 for number in range(20)]
        async with session.ws_connect("/socket", max_msg_size=0) as connection:
            await connection.send_bytes(BODY)
            assert await connection.receive_bytes() == BODY
    await runner.cleanup()


async def posted(session, number):
    async with session.post("/", data=b"%d" % number * 1000) as response:
        return await response.read()


async def application(scope, receive, send):
    """Echo bodies and messages."""
    if scope["type"] == "http":
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event["body"], event.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-scheme", scope["scheme"].encode())]})
        await send({"type": "http.response.body", "body": body})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": event["bytes"]})


@contextlib.asynccontextmanager
async def uvicorn_served(context):
    """Yield the port of a uvicorn server with TLS in the running loop."""
    uvicorn = pytest.importorskip("uvicorn")
    config = uvicorn.Config(
        application, host="127.0.0.1", port=0, lifespan="off", log_config=None, ws="websockets-sansio"
    )
    config.load()
    config.ssl = context
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    yield server.servers[0].sockets[0].getsockname()[1]
    while server.server_state.connections:  # uvicorn fails if it is to end a WebSocket that is closing
        await asyncio.sleep(0.01)
    await server.shutdown()


async def test_uvicorn_answers_requests_kept_alive_over_tls(contexts):
    async with uvicorn_served(contexts[0]) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=contexts[1], server_hostname="localhost")
        for size in (0, 1, 20_000, len(BODY)):
            head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
            writer.write(head.encode())
            writer.write(BODY[:size])
            answer = await reader.readuntil(b"\r\n\r\n")
            assert b"200 OK" in answer
            assert b"x-scheme: https" in answer
            assert await read_chunks(reader) == BODY[:size]
        writer.close()
        await writer.wait_closed()


async def read_chunks(reader):
    """Read a body in chunks to its end."""
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


async def test_websockets_talk_to_uvicorn_over_tls(contexts):
    websockets = pytest.importorskip("websockets.asyncio.client")
    async with uvicorn_served(contexts[0]) as port:
        address = f"wss://localhost:{port}"
        async with websockets.connect(address, ssl=contexts[1], host="127.0.0.1", max_size=None) as connection:
            for size in (1, 126, 70_000, len(BODY)):
                await connection.send(BODY[:size])
                assert await connection.recv() == BODY[:size]
