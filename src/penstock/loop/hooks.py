"""What the runtime hangs on a loop: a scope around each run, the servers it opened, a hook around task creation.

The loop calls these and knows nothing of who set them (signals, policy and runner are `penstock.runtime`'s).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from asyncio import base_events
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias
from weakref import WeakSet

from penstock.loop.servers import FewAccepts, ReaderAcceptor, Server

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractContextManager

__all__ = ["LoopHooks", "TaskHook", "TaskWatcher"]

logger = logging.getLogger("penstock.loop")

# hook(loop, coro, make, **kwargs) -> task
TaskHook: TypeAlias = Callable[..., Any]
# hook(loop), with the loop that drains
DrainHook: TypeAlias = Callable[[Any], Awaitable[Any] | None]


def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **kwargs)


class TaskWatcher(Protocol):
    """Whoever wants to know what becomes of the loop's tasks."""

    def on_problem(self, context: dict[str, Any]) -> None:
        """The loop's exception handler is about to be called with this context."""

    def on_close(self) -> None:
        """The loop is about to be closed, whatever is left in it."""


def _keep_wakeup_fd() -> None:
    # asyncio sets its own descriptor with a handler, and none with a loop's last: be it the running loop or another
    running = asyncio._get_running_loop()
    if isinstance(running, LoopHooks) and running._signals_to is not None:
        signal.set_wakeup_fd(running._signals_to, warn_on_full_buffer=False)


class LoopHooks(asyncio.BaseEventLoop):
    """Mixin, before asyncio's loop in the bases. Everything is off until the runtime sets it."""

    _run_scope: Callable[[], AbstractContextManager[Any]] | None = None
    _task_hook: TaskHook | None = None
    _user_factory: Any = None
    _main: Any = None
    _servers: WeakSet[Server] | None = None
    _max_connections: int | None = None
    _drain_hooks: tuple[DrainHook, ...] = ()
    _task_watcher: TaskWatcher | None = None
    # set when a signal, not the program, ended the run: what `run_until_complete` raises for it
    ended_by: BaseException | None = None
    # ... and what `close` raises, when the signal came during the clean-up
    ended_by_at_close: BaseException | None = None
    # the descriptor that signals are written to during a run, where it is not the program's or asyncio's
    _signals_to: int | None = None
    _wrap_factory: Callable[[Callable[[], Any]], Callable[[], Any]] | None = None

    # a scope around each run

    def set_run_scope(self, scope: Callable[[], AbstractContextManager[Any]] | None) -> None:
        """Enter `scope()` around every run of the loop."""
        self._run_scope = scope

    def run_forever(self) -> None:
        """As asyncio's, inside the run scope."""
        if self._run_scope is None or self.is_running():
            super().run_forever()
            return
        self._run_within(self._run_scope(), super().run_forever)

    def _run_within(self, scope: AbstractContextManager[Any], run: Callable[[], None]) -> None:
        with scope:
            run()

    def run_until_complete(self, future: Any) -> Any:
        """As asyncio's; a run that a signal ended raises what stands for the signal, in place of its result."""
        outer, self._main = self._main, future
        try:
            result = super().run_until_complete(future)
        except asyncio.CancelledError:
            self._raise_ended_by()
            raise
        finally:
            # what was not raised must not be raised by a later run, the runner's clean-up
            self._main, ended_by, self.ended_by = outer, self.ended_by, None
        if ended_by is not None:
            raise ended_by
        return result

    def _raise_ended_by(self) -> None:
        if self.ended_by is not None:
            ended_by, self.ended_by = self.ended_by, None
            raise ended_by from None

    def main_task(self) -> asyncio.Future[Any] | None:
        """What `run_until_complete` waits for; None under a bare `run_forever`."""
        if self._main is None or asyncio.isfuture(self._main):
            return self._main
        return next((task for task in asyncio.all_tasks(self) if task.get_coro() is self._main), None)

    def signal_fd(self) -> int:
        """What `signal.set_wakeup_fd` takes, so that a signal ends this loop's wait."""
        fd: int = self._csock.fileno()  # type: ignore[attr-defined]
        return fd

    def has_signal_handlers(self) -> bool:
        """Whether the program has set a handler by `add_signal_handler`."""
        return bool(self._signal_handlers)  # type: ignore[attr-defined]

    def watch_signals(self, fd: int) -> None:
        """Have every signal written to `fd` until `unwatch_signals`, unless the program has a descriptor of its own."""
        ours = {-1, fd, self._signals_to, self.signal_fd() if self.has_signal_handlers() else -1}
        # noted first: a signal's handler may raise between any two of these lines
        self._signals_to = fd
        taken = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        if taken not in ours:
            signal.set_wakeup_fd(taken)
            self._signals_to = None

    def unwatch_signals(self) -> None:
        """Undo `watch_signals`, unless another descriptor was set meanwhile."""
        if self._signals_to is None:
            return
        taken = signal.set_wakeup_fd(self.signal_fd() if self.has_signal_handlers() else -1)
        if taken != self._signals_to:
            signal.set_wakeup_fd(taken)
        self._signals_to = None

    def relay_signals(self, numbers: bytes) -> None:
        """Take signals' numbers as the loop's own descriptor would. Any thread may call it, for a closed loop too."""
        sock = self._csock  # type: ignore[attr-defined]
        if sock is not None:
            with suppress(OSError):
                sock.send(numbers)

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: object) -> None:
        """As asyncio's."""
        super().add_signal_handler(sig, callback, *args)
        _keep_wakeup_fd()

    def remove_signal_handler(self, sig: int) -> bool:
        """As asyncio's."""
        was_removed = super().remove_signal_handler(sig)
        _keep_wakeup_fd()
        return was_removed

    # the servers it opened

    async def create_server(self, protocol_factory: Callable[[], Any], *args: Any, **kwargs: Any) -> Server:
        """As asyncio's; the server can be paused and bounded, and is remembered, weakly."""
        return self.adopt_server(await super().create_server(self._wrapped(protocol_factory), *args, **kwargs))

    async def create_unix_server(self, protocol_factory: Callable[[], Any], *args: Any, **kwargs: Any) -> Server:
        """As `create_server`."""
        return self.adopt_server(await super().create_unix_server(self._wrapped(protocol_factory), *args, **kwargs))

    def wrap_protocol_factories(self, wrap: Callable[[Callable[[], Any]], Callable[[], Any]]) -> None:
        """Have servers that are made from now on use `wrap(protocol_factory)`."""
        self._wrap_factory = wrap

    def _wrapped(self, protocol_factory: Callable[[], Any]) -> Callable[[], Any]:
        return protocol_factory if self._wrap_factory is None else self._wrap_factory(protocol_factory)

    def adopt_server(self, server: asyncio.Server) -> Server:
        """Have asyncio's server become ours, once; any other kind of server is only remembered."""
        if self._servers is None:
            self._servers = WeakSet()
        if type(server) is base_events.Server:
            server.__class__ = Server
            adopted: Any = server
            adopted.max_connections = self._max_connections
        self._servers.add(server)  # type: ignore[arg-type]
        return server  # type: ignore[return-value]

    def set_max_connections(self, count: int | None) -> None:
        """The bound on connections that servers made from now on begin with; None: any number."""
        self._max_connections = count

    def servers(self) -> list[Server]:
        """The servers this loop opened that are still there."""
        return list(self._servers or ())

    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        # asyncio calls it before anything is accepted, and again a second after it ran out of descriptors
        if isinstance(sock, FewAccepts):
            sock = sock.sock
        begin = partial(super()._start_serving, protocol_factory, sock, sslcontext, server, *args, **kwargs)  # type: ignore[misc]
        if not isinstance(server, base_events.Server):
            begin()
        else:
            self.adopt_server(server)._begin_accepting(sock, ReaderAcceptor(self, sock, begin))

    def _accept_connection(
        self,
        protocol_factory: Any,
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        room, now = server._room() if isinstance(server, Server) else None, self._accepts_now()
        if now is not None:
            room = now if room is None else min(room, now)
        if room is not None:
            # each gets a task, which attaches it in the next turn: until then nobody knows how many there are
            if not room or server._is_attaching:
                return
            sock = FewAccepts(sock, room)  # type: ignore[assignment]
            server._is_attaching = True
        super()._accept_connection(protocol_factory, sock, sslcontext, server, backlog, *args, **kwargs)  # type: ignore[misc]
        if room is not None:
            self.call_soon(server._attached)

    def _accepts_now(self) -> int | None:
        """How many connections this turn may accept from one socket; None: the loop is not behind."""
        return None

    def add_drain_hook(self, hook: Callable[[Self], Awaitable[Any] | None]) -> None:
        """Call `hook(loop)` when a drain begins; an awaitable it returns is waited for, within the drain's time."""
        self._drain_hooks = (*self._drain_hooks, hook)

    def drain_hooks(self) -> Iterator[DrainHook]:
        """The drain hooks, in the order they were added."""
        return iter(self._drain_hooks)

    # who watches its tasks

    def set_task_watcher(self, watcher: TaskWatcher | None) -> None:
        """Tell `watcher` of problems that the exception handler gets to see, and of the loop's end."""
        self._task_watcher = watcher

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """As asyncio's; the watcher hears of it first."""
        if self._task_watcher is not None:
            self._notify_watcher(self._task_watcher.on_problem, context)
        super().call_exception_handler(context)

    def close(self) -> None:
        """As asyncio's; the watcher hears of it first."""
        if self._task_watcher is not None and not self.is_running() and not self.is_closed():
            self._notify_watcher(self._task_watcher.on_close)
        super().close()
        ended_by, self.ended_by_at_close = self.ended_by_at_close, None
        if ended_by is not None:
            raise ended_by

    def _notify_watcher(self, tell: Callable[..., None], *what: Any) -> None:
        # objects go in the middle of the interpreter's end too, when nothing can be imported any more
        if sys.is_finalizing():
            return
        try:
            tell(*what)
        except Exception:
            self._task_watcher = None
            logger.exception("the watcher of %r raised, and is told nothing any more", self)

    # a hook around task creation

    def set_task_hook(self, hook: TaskHook | None) -> None:
        """Have `hook(loop, coro, make, **kwargs)` make every task; `make(loop, coro, **kwargs)` is the next factory."""
        self._task_hook = hook
        self.set_task_factory(self._user_factory)

    def get_task_hook(self) -> TaskHook | None:
        """The hook given to `set_task_hook`."""
        return self._task_hook

    def set_task_factory(self, factory: Any) -> None:
        """As asyncio's; a task hook stays in place and is handed this factory as its `make`."""
        super().set_task_factory(factory)
        self._user_factory = factory
        if self._task_hook is not None:
            super().set_task_factory(self._hooked(self._task_hook, factory or _make_task))

    def get_task_factory(self) -> Any:
        """The factory given to `set_task_factory`, without the hook around it."""
        return super().get_task_factory() if self._task_hook is None else self._user_factory

    @staticmethod
    def _hooked(hook: TaskHook, make: Any) -> Any:
        # only the keywords the caller passed: which ones there are differs between Python versions
        def factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
            return hook(loop, coro, make, **kwargs)

        return factory
