"""The kernel's accept queue of a listening socket. A close resets what is in it, so it is emptied before."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["empty", "empty_once", "has_clients", "refuse_new", "refuses_new"]

# a handshake that has begun may end within it, and its client then counts as accepted
SETTLE_S = 0.1
LOOK_EVERY_S = 0.01
# a queue to which clients keep coming faster than they are accepted is given up then
KEEP_COMING_S = 1.0

# of <asm/socket.h>; the same number reads the filter
SO_ATTACH_FILTER = 26
FILTER_BYTES = 64
# A filter sees a segment from its TCP header on: those with the flag SYN are dropped, at a listener the begin of each
# handshake. What has begun ends, and the sockets that are accepted inherit a filter that lets all of theirs pass.
FLAGS_AT, SYN = 13, 0x02
DROP_SYN = b"".join(
    struct.pack("=HBBI", *step)
    for step in ((0x30, 0, 0, FLAGS_AT), (0x45, 0, 1, SYN), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
)


def refuse_new(listener: socket.socket) -> None:
    """Have the kernel take no new client for this listener, in whichever process; clients it has taken stay.

    New TCP clients get no answer until the socket is closed, and are refused then. A Unix socket loses its name. Where
    the kernel has no such filter, clients keep coming.
    """
    with suppress(OSError, ImportError):
        if listener.family == socket.AF_UNIX:
            os.unlink(listener.getsockname())
            return
        # late, and only at the end of a server
        import ctypes

        program = ctypes.create_string_buffer(DROP_SYN, len(DROP_SYN))
        told = struct.pack("HP", len(DROP_SYN) // 8, ctypes.addressof(program))
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, told)


def refuses_new(listener: Any) -> bool:
    """Whether `refuse_new` was called for this listener, in this process or in another that shares it."""
    with suppress(OSError):
        if listener.family == socket.AF_UNIX:
            return not os.path.exists(listener.getsockname())
        return bool(listener.getsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, FILTER_BYTES))
    return False


def has_clients(listener: Any) -> bool:
    """Whether a client waits to be accepted."""
    if listener.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))


async def empty(loop: Any, listeners: Sequence[Any], until_s: float) -> None:
    """Let the loop's servers accept what the kernel has for them, no longer than `until_s` on the loop's clock.

    A listener that others go on with is left after a moment: its queue may never be empty.
    """
    await asyncio.sleep(min(SETTLE_S, max(until_s - loop.time(), 0.0)))
    await _accepted(loop, listeners, until_s, _owes)


async def empty_once(loop: Any, listeners: Sequence[Any], until_s: float) -> None:
    """The same for listeners to which clients keep coming: until their queues are empty at one moment."""
    await _accepted(loop, listeners, min(loop.time() + KEEP_COMING_S, until_s), has_clients)


async def _accepted(loop: Any, listeners: Sequence[Any], until_s: float, owes: Callable[[Any], bool]) -> None:
    while loop.time() < until_s:
        if not any(map(owes, listeners)) and not _deferred_count(loop):
            return
        await asyncio.sleep(LOOK_EVERY_S)


def _owes(listener: Any) -> bool:
    return has_clients(listener) and refuses_new(listener)


def _deferred_count(loop: Any) -> int:
    acceptors = (acceptor for server in loop.servers() for acceptor in getattr(server, "_acceptors", {}).values())
    return sum(acceptor.deferred for acceptor in acceptors)
