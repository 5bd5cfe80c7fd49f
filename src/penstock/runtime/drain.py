"""A drain: empty the accept queues, stop accepting, wait a bounded time for work in flight, cancel the rest.

`inflight.py` finds the work in flight: connections and their tasks, jobs, admitted requests. The drain does not wait
for other tasks; a drain hook can (`loop.add_drain_hook`). The listening sockets are closed but the servers stay open:
`Server.close` would cancel `serve_forever`, and with it the main task, before the work is done.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import socket
from typing import TYPE_CHECKING, Any

from penstock.loop.servers import Server
from penstock.loop.transports import transports_of
from penstock.runtime.acceptqueue import empty_once
from penstock.runtime.deadline import write_line
from penstock.runtime.inflight import Inflight, close_idle, find_inflight

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.loop import EventLoop

__all__ = ["Drain"]

logger = logging.getLogger("penstock")

# the end of the last work causes no event: poll at this interval
POLL_EVERY_S = 0.01
# work that has ended may have started other work, such as a task with the result of a job
QUIET_POLLS = 2


class Drain:
    """One drain of one loop. Ownership: it keeps its task until the task is done."""

    def __init__(self, loop: EventLoop, drain_s: float, signum: int) -> None:
        self._loop = loop
        self._drain_s = drain_s
        self._signal_name = signal.Signals(signum).name
        self._task: asyncio.Task[None] | None = None
        self._asked: set[int] = set()
        # also read by the deadline's thread
        self.waits_for = ""

    def start(self, then: Callable[[], None]) -> None:
        """Start the drain, in the loop, and call `then` at its end."""
        # not made by the task factory, which is the program's
        self._task = asyncio.Task(self._run(then), loop=self._loop, name="penstock-drain")

    async def _run(self, then: Callable[[], None]) -> None:
        deadline = self._loop.time() + self._drain_s
        try:
            await empty_once(self._loop, _listeners(self._loop), deadline)
            for server in self._loop.servers():
                stop_accepting(self._loop, server)
            await self._call_hooks(deadline)
            await self._wait_for_work(deadline)
            await self._cancel_rest()
        except Exception as error:
            self._loop.call_exception_handler({"message": "the drain failed", "exception": error})
        # not after a cancellation of the drain: the main task has ended before it, and the loop is being closed
        then()

    async def _call_hooks(self, deadline: float) -> None:
        for hook in self._loop.drain_hooks():
            self.waits_for = f"drain hook {hook!r}"
            try:
                result = hook(self._loop)
                if inspect.isawaitable(result):
                    await asyncio.wait_for(result, max(0.0, deadline - self._loop.time()))
            except Exception as error:
                context = {"message": f"drain hook {hook!r} failed", "exception": error}
                self._loop.call_exception_handler(context)

    async def _wait_for_work(self, deadline: float) -> None:
        # idle connections are closed and end before the first message
        self._poll()
        await asyncio.sleep(min(self._drain_s, POLL_EVERY_S))
        quiet_count, found = 0, self._poll()
        if found and self._drain_s > 0:
            logger.warning(
                "%s: waiting up to %g s for %s; a second signal ends at once",
                self._signal_name,
                self._drain_s,
                self.waits_for,
            )
        while quiet_count < QUIET_POLLS:
            if self._loop.time() >= deadline:
                if found:
                    self._report_left()
                return
            await asyncio.sleep(POLL_EVERY_S)
            found = self._poll()
            quiet_count = 0 if found else quiet_count + 1

    def _poll(self) -> Inflight:
        found = find_inflight(self._loop, {self._task, self._loop.main_task()}, self._asked)
        self.waits_for = str(found)
        close_idle(found)
        return found

    def _report_left(self) -> None:
        passed = f"{self._drain_s:g} s have passed"
        write_line(f"penstock: {self._signal_name}: {passed}, cancelling the rest: {self.waits_for}")

    async def _cancel_rest(self) -> None:
        for task in self._other_tasks():
            task.cancel()
        # one turn, in which cancelled tasks may still write
        await asyncio.sleep(0)
        for server in self._loop.servers():
            abort_connections(self._loop, server)

    def _other_tasks(self) -> set[asyncio.Task[Any]]:
        not_work = {self._task, self._loop.main_task()}
        return {task for task in asyncio.all_tasks(self._loop) if task not in not_work}


def _listeners(loop: Any) -> list[Any]:
    """Return the sockets of accepting servers; a server that is paused or not started keeps its clients."""
    accepting = [server for server in loop.servers() if getattr(server, "is_accepting", server.is_serving)()]
    return [sock for server in accepting for sock in server._sockets]


def stop_accepting(loop: Any, server: Any) -> None:
    """Close the listening sockets. The server object stays open, on sockets without an address."""
    if not server.is_serving():
        return
    if isinstance(server, Server):
        # no later event resumes it
        server._pause("drain")
    listening = server._sockets
    for index, sock in enumerate(listening):
        listening[index] = socket.socket(sock.family, sock.type)
        loop._stop_serving(sock)


def abort_connections(loop: Any, server: Any) -> None:
    """Abort the connections of the server."""
    if isinstance(server, Server):
        server._close_deferred()
    if hasattr(server, "abort_clients"):
        server.abort_clients()
        return
    # Before 3.13 a server does not know its connections.
    for transport in transports_of(loop):
        if getattr(transport, "_server", None) is server:
            transport.abort()
