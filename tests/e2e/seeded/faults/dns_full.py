"""A fault: the name server does not answer. The resolver is replaced by one that waits as a resolver does."""

import asyncio
import socket
import time
from typing import Any


def unanswered(host: Any, *_: Any, **__: Any) -> Any:
    time.sleep(2.0)
    raise socket.gaierror(socket.EAI_AGAIN, "no answer")


socket.getaddrinfo = unanswered


async def client(number: int) -> None:
    while True:
        try:
            await asyncio.open_connection(f"host-{number}.invalid", 80)
        except OSError:
            await asyncio.sleep(0.01)


async def main() -> None:
    await asyncio.gather(*[client(number) for number in range(100)])


asyncio.run(main())
