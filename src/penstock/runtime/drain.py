"""A drain: accept what the kernel has taken, stop accepting, let work in flight end within a time, cancel the rest.

What is in flight is `inflight.py`'s part: connections and what serves them, jobs, admitted requests. Any other task is
not waited for; a drain hook can wait for it (`loop.add_drain_hook`). The servers' listening sockets are closed but the
servers stay: `Server.close` would cancel `serve_forever`, and with it the main task, before the work is done.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import socket
from typing import TYPE_CHECKING, Any

from penstock.loop.servers import Server
from penstock.runtime.acceptqueue import empty_once
from penstock.runtime.deadline import tell
from penstock.runtime.inflight import Inflight, close_idle, look

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.loop import EventLoop

__all__ = ["Drain"]

logger = logging.getLogger("penstock")

# nothing tells when the last work has ended: look this often
LOOK_EVERY_S = 0.01
# what has ended at one look may have handed its work on: a task goes on with a job's result
QUIET_LOOKS = 2


class Drain:
    """One drain of one loop. Ownership: it keeps its own task until that is done."""

    def __init__(self, loop: EventLoop, drain_s: float, signum: int) -> None:
        self._loop = loop
        self._drain_s = drain_s
        self._signal_name = signal.Signals(signum).name
        self._task: asyncio.Task[None] | None = None
        self._asked: set[int] = set()
        # read by the deadline's thread too
        self.waits_for = ""

    def start(self, then: Callable[[], None]) -> None:
        """Begin, from inside the loop, and call `then` when it is over."""
        # made past the task factories: it is not the program's
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
        # not when the drain itself is cancelled: then the main task has ended before it, and the loop is being closed
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
        # what is idle is closed and ends, before anything is said to be waited for
        self._look()
        await asyncio.sleep(min(self._drain_s, LOOK_EVERY_S))
        quiet_count, found = 0, self._look()
        if found and self._drain_s > 0:
            logger.warning(
                "%s: waiting up to %g s for %s; a second signal ends at once",
                self._signal_name,
                self._drain_s,
                self.waits_for,
            )
        while quiet_count < QUIET_LOOKS:
            if self._loop.time() >= deadline:
                if found:
                    self._tell_left()
                return
            await asyncio.sleep(LOOK_EVERY_S)
            found = self._look()
            quiet_count = 0 if found else quiet_count + 1

    def _look(self) -> Inflight:
        found = look(self._loop, {self._task, self._loop.main_task()}, self._asked)
        self.waits_for = str(found)
        close_idle(found)
        return found

    def _tell_left(self) -> None:
        passed = f"{self._drain_s:g} s have passed"
        tell(f"penstock: {self._signal_name}: {passed}, cancelling what is left: {self.waits_for}")

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


def _listeners(loop: Any) -> list[Any]:
    """The sockets whose servers accept: one that is paused, or was never started, leaves its clients alone."""
    accepting = [server for server in loop.servers() if getattr(server, "is_accepting", server.is_serving)()]
    return [sock for server in accepting for sock in server._sockets]


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
        server._close_deferred()
    if hasattr(server, "abort_clients"):
        server.abort_clients()
        return
    # before 3.13 the server does not know them: asyncio's loop has a table of transports, the native one of all sources
    sources = loop._sources() if hasattr(loop, "_sources") else loop._transports
    for transport in list(sources.values()):
        if getattr(transport, "_server", None) is server:
            transport.abort()
