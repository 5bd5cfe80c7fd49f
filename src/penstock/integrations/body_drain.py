"""Takes the rest of a refused request's body, so that its client reads the answer and is not reset. ASGI, any server.

A server that closes a connection whose client still sends has it reset, and the reset may overtake the answer. So the
answer is sent first, its end only when the body has been taken, within bounds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from penstock.loop.lingering import LINGER_BYTES, LINGER_S, MOST_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["drain"]

# a client that sends nothing for so long waits for the connection's end
SILENT_S = 1.0

_draining = 0


async def drain(receive: Callable[[], Awaitable[Any]]) -> None:
    """Receive and forget, until the body or its client ends; at once when many are drained already."""
    global _draining
    if _draining >= MOST_AT_ONCE:
        return
    _draining += 1
    try:
        await _forget(receive)
    except TimeoutError:
        pass
    finally:
        _draining -= 1


async def _forget(receive: Callable[[], Awaitable[Any]]) -> None:
    now_s = asyncio.get_running_loop().time
    until_s, left_bytes, has_more = now_s() + LINGER_S, LINGER_BYTES, True
    async with asyncio.timeout(SILENT_S) as bound:
        while has_more and left_bytes > 0:
            message = await receive()
            left_bytes -= len(message.get("body", b""))
            has_more = message.get("more_body", False)
            bound.reschedule(min(until_s, now_s() + SILENT_S))
