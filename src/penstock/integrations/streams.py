"""`asyncio.start_server` with a gate: a connection that cannot be served is closed before a handler's task exists.

Two numbers, never one: `max_connections` bounds what is open, the gate what is worked on. Works on any asyncio loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock.errors import Overloaded
from penstock.loop.lingering import close_lingering
from penstock.pressure.overload.sheds import count_shed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from penstock.pressure.admission.core import Waiter
    from penstock.pressure.admission.gate import Entry, Gate

    Handler: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

__all__ = ["start_server", "start_unix_server"]

# asyncio's own
LIMIT_BYTES = 64 * 1024


async def start_server(
    handler: Handler,
    host: Any = None,
    port: Any = None,
    *,
    gate: Gate | None = None,
    max_connections: int | None = None,
    refusal: bytes = b"",
    **more: Any,
) -> asyncio.Server:
    """As asyncio.start_server, for a `handler` that is a coroutine function.

    A connection beyond `max_connections`, or that the gate refuses, is sent `refusal` and closed; so is a new one that
    a loop which is behind turns away. The permit is held while the handler runs: for connections that stay, take the
    gate around each request within the handler instead.
    """
    factory = _factory(_Door(handler, gate, max_connections, refusal), refusal, more)
    return await asyncio.get_running_loop().create_server(factory, host, port, **more)


async def start_unix_server(
    handler: Handler,
    path: Any = None,
    *,
    gate: Gate | None = None,
    max_connections: int | None = None,
    refusal: bytes = b"",
    **more: Any,
) -> asyncio.Server:
    """The same on a Unix socket: asyncio.start_unix_server."""
    factory = _factory(_Door(handler, gate, max_connections, refusal), refusal, more)
    return await asyncio.get_running_loop().create_unix_server(factory, path, **more)


def _factory(door: _Door, refusal: bytes, more: dict[str, Any]) -> Callable[[], asyncio.Protocol]:
    """Makes protocols as asyncio.start_server does, of its own argument too."""
    loop, limit = asyncio.get_running_loop(), more.pop("limit", LIMIT_BYTES)
    return lambda: _Protocol(asyncio.StreamReader(limit, loop), door.open, loop, overload_reply=refusal or None)


class _Protocol(asyncio.StreamReaderProtocol):
    """asyncio's; until its connection is made, and a handler may speak first, it has an answer ready."""

    def __init__(self, reader: asyncio.StreamReader, *more: Any, overload_reply: bytes | None) -> None:
        super().__init__(reader, *more)
        self.overload_reply = overload_reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio's."""
        self.overload_reply = None
        super().connection_made(transport)


class _Door:
    """Lets connections in. `open` is what asyncio calls: of what it gives back, only a coroutine becomes a task."""

    def __init__(self, handler: Handler, gate: Gate | None, max_connections: int | None, refusal: bytes) -> None:
        if max_connections is not None and max_connections < 1:
            raise ValueError(f"max_connections={max_connections}: allowed is 1 or more, or None for no bound")
        self._handler = handler
        self._gate = gate
        self._most = max_connections
        self._refusal = refusal
        self._open_count = 0

    def open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Handling | None:
        """The handler's coroutine, or None for a connection that is refused."""
        entry = waiter = None
        try:
            if self._most is not None and self._open_count >= self._most:
                count_shed("connections", "limit")
                raise Overloaded(reason="limit", limit=self._most)
            if self._gate is not None:
                entry = self._gate.entry()
                waiter = entry.ask()
        except Overloaded:
            self._refuse(writer)
            return None
        self._open_count += 1
        return Handling(self._handle(reader, writer, entry, waiter), lambda: self._end(entry))

    async def _handle(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, entry: Entry | None, waiter: Waiter | None
    ) -> None:
        try:
            if waiter is not None:
                await waiter
                if writer.is_closing() or reader.at_eof():
                    self._has_left(writer)
                    return
            await self._handler(reader, writer)
        except Overloaded:
            self._refuse(writer)
        finally:
            self._end(entry)

    def _has_left(self, writer: asyncio.StreamWriter) -> None:
        """The client has gone while it waited."""
        writer.close()
        assert self._gate is not None
        self._gate.count_disconnected()

    def _end(self, entry: Entry | None) -> None:
        self._open_count -= 1
        if entry is not None:
            entry.abandon()

    def _refuse(self, writer: asyncio.StreamWriter) -> None:
        if self._refusal:
            writer.write(self._refusal)
        close_lingering(writer.transport, writer)


class Handling(Coroutine[Any, Any, None]):
    """A coroutine that holds something before its first step: a task cancelled by then never takes that step."""

    def __init__(self, body: Coroutine[Any, Any, None], give_back: Callable[[], None]) -> None:
        self._body = body
        self._give_back: Callable[[], None] | None = give_back

    def send(self, value: Any) -> Any:
        """As a coroutine's."""
        self._give_back = None
        return self._body.send(value)

    def throw(self, *error: Any) -> Any:
        """As a coroutine's."""
        self._return()
        return self._body.throw(*error)

    def close(self) -> None:
        """As a coroutine's."""
        self._return()
        self._body.close()

    def __await__(self) -> Generator[Any, Any, None]:
        self._give_back = None
        return self._body.__await__()

    def _return(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()
