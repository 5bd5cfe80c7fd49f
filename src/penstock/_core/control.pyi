import asyncio
import contextvars
import socket
from collections.abc import Callable
from typing import IO, Any, Self, final

from penstock._core.datagrams.endpoint import DatagramEndpoint
from penstock._core.events.poller import Source
from penstock._core.limits.budget import Budget
from penstock._core.limits.peer_timeouts import TimeoutBounds
from penstock._core.limits.wheel import Wheel
from penstock._core.net.deferred_accepts import DeferredAccepts
from penstock._core.net.listen import Listener
from penstock._core.net.stream import Stream
from penstock._core.overload.deferred_reads import DeferredReads
from penstock._core.overload.lag import Lag
from penstock._core.pipes.reader import ReadPipe
from penstock._core.pipes.writer import WritePipe
from penstock._core.reactor import Reactor
from penstock._core.sheds import ShedCounts
from penstock._core.tasks.ledger import LedgerSnapshot
from penstock._core.tasks.probe import Probe
from penstock._core.tasks.rows import QueueFigures
from penstock._core.tasks.scan import TaskScan

@final
class ReactorControl:
    on_disconnect: Callable[..., BaseException | None] | None
    def __new__(cls, reactor: Reactor) -> Self: ...
    def configure(
        self,
        *,
        poll_every_turns: int,
        poll_every_us: int,
        spin_us: int,
        timer_slack_us: int,
        read_budget_bytes: int,
        accept_batch: int,
    ) -> None: ...
    def expect_event(self, spin_ns: int) -> None: ...
    def dispose(self) -> None: ...
    def watch_lag(
        self, lag: Lag | None, arrival: contextvars.ContextVar[Any] | None = None, closes_abandoned: bool = True
    ) -> None: ...
    def close_abandoned(self, older_ns: int) -> int: ...
    def accepts_now(self) -> int | None: ...
    @property
    def deferred_reads(self) -> DeferredReads: ...
    @property
    def deferred_accepts(self) -> DeferredAccepts: ...
    @property
    def sheds(self) -> ShedCounts: ...
    @property
    def shed_unread_count(self) -> int: ...
    def limit_connections(self, budget: Budget | None, bounds: TimeoutBounds | None) -> None: ...
    @property
    def limits_connections(self) -> bool: ...
    @property
    def limits_bytes(self) -> bool: ...
    @property
    def wheel(self) -> Wheel: ...
    def make_stream(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
        context: contextvars.Context | None = None,
    ) -> Stream: ...
    def make_connected(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        context: contextvars.Context | None = None,
    ) -> Stream: ...
    def make_listener(
        self,
        sock: socket.socket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        server: asyncio.AbstractServer | None = None,
        context: contextvars.Context | None = None,
    ) -> Listener: ...
    def make_read_pipe(
        self,
        pipe: IO[bytes],
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> ReadPipe | None: ...
    def make_write_pipe(
        self,
        pipe: IO[bytes],
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> WritePipe | None: ...
    def make_datagrams(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> DatagramEndpoint: ...
    def source_at(self, fd: int) -> Source | None: ...
    def sources(self) -> dict[int, Source]: ...
    @property
    def probe(self) -> Probe: ...
    def limit_tasks(self, limit: int, on_full: Callable[[Any], object] | None = None) -> None: ...
    def watch_room(self, on_room: Callable[[], object] | None) -> None: ...
    def snapshot_tasks(self) -> LedgerSnapshot: ...
    def begin_scan(self) -> TaskScan: ...
    def queue_figures(self) -> QueueFigures: ...
