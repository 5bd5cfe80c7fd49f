"""Work in flight: what a drain waits for, what it closes at once, and how that is named.

In flight are busy connections of the loop's servers, tasks that serve connections, jobs in lanes and requests that a
gate admitted. Every other task is the program's own affair: a heartbeat never ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import socket
import struct
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from penstock.tasks.awaits.chain import awaited_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from penstock.loop import EventLoop

__all__ = ["Inflight", "close_idle", "look", "mark_tasks"]

# Which tasks serve which connection: a connection's callbacks run in a context of its own, where this is set as its
# protocol is made, and tasks inherit it. The address of the protocol, since many a protocol allows no weak reference: a
# task that outlives its connection may be taken for one of a later connection's.
_served: contextvars.ContextVar[int] = contextvars.ContextVar("penstock_served")
# what a task that serves a connection does: it works; it waits for what may never come; it waits for tasks alone
WORKS, WAITS, JOINS = "works", "waits", "joins"
FROM_OTHERS = frozenset({"queue", "event", "condition"})
ONLY_TASKS = frozenset({"task", "gather"})
# their protocols know best whether they are idle: the method that ends the connection once its request is answered
GRACEFUL = {"uvicorn": "shutdown", "aiohttp": "close"}
MOST_NAMED = 3

# struct tcp_info of <linux/tcp.h>: milliseconds since data was sent and received; bytes received; segments sent
INFO_BYTES = 160
SENT_MS, RECEIVED_MS, RECEIVED_BYTES, SENT_SEGMENTS = ("=I", 44), ("=I", 52), ("=Q", 128), ("=I", 156)


def mark_tasks(factory: Callable[[], Any]) -> Callable[[], Any]:
    """Return a protocol factory that has the tasks of each connection carry its protocol in their context."""

    def make() -> Any:
        protocol = factory()
        _served.set(id(protocol))
        return protocol

    return make


@dataclass(frozen=True, slots=True)
class Inflight:
    """What is in flight at one moment, and the transports that are idle. True while anything is in flight."""

    connections: tuple[Any, ...] = ()
    parked_count: int = 0
    tasks: tuple[asyncio.Task[Any], ...] = ()
    # lane -> jobs, gate -> requests
    jobs: Mapping[str, int] = field(default_factory=dict)
    requests: Mapping[str, int] = field(default_factory=dict)
    idle: tuple[Any, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.connections or self.parked_count or self.tasks or self.jobs or self.requests)

    def __str__(self) -> str:
        return ", ".join(_named(self))


def look(loop: EventLoop, not_work: set[Any], asked: set[int]) -> Inflight:
    """Return what is in flight now, in the loop's thread; `not_work` are tasks that do not count.

    A connection that ends by its own protocol's method has that called once: `asked` remembers which.
    """
    doing, tasks = _tasks(loop, not_work)
    busy: list[Any] = []
    idle: list[Any] = []
    for transport in _accepted(loop):
        protocol = _protocol(transport)
        does = doing.get(id(protocol), set())
        # asked to end, a protocol goes on as long as it has a task
        is_busy = bool(does) if _is_asked(protocol, asked) else _is_busy(transport, does)
        (busy if is_busy else idle).append(transport)
    return Inflight(tuple(busy), _deferred_count(loop), tuple(tasks), _jobs(loop), _requests(loop), tuple(idle))


def close_idle(found: Inflight) -> None:
    """Close the idle connections: what a client would send on them comes too late."""
    for transport in found.idle:
        # with TLS, the transport that says farewell is the application's
        getattr(transport.get_protocol(), "_app_transport", transport).close()


# --- connections


def _accepted(loop: Any) -> Iterator[Any]:
    """The transports of the loop's servers, those that are closing among them."""
    servers = loop.servers()
    # asyncio's loop has a table of transports, the native one of all sources
    sources = loop._sources() if hasattr(loop, "_sources") else loop._transports
    for transport in list(sources.values()):
        if getattr(transport, "_server", None) in servers:
            yield transport


def _protocol(transport: Any) -> Any:
    protocol = transport.get_protocol()
    # asyncio's TLS stands between
    return getattr(protocol, "_app_protocol", None) or protocol


def _deferred_count(loop: EventLoop) -> int:
    acceptors = (acceptor for server in loop.servers() for acceptor in getattr(server, "_acceptors", {}).values())
    return sum(acceptor.deferred for acceptor in acceptors)


def _is_asked(protocol: Any, asked: set[int]) -> bool:
    """Ask the protocol, once, to end its connection after what it has to answer; False if it has no way to."""
    method = GRACEFUL.get(type(protocol).__module__.partition(".")[0])
    end = None if method is None else getattr(protocol, method, None)
    if end is None:
        return False
    if id(protocol) not in asked:
        asked.add(id(protocol))
        end()
    return True


def _is_busy(transport: Any, doing: set[str]) -> bool:
    if transport.is_closing() or transport.get_write_buffer_size():
        return bool(transport.get_write_buffer_size())
    if WORKS in doing or doing == {JOINS}:
        return True
    is_unanswered = _is_unanswered(transport)
    # where the kernel does not tell, the tasks do; and where there is none, nothing does
    return WAITS not in doing if is_unanswered is None else is_unanswered


def _is_unanswered(transport: Any) -> bool | None:
    """Whether the client sent last, by the kernel's own account; None if it does not tell (a Unix socket)."""
    sock = transport.get_extra_info("socket")
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_BYTES)
        sent_ms, received_ms = _field(told, SENT_MS), _field(told, RECEIVED_MS)
        # within one millisecond: an answer, unless there was none ever
        never_sent = _field(told, RECEIVED_BYTES) > 0 and _field(told, SENT_SEGMENTS) == 0
    except (AttributeError, OSError, struct.error):
        return None
    return received_ms < sent_ms or never_sent


def _field(told: bytes, at: tuple[str, int]) -> int:
    value: int = struct.unpack_from(at[0], told, at[1])[0]
    return value


# --- tasks


def _tasks(loop: EventLoop, not_work: set[Any]) -> tuple[dict[int, set[str]], list[asyncio.Task[Any]]]:
    """What the tasks of each protocol do, by its address, and the tasks that are in flight."""
    doing: dict[int, set[str]] = {}
    found: list[tuple[asyncio.Task[Any], int, str]] = []
    for task in asyncio.all_tasks(loop):
        at = None if task in not_work else _protocol_of(task)
        if at is not None:
            what = _does(task)
            doing.setdefault(at, set()).add(what)
            found.append((task, at, what))
    return doing, [task for task, at, what in found if what == WORKS or doing[at] == {JOINS}]


def _does(task: asyncio.Task[Any]) -> str:
    awaited = awaited_by(task)
    if awaited.kind in ONLY_TASKS:
        return JOINS
    # with bytes here, a part of a request has come
    is_reading = awaited.kind == "stream" and "(read, 0 bytes here" in awaited.text
    return WAITS if is_reading or awaited.kind in FROM_OTHERS else WORKS


def _protocol_of(task: asyncio.Task[Any]) -> int | None:
    context = task.get_context() if hasattr(task, "get_context") else _held_context(task)
    return None if context is None else context.get(_served)


def _held_context(task: Any) -> contextvars.Context | None:
    """3.11's tasks hold their context and do not show it."""
    held: list[Any] = [getattr(task, "_context", None), *gc.get_referents(task)]
    return next((each for each in held if isinstance(each, contextvars.Context)), None)


# --- jobs and requests


def _jobs(loop: EventLoop) -> dict[str, int]:
    lanes = {} if loop.lanes is None else loop.lanes.statistics()
    counts = {name: told.queued + told.waiting + told.running for name, told in lanes.items()}
    return {name: count for name, count in counts.items() if count}


def _requests(loop: EventLoop) -> dict[str, int]:
    # not before a drain: a program without gates never loads it
    from penstock.pressure.admission.registry import gates

    counts = {
        gate.name: gate.inflight + sum(stream.holds_drain for stream in gate.live_streams)
        for gate in gates()
        if gate.loop is loop
    }
    return {name: count for name, count in counts.items() if count}


# --- in words


def _named(found: Inflight) -> Iterator[str]:
    if count := len(found.connections) + found.parked_count:
        yield _counted(count, "connection", map(_peer, found.connections))
    if found.tasks:
        yield _counted(len(found.tasks), "task", map(_task, found.tasks))
    for name, count in found.jobs.items():
        yield f"{_counted(count, 'job')} of lane {name}"
    for name, count in found.requests.items():
        yield f"{_counted(count, 'request')} of gate {name}"


def _counted(count: int, noun: str, names: Iterable[str] = ()) -> str:
    shown = [*islice(names, MOST_NAMED), *(["..."] if count > MOST_NAMED else [])]
    more = f" ({', '.join(shown)})" if len(shown) > 1 or shown[:1] not in ([], [""], ["..."]) else ""
    return f"{count} {noun}{'s' * (count != 1)}{more}"


def _peer(transport: Any) -> str:
    peer = transport.get_extra_info("peername")
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "local"


def _task(task: asyncio.Task[Any]) -> str:
    coro: Any = task.get_coro()
    code = getattr(coro, "cr_code", None)
    name = getattr(coro, "__qualname__", type(coro).__qualname__)
    return name if code is None else f"{name} at {os.path.basename(code.co_filename)}:{code.co_firstlineno}"
