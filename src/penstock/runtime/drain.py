"""A drain: stop accepting, let work in flight end within a time, cancel the rest.

Work in flight is every task but the main one and every connection a server of this loop has accepted. A background
task that never ends therefore makes a drain last its whole time; a drain hook can end it (`loop.add_drain_hook`).
The servers' listening sockets are closed but the servers stay: `Server.close` would cancel `serve_forever`, and with
it the main task, before the work is done.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import socket
from typing import TYPE_CHECKING, Any

from penstock.loop.servers import Server, connection_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.loop import EventLoop

__all__ = ["Drain"]

logger = logging.getLogger("penstock")

# asyncio has no event for "the last connection ended" on a server that is still open: look this often
LOOK_EVERY_S = 0.01


class Drain:
    """One drain of one loop. Ownership: it keeps its own task until that is done."""

    def __init__(self, loop: EventLoop, drain_s: float, signum: int) -> None:
        self._loop = loop
        self._drain_s = drain_s
        self._signal_name = signal.Signals(signum).name
        self._task: asyncio.Task[None] | None = None

    def start(self, then: Callable[[], None]) -> None:
        """Begin, from inside the loop, and call `then` when it is over."""
        # made past the task factories: it is not the program's
        self._task = asyncio.Task(self._run(then), loop=self._loop, name="penstock-drain")

    async def _run(self, then: Callable[[], None]) -> None:
        deadline = self._loop.time() + self._drain_s
        try:
            for server in self._loop.servers():
                stop_accepting(self._loop, server)
            await self._call_hooks(deadline)
            self._announce()
            await self._wait_for_work(deadline)
            await self._cancel_rest()
        except Exception as error:
            self._loop.call_exception_handler({"message": "the drain failed", "exception": error})
        # not when the drain itself is cancelled: then the main task has ended before it, and the loop is being closed
        then()

    async def _call_hooks(self, deadline: float) -> None:
        for hook in self._loop.drain_hooks():
            try:
                result = hook(self._loop)
                if inspect.isawaitable(result):
                    await asyncio.wait_for(result, max(0.0, deadline - self._loop.time()))
            except Exception as error:
                context = {"message": f"drain hook {hook!r} failed", "exception": error}
                self._loop.call_exception_handler(context)

    def _announce(self) -> None:
        tasks, connections = len(self._other_tasks()), self._connection_count()
        if (tasks or connections) and self._drain_s > 0:
            logger.warning(
                "%s: waiting up to %g s for %d tasks and %d connections; a second signal ends at once",
                self._signal_name,
                self._drain_s,
                tasks,
                connections,
            )

    async def _wait_for_work(self, deadline: float) -> None:
        while (left_s := deadline - self._loop.time()) > 0:
            tasks = self._other_tasks()
            if self._connection_count():
                await asyncio.sleep(min(left_s, LOOK_EVERY_S))
            elif tasks:
                await asyncio.wait(tasks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            else:
                return

    async def _cancel_rest(self) -> None:
        for task in self._other_tasks():
            task.cancel()
        # a turn, in which what was cancelled may still write its last words
        await asyncio.sleep(0)
        for server in self._loop.servers():
            abort_connections(self._loop, server)

    def _other_tasks(self) -> set[asyncio.Task[Any]]:
        not_work = {self._task, self._loop.main_task()}
        return {task for task in asyncio.all_tasks(self._loop) if task not in not_work}

    def _connection_count(self) -> int:
        return sum(connection_count(server) for server in self._loop.servers())


def stop_accepting(loop: Any, server: Any) -> None:
    """Close the listening sockets; the server object stays open, on sockets that nobody can reach."""
    if not server.is_serving():
        return
    if isinstance(server, Server):
        # nothing that ends makes it accept again
        server._pause("drain")
    listening = server._sockets
    for index, sock in enumerate(listening):
        listening[index] = socket.socket(sock.family, sock.type)
        loop._stop_serving(sock)


def abort_connections(loop: Any, server: Any) -> None:
    """End the server's connections at once."""
    if isinstance(server, Server):
        server._close_parked()
    if hasattr(server, "abort_clients"):
        server.abort_clients()
        return
    # before 3.13 the server does not know them: asyncio's loop has a table of transports, the native one of all sources
    sources = loop._sources() if hasattr(loop, "_sources") else loop._transports
    for transport in list(sources.values()):
        if getattr(transport, "_server", None) is server:
            transport.abort()
