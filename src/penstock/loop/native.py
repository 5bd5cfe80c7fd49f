"""The native core as the package sees it: its type, and the one test for a loop that has it."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    import contextvars
    import socket
    from collections.abc import Callable

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
    from penstock._core.sheds import ShedCounts
    from penstock._core.tasks.ledger import LedgerSnapshot
    from penstock._core.tasks.probe import Probe
    from penstock._core.tasks.rows import QueueFigures
    from penstock._core.tasks.scan import TaskScan

__all__ = ["HEARTBEAT_LEVEL", "NativeCore", "native_core", "tls_engine", "unknown_layout"]

# the level of task telemetry from which on the native loop has a heartbeat
HEARTBEAT_LEVEL = 2


class NativeCore(Protocol):
    """The interface of a native loop beside asyncio's. Call it in the loop's thread, or while the loop does not run.

    It refers to its loop: an object that must not keep the loop alive keeps what it needs of the core (the probe, say).
    """

    # on_disconnect(transport, reason, bytes, seconds) -> the exception for `connection_lost` of a slow peer
    on_disconnect: Callable[..., BaseException | None] | None

    def configure(
        self,
        *,
        poll_every_turns: int,
        poll_every_us: int,
        spin_us: int,
        timer_slack_us: int,
        read_budget_bytes: int,
        accept_batch: int,
    ) -> None:
        """Set the poll policy and the budgets of one turn: in turns, microseconds, bytes and connections."""

    def expect_event(self, spin_ns: int, /) -> None:
        """Have the next blocking poll spin for `spin_ns` nanoseconds before it sleeps: an event is about to arrive."""

    def dispose(self) -> None:
        """Release every kernel object and reference. The loop must be closed."""

    def watch_lag(
        self, lag: Lag | None, arrival: contextvars.ContextVar[Any] | None = None, closes_abandoned: bool = True
    ) -> None:
        """Defer reads while the loop is behind, and call `lag.report` at each change; None: never.

        `arrival` is set to the time at which the data of a deferred read came, in seconds on the loop's clock. Unless
        `closes_abandoned`, a client that shuts its side down while it is deferred is read all the same.
        """

    def close_abandoned(self, older_ns: int, /) -> int:
        """Close the deferred connections older than `older_ns` whose client has shut its side down. Return a count."""

    def accepts_now(self) -> int | None:
        """Return how many connections this turn may accept from one listening socket; None: the loop is not behind."""

    @property
    def deferred_reads(self) -> DeferredReads:
        """The deferred reads."""

    @property
    def deferred_accepts(self) -> DeferredAccepts:
        """The deferred accepts."""

    @property
    def sheds(self) -> ShedCounts:
        """The counts of connections that were shed, and their listener."""

    @property
    def shed_unread_count(self) -> int:
        """The number of connections that were answered unread, for the backlog was full."""

    def limit_connections(self, budget: Budget | None, bounds: TimeoutBounds | None) -> None:
        """Set the budget and the timeouts of streams that are made from now on; None: no such limit."""

    @property
    def limits_connections(self) -> bool:
        """Whether new streams have a budget or timeouts."""

    @property
    def limits_bytes(self) -> bool:
        """Whether new streams have a budget."""

    @property
    def wheel(self) -> Wheel:
        """The timer wheel of connection deadlines."""

    def make_stream(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
        context: contextvars.Context | None = None,
    ) -> Stream:
        """Make the native transport over a connected stream socket."""

    def make_connected(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        context: contextvars.Context | None = None,
    ) -> Stream:
        """Make the native transport over an internet socket that has just been made and connected."""

    def make_listener(
        self,
        sock: socket.socket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        server: asyncio.AbstractServer | None = None,
        context: contextvars.Context | None = None,
    ) -> Listener:
        """Make the native acceptor over a listening stream socket. It accepts after `resume()`."""

    def make_read_pipe(
        self,
        pipe: IO[bytes],
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> ReadPipe | None:
        """Make the native transport over the reading end of a pipe; None for files that asyncio's code has to serve."""

    def make_write_pipe(
        self,
        pipe: IO[bytes],
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> WritePipe | None:
        """Make the native transport over the writing end of a pipe; None for files that asyncio's code has to serve."""

    def make_datagrams(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> DatagramEndpoint:
        """Make the native transport over a UDP or Unix datagram socket; `address` is its only receiver, or None."""

    def source_at(self, fd: int, /) -> Source | None:
        """Return the watch, transport or listener at a descriptor, or None."""

    def sources(self) -> dict[int, Source]:
        """Return every watch, transport and listener by descriptor, without the loop's own."""

    @property
    def probe(self) -> Probe:
        """The probe, which records the loop's tasks."""

    def limit_tasks(self, limit: int, on_full: Callable[[Any], object] | None = None) -> None:
        """Call `on_full(coro)` before a task beyond `limit` is made; 0: never. Its exception leaves `create_task`."""

    def watch_room(self, on_room: Callable[[], object] | None, /) -> None:
        """Call `on_room()` in each turn in which fewer tasks live than `limit_tasks` allows; None: no more."""

    def snapshot_tasks(self) -> LedgerSnapshot:
        """Return a copy of the record of each live task."""

    def begin_scan(self) -> TaskScan:
        """Return a scan of the records of live tasks, to be filled by `TaskScan.take`."""

    def queue_figures(self) -> QueueFigures:
        """Return the lengths of the loop's queues."""


def native_core(loop: object) -> NativeCore | None:
    """Return the native core of `loop`; None for asyncio's loops, the pure loop and those of other libraries."""
    core: NativeCore | None = getattr(loop, "_native_core", None)
    return core


def unknown_layout() -> tuple[str, ...]:
    """Return the names of the private structs that the core does not know in this Python. It must be built.

    It reads tasks and frames by attributes then, with the same results.
    """
    from penstock._core.tasks.layout import unknown

    return unknown()


def tls_engine() -> tuple[str, str]:
    """Return the engine of TLS connections, "openssl" or "memory", and the reason for "memory". The core must be
    built.
    """
    from penstock._core.tls import sslobject

    return sslobject.engine(), sslobject.why_memory()
