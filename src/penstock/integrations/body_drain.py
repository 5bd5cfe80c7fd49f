"""Reads the rest of a refused request's body, so that its client reads the answer. For any ASGI server.

A server that closes a connection while its client sends resets it, and the reset may overtake the answer. So the answer
is sent first, and its end after the body has been read, within bounds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from penstock.loop.lingering import LINGER_BYTES, LINGER_S, MOST_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["drain"]

# how long a client may send nothing before the connection ends
IDLE_S = 1.0

_drains = 0


async def drain(receive: Callable[[], Awaitable[Any]]) -> None:
    """Receive messages until the body or its client ends, within bounds; none if many bodies are drained already."""
    global _drains
    if _drains >= MOST_AT_ONCE:
        return
    _drains += 1
    try:
        await _receive_rest(receive)
    except TimeoutError:
        pass
    finally:
        _drains -= 1


async def _receive_rest(receive: Callable[[], Awaitable[Any]]) -> None:
    now_s = asyncio.get_running_loop().time
    until_s, left_bytes, has_more = now_s() + LINGER_S, LINGER_BYTES, True
    async with asyncio.timeout(IDLE_S) as bound:
        while has_more and left_bytes > 0:
            message = await receive()
            left_bytes -= len(message.get("body", b""))
            has_more = message.get("more_body", False)
            bound.reschedule(min(until_s, now_s() + IDLE_S))
