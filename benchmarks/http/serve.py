"""An HTTP server on an arm's loop, of one kind. Prints its port, then serves until it is killed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.arms import new_loop
from benchmarks.net.certificate import CERTIFICATE, KEY, server_context
from benchmarks.net.listener import BACKLOG, listen_anywhere

__all__ = ["hello", "main"]

Send = Callable[[dict[str, Any]], Awaitable[None]]
BODIES = {"/": b"Hello, World!", "/10k": b"x" * 10 * 1024}


def _head(body: bytes) -> dict[str, Any]:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    return {"type": "http.response.start", "status": 200, "headers": headers}


ANSWERS = {path: (_head(body), {"type": "http.response.body", "body": body}) for path, body in BODIES.items()}


async def hello(scope: dict[str, Any], receive: object, send: Send) -> None:
    head, body = ANSWERS[scope["path"]]
    await send(head)
    await send(body)


async def serve_uvicorn(with_tls: bool) -> None:
    import uvicorn

    files: dict[str, Any] = {"ssl_certfile": str(CERTIFICATE), "ssl_keyfile": str(KEY)} if with_tls else {}
    config = uvicorn.Config(
        hello, http="httptools", ws="none", lifespan="off", log_level="warning", access_log=False, **files
    )
    listener = listen_anywhere()
    print(listener.getsockname()[1], flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])


async def serve_aiohttp(with_tls: bool) -> None:
    from aiohttp import web

    async def plaintext(request: web.Request) -> web.Response:
        return web.Response(body=BODIES["/"], content_type="text/plain")

    app = web.Application()
    app.router.add_get("/", plaintext)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listener = listen_anywhere()
    print(listener.getsockname()[1], flush=True)
    context = server_context() if with_tls else None
    await web.SockSite(runner, listener, backlog=BACKLOG, ssl_context=context).start()
    await asyncio.get_running_loop().create_future()


def main() -> None:
    arm, kind = sys.argv[1:]
    loop = new_loop(arm)
    asyncio.set_event_loop(loop)
    package, _, tls = kind.partition("-")
    loop.run_until_complete({"uvicorn": serve_uvicorn, "aiohttp": serve_aiohttp}[package](tls == "tls"))


if __name__ == "__main__":
    main()
