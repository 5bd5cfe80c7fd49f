"""`asyncio.start_server` with a gate: a connection that cannot be served is closed before a handler's task exists.

There are two bounds: `max_connections` of open connections, and the gate's of running handlers. For any asyncio loop.
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

# asyncio's default
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
    """Return a server as asyncio.start_server does, for a `handler` that is a coroutine function.

    Connections beyond `max_connections`, connections that the gate sheds, and new ones that an overloaded loop sheds
    are sent `refusal` and closed. The permit is held while the handler runs. If connections stay open, enter the gate
    for each request within the handler instead. Raises ValueError for `max_connections` below 1, and OSError.
    """
    factory = _factory(_Acceptor(handler, gate, max_connections, refusal), refusal, more)
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
    """Return a server on a Unix socket; see `start_server` for `max_connections` and the rest."""
    factory = _factory(_Acceptor(handler, gate, max_connections, refusal), refusal, more)
    return await asyncio.get_running_loop().create_unix_server(factory, path, **more)


def _factory(acceptor: _Acceptor, refusal: bytes, more: dict[str, Any]) -> Callable[[], asyncio.Protocol]:
    """Return a factory of protocols like asyncio.start_server's."""
    loop, limit = asyncio.get_running_loop(), more.pop("limit", LIMIT_BYTES)
    return lambda: _Protocol(asyncio.StreamReader(limit, loop), acceptor.open, loop, overload_reply=refusal or None)


class _Protocol(asyncio.StreamReaderProtocol):
    """asyncio's protocol with an overload reply until its connection is made: then a handler may send first."""

    def __init__(self, reader: asyncio.StreamReader, *more: Any, overload_reply: bytes | None) -> None:
        super().__init__(reader, *more)
        self.overload_reply = overload_reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remove the overload reply, and do as asyncio's protocol."""
        self.overload_reply = None
        super().connection_made(transport)


class _Acceptor:
    """Admits connections. asyncio calls `open`, and makes a task of its result if that is a coroutine."""

    def __init__(self, handler: Handler, gate: Gate | None, max_connections: int | None, refusal: bytes) -> None:
        if max_connections is not None and max_connections < 1:
            raise ValueError(f"max_connections={max_connections}: allowed is 1 or more, or None for no bound")
        self._handler = handler
        self._gate = gate
        self._most = max_connections
        self._refusal = refusal
        self._open_count = 0

    def open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Handling | None:
        """Return the handler's coroutine, or None for a connection that is shed."""
        entry = waiter = None
        try:
            if self._most is not None and self._open_count >= self._most:
                count_shed("connections", "limit")
                raise Overloaded(reason="limit", limit=self._most)
            if self._gate is not None:
                entry = self._gate.entry()
                waiter = entry.ask()
        except Overloaded:
            self._send_refusal(writer)
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
                    self._close_disconnected(writer)
                    return
            await self._handler(reader, writer)
        except Overloaded:
            self._send_refusal(writer)
        finally:
            self._end(entry)

    def _close_disconnected(self, writer: asyncio.StreamWriter) -> None:
        """Close a connection whose client disconnected while it waited."""
        writer.close()
        assert self._gate is not None
        self._gate.count_disconnected()

    def _end(self, entry: Entry | None) -> None:
        self._open_count -= 1
        if entry is not None:
            entry.abandon()

    def _send_refusal(self, writer: asyncio.StreamWriter) -> None:
        if self._refusal:
            writer.write(self._refusal)
        close_lingering(writer.transport, writer)


class Handling(Coroutine[Any, Any, None]):
    """A coroutine with a clean-up before its first step: a task that is cancelled by then never takes that step."""

    def __init__(self, body: Coroutine[Any, Any, None], clean_up: Callable[[], None]) -> None:
        self._body = body
        self._clean_up: Callable[[], None] | None = clean_up

    def send(self, value: Any) -> Any:
        """Resume the coroutine."""
        self._clean_up = None
        return self._body.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an exception in the coroutine."""
        self._run_clean_up()
        return self._body.throw(*error)

    def close(self) -> None:
        """Close the coroutine."""
        self._run_clean_up()
        self._body.close()

    def __await__(self) -> Generator[Any, Any, None]:
        self._clean_up = None
        return self._body.__await__()

    def _run_clean_up(self) -> None:
        clean_up, self._clean_up = self._clean_up, None
        if clean_up is not None:
            clean_up()
