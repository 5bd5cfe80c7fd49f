"""The kernel's accept queue of a listening socket: emptied before a close, which would reset its connections."""

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

__all__ = ["SETTLE_S", "empty", "empty_once", "has_clients", "is_stopped", "stop_new"]

# the time for TCP handshakes that have begun
SETTLE_S = 0.1
POLL_EVERY_S = 0.01
# the time after which a queue that keeps filling is left
KEEP_COMING_S = 1.0

# of <asm/socket.h>; the same number reads the filter
SO_ATTACH_FILTER = 26
FILTER_BYTES = 64
# A filter sees a segment from its TCP header on. It drops segments with the flag SYN, with which a handshake begins.
# Handshakes that have begun end, and accepted sockets inherit a filter that passes all their segments.
FLAGS_AT, SYN = 13, 0x02
DROP_SYN = b"".join(
    struct.pack("=HBBI", *step)
    for step in ((0x30, 0, 0, FLAGS_AT), (0x45, 0, 1, SYN), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
)


def stop_new(listener: socket.socket) -> None:
    """Stop new connections to this listener in the kernel, for all processes; queued ones stay.

    New TCP clients get no answer until the socket is closed, then a reset. A Unix socket loses its name. On a kernel
    without such filters, new clients still connect.
    """
    with suppress(OSError, ImportError):
        if listener.family == socket.AF_UNIX:
            os.unlink(listener.getsockname())
            return
        # imported here: only the end of a server needs it
        import ctypes

        program = ctypes.create_string_buffer(DROP_SYN, len(DROP_SYN))
        packed = struct.pack("HP", len(DROP_SYN) // 8, ctypes.addressof(program))
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, packed)


def is_stopped(listener: Any) -> bool:
    """Return True after `stop_new` for this listener, in this process or in another that shares it."""
    with suppress(OSError):
        if listener.family == socket.AF_UNIX:
            return not os.path.exists(listener.getsockname())
        return bool(listener.getsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, FILTER_BYTES))
    return False


def has_clients(listener: Any) -> bool:
    """Return True if a client waits to be accepted."""
    if listener.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))


async def empty(loop: Any, listeners: Sequence[Any], until_s: float) -> None:
    """Wait until the loop's servers have accepted the queued connections, at most to `until_s` of the loop's clock.

    A listener that other processes keep open is left after a moment: its queue may never be empty.
    """
    await asyncio.sleep(min(SETTLE_S, max(until_s - loop.time(), 0.0)))
    await _accepted(loop, listeners, until_s, _has_stopped_clients)


async def empty_once(loop: Any, listeners: Sequence[Any], until_s: float) -> None:
    """Wait until the queues are empty at one moment, for listeners whose clients keep connecting."""
    await _accepted(loop, listeners, min(loop.time() + KEEP_COMING_S, until_s), has_clients)


async def _accepted(loop: Any, listeners: Sequence[Any], until_s: float, is_due: Callable[[Any], bool]) -> None:
    while loop.time() < until_s:
        if not any(map(is_due, listeners)) and not _deferred_count(loop):
            return
        await asyncio.sleep(POLL_EVERY_S)


def _has_stopped_clients(listener: Any) -> bool:
    return has_clients(listener) and is_stopped(listener)


def _deferred_count(loop: Any) -> int:
    acceptors = (acceptor for server in loop.servers() for acceptor in getattr(server, "_acceptors", {}).values())
    return sum(acceptor.deferred for acceptor in acceptors)
