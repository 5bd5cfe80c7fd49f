"""Work in flight: the work that a drain waits for, and the idle connections that it closes.

In flight are busy connections of the loop's servers, tasks that serve connections, jobs in lanes, and requests that a
gate admitted. Other tasks do not count: a background task may never end.
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

from penstock.loop.transports import transports_of
from penstock.tasks.awaits.chain import awaited_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from penstock.loop import EventLoop

__all__ = ["Inflight", "close_idle", "find_inflight", "mark_tasks"]

# The connection that a task serves. The callbacks of a connection run in a context of its own, where this is set to the
# address of its protocol; tasks inherit it. An address, because many protocols allow no weak reference: a task that
# outlives its connection may count for a later one.
_served: contextvars.ContextVar[int] = contextvars.ContextVar("penstock_served")
# the state of a task that serves a connection: it works, it waits for an external event, or it waits for tasks only
WORKS, WAITS, JOINS = "works", "waits", "joins"
FROM_OTHERS = frozenset({"queue", "event", "condition"})
ONLY_TASKS = frozenset({"task", "gather"})
# the method of a server's protocol that ends the connection after the current response
GRACEFUL = {"uvicorn": "shutdown", "aiohttp": "close"}
MOST_NAMED = 3

# struct tcp_info of <linux/tcp.h>: milliseconds since data was sent and received; bytes received; segments sent
INFO_BYTES = 160
SENT_MS, RECEIVED_MS, RECEIVED_BYTES, SENT_SEGMENTS = ("=I", 44), ("=I", 52), ("=Q", 128), ("=I", 156)


def mark_tasks(factory: Callable[[], Any]) -> Callable[[], Any]:
    """Return `factory` wrapped so that the tasks of each connection have its protocol in their context."""

    def make() -> Any:
        protocol = factory()
        _served.set(id(protocol))
        return protocol

    return make


@dataclass(frozen=True, slots=True)
class Inflight:
    """The work in flight at one moment, and the idle transports. It is true if any work is in flight."""

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


def find_inflight(loop: EventLoop, not_work: set[Any], asked: set[int]) -> Inflight:
    """Return the work in flight, in the loop's thread, without the tasks in `not_work`.

    The graceful method of a protocol is called once: `asked` has the addresses of those protocols.
    """
    doing, tasks = _tasks(loop, not_work)
    busy: list[Any] = []
    idle: list[Any] = []
    for transport in _accepted(loop):
        protocol = _protocol(transport)
        does = doing.get(id(protocol), set())
        # a protocol that was asked to end is busy while it has a task
        is_busy = bool(does) if _is_asked(protocol, asked) else _is_busy(transport, does)
        (busy if is_busy else idle).append(transport)
    return Inflight(tuple(busy), _deferred_count(loop), tuple(tasks), _jobs(loop), _requests(loop), tuple(idle))


def close_idle(found: Inflight) -> None:
    """Close the idle connections."""
    for transport in found.idle:
        # with TLS, the application transport sends close_notify
        getattr(transport.get_protocol(), "_app_transport", transport).close()


# --- connections


def _accepted(loop: Any) -> Iterator[Any]:
    """Yield the transports of the loop's servers, closing ones too."""
    servers = loop.servers()
    for transport in transports_of(loop):
        if getattr(transport, "_server", None) in servers:
            yield transport


def _protocol(transport: Any) -> Any:
    protocol = transport.get_protocol()
    # with TLS, asyncio's SSLProtocol is between
    return getattr(protocol, "_app_protocol", None) or protocol


def _deferred_count(loop: EventLoop) -> int:
    acceptors = (acceptor for server in loop.servers() for acceptor in getattr(server, "_acceptors", {}).values())
    return sum(acceptor.deferred for acceptor in acceptors)


def _is_asked(protocol: Any, asked: set[int]) -> bool:
    """Ask the protocol, once, to end its connection after the current response. Return False if it cannot."""
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
    # without the kernel's figures the tasks decide
    return WAITS not in doing if is_unanswered is None else is_unanswered


def _is_unanswered(transport: Any) -> bool | None:
    """Return True if the client sent last, by the kernel's figures; None without them (a Unix socket)."""
    sock = transport.get_extra_info("socket")
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_BYTES)
        sent_ms, received_ms = _field(info, SENT_MS), _field(info, RECEIVED_MS)
        # times within one millisecond count as a response, unless nothing was ever sent
        never_sent = _field(info, RECEIVED_BYTES) > 0 and _field(info, SENT_SEGMENTS) == 0
    except (AttributeError, OSError, struct.error):
        return None
    return received_ms < sent_ms or never_sent


def _field(info: bytes, at: tuple[str, int]) -> int:
    value: int = struct.unpack_from(at[0], info, at[1])[0]
    return value


# --- tasks


def _tasks(loop: EventLoop, not_work: set[Any]) -> tuple[dict[int, set[str]], list[asyncio.Task[Any]]]:
    """Return the states of each protocol's tasks, by its address, and the tasks in flight."""
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
    awaited = awaited_object(task)
    if awaited.kind in ONLY_TASKS:
        return JOINS
    # with buffered bytes, a part of a request has arrived
    is_reading = awaited.kind == "stream" and "(read, 0 bytes here" in awaited.text
    return WAITS if is_reading or awaited.kind in FROM_OTHERS else WORKS


def _protocol_of(task: asyncio.Task[Any]) -> int | None:
    context = task.get_context() if hasattr(task, "get_context") else _context_of(task)
    return None if context is None else context.get(_served)


def _context_of(task: Any) -> contextvars.Context | None:
    """Return the context of a task of Python 3.11, which has no `get_context`."""
    candidates: list[Any] = [getattr(task, "_context", None), *gc.get_referents(task)]
    return next((each for each in candidates if isinstance(each, contextvars.Context)), None)


# --- jobs and requests


def _jobs(loop: EventLoop) -> dict[str, int]:
    lanes = {} if loop.lanes is None else loop.lanes.statistics()
    counts = {name: lane.queued + lane.waiting + lane.running for name, lane in lanes.items()}
    return {name: count for name, count in counts.items() if count}


def _requests(loop: EventLoop) -> dict[str, int]:
    # imported here: a program without gates does not load it
    from penstock.pressure.admission.registry import registered

    counts = {
        gate.name: gate.inflight + sum(stream.holds_drain for stream in gate.live_streams)
        for gate in registered()
        if gate.loop is loop
    }
    return {name: count for name, count in counts.items() if count}


# --- as text


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
