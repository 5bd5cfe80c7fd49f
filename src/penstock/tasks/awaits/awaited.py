"""The object that a task awaits, as frozen data: its kind and a description.

A future describes itself. asyncio's locks, queues and streams await a private future, so they are recognised by the
code of the method that awaits. Others register their functions, or their class has a method `_awaited_in(name)` that
returns the kind and state of the object that its method `name` awaits. Nothing here keeps an object alive.
"""

from __future__ import annotations

import asyncio
import gc
from asyncio import locks, queues, streams, taskgroups
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

__all__ = [
    "DESCRIBERS",
    "ENCLOSING_DESCRIBERS",
    "TASKS",
    "Awaited",
    "Describer",
    "described_by_class",
    "described_future",
    "pending_future",
    "register_awaited",
]

# asyncio's two classes of task: the one in C, and the one in Python, which a program may choose
TASKS: tuple[type[asyncio.Task[Any]], ...] = (asyncio.Task, asyncio.tasks._PyTask)  # type: ignore[attr-defined]
MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class Awaited:
    """The object at the end of an await chain.

    `kind` is task, future, gather (also asyncio.wait and the end of a TaskGroup), lock, queue, semaphore, event,
    condition, barrier, sleep, stream, channel, limiter, job (of an executor), gate, or nothing: the task runs, is ready
    or has ended. `text` is a description for people.
    """

    kind: str
    text: str


# (owner, awaitable whose frame awaits) -> description
Describe: TypeAlias = "Callable[[Any, Any], Awaited]"


@dataclass(frozen=True, slots=True)
class Describer:
    """The description of a function that awaits. `owner` is the class of the local described, None for any class."""

    owner: type | None
    describe: Describe


def register_awaited(
    function: Callable[..., Any], kind: str, describe: Callable[[Any], str], *, throughout: bool = False
) -> None:
    """Describe tasks whose innermost frame is the method `function` as awaiting a `kind`, from now on.

    With `throughout`, also those in which `function` awaits other frames. `describe` gets the object that the method
    belongs to (or its first argument) and returns the text; it must neither block nor raise.
    """
    table = ENCLOSING_DESCRIBERS if throughout else DESCRIBERS
    table[function.__code__] = Describer(None, lambda owner, _: Awaited(kind, describe(owner)))


def described_future(future: Any) -> Awaited | None:
    """Return the description of a future that has one: a task, a gather, an executor's job, a wait at a gate."""
    if isinstance(future, TASKS):
        return Awaited("task", f"task {future.get_name()!r}")
    children = getattr(future, "_children", None)
    if children is not None:
        return Awaited("gather", f"gather of {_list(children)}")
    # an executor's job is a future with its call and the time when it was offered
    if hasattr(future, "offered_ns") and hasattr(future, "call"):
        state = "running" if future.started_ns else "queued"
        return Awaited("job", f"job {future.name} ({state})")
    # waiters of gates, semaphores and limiters have an `owner`
    owner = getattr(future, "owner", None)
    if owner is not None and hasattr(future, "queued_s"):
        return Awaited("gate", _gate(owner))
    return described_by_class(owner, "acquire")


def described_by_class(owner: Any, method: str) -> Awaited | None:
    """Return the description by `owner._awaited_in(method)`; None if the class has no such method."""
    if not hasattr(type(owner), "_awaited_in"):
        return None
    kind, state = owner._awaited_in(method)
    return Awaited(kind, _at(owner, kind, state))


def pending_future(future: Any) -> Awaited:
    """Return the description of a future of which nothing else is known."""
    return Awaited("future", f"{_named(future)} (pending)")


# --- texts


def _gate(gate: Any) -> str:
    return f"gate {gate.name!r} ({gate.inflight} of {gate.limit} in flight, {gate.queued()} queued)"


def _list(futures: Any) -> str:
    """Return `3 (1 done): task 'a', ...`."""
    pending = [future for future in futures if not future.done()]
    names = [_named(future) for future in pending[:MOST_NAMES]]
    if len(pending) > MOST_NAMES:
        names.append("...")
    return f"{len(futures)} ({len(futures) - len(pending)} done)" + (f": {', '.join(names)}" if names else "")


def _named(future: Any) -> str:
    if isinstance(future, TASKS):
        return f"task {future.get_name()!r}"
    return f"{'job' if hasattr(future, 'offered_ns') else 'future'} {id(future):#x}"


def _at(thing: Any, noun: str, state: str) -> str:
    return f"{noun} {id(thing):#x} ({state})"


def _lock(lock: Any, _: Any) -> Awaited:
    return Awaited("lock", _at(lock, "lock", "held" if lock.locked() else "free"))


def _semaphore(semaphore: Any, _: Any) -> Awaited:
    return Awaited("semaphore", _at(semaphore, "semaphore", f"{max(0, semaphore._value)} left"))


def _event(event: Any, _: Any) -> Awaited:
    return Awaited("event", _at(event, "event", "set" if event.is_set() else "not set"))


def _condition(condition: Any, _: Any) -> Awaited:
    return Awaited("condition", _at(condition, "condition", f"{len(condition._waiters)} waiting"))


def _barrier(barrier: Any, _: Any) -> Awaited:
    return Awaited("barrier", _at(barrier, "barrier", f"{barrier.n_waiting} of {barrier.parties}"))


def _get(queue: Any, _: Any) -> Awaited:
    return Awaited("queue", _at(queue, "queue", f"empty, maxsize {queue.maxsize}"))


def _put(queue: Any, _: Any) -> Awaited:
    return Awaited("queue", _at(queue, "queue", f"full, maxsize {queue.maxsize}"))


def _join(queue: Any, _: Any) -> Awaited:
    return Awaited("queue", _at(queue, "queue", f"join, {queue._unfinished_tasks} unfinished"))


def _sleep(delay: Any, _: Any) -> Awaited:
    return Awaited("sleep", f"sleep of {delay} s")


def _read(reader: Any, _: Any) -> Awaited:
    return Awaited("stream", _at(reader, "stream", f"read, {len(reader._buffer)} bytes here{_peer(reader._transport)}"))


def _drain(protocol: Any, _: Any) -> Awaited:
    return Awaited("stream", _at(protocol, "stream", "drain"))


def _drain_writer(writer: Any, _: Any) -> Awaited:
    return Awaited("stream", _at(writer, "stream", f"drain{_peer(writer.transport)}"))


def _closed(writer: Any, _: Any) -> Awaited:
    return Awaited("stream", _at(writer, "stream", f"closing{_peer(writer.transport)}"))


def _peer(transport: Any) -> str:
    try:
        peer = transport.get_extra_info("peername")
    except Exception:
        # no transport yet, or a broken one: a description must not raise
        return ""
    return f", peer {peer}" if peer else ""


def _wait(_: Any, awaitable: Any) -> Awaited:
    waited = next((held for held in gc.get_referents(awaitable) if type(held) in {set, frozenset, list}), ())
    return Awaited("gather", f"wait for {_list(waited)}")


def _inner(future: Any, _: Any) -> Awaited:
    # 3.11's wait_for() awaits a future of its own, which its argument or a timer completes
    return described_future(future) or pending_future(future)


def _group(group: Any, _: Any) -> Awaited:
    return Awaited("gather", f"TaskGroup of {_list(group._tasks)}")


# --- by code


def _by_code(*entries: tuple[Any, type | None, Describe]) -> dict[Any, Describer]:
    return {function.__code__: Describer(owner, describe) for function, owner, describe in entries if function}


# functions that describe all awaits inside them, and functions that describe their own await
ENCLOSING_DESCRIBERS: dict[CodeType, Describer] = {}
DESCRIBERS: dict[CodeType, Describer] = _by_code(
    (locks.Lock.acquire, locks.Lock, _lock),
    (locks.Semaphore.acquire, locks.Semaphore, _semaphore),
    (locks.Event.wait, locks.Event, _event),
    (locks.Condition.wait, locks.Condition, _condition),
    (locks.Condition.wait_for, locks.Condition, _condition),
    (locks.Barrier.wait, locks.Barrier, _barrier),
    (locks.Barrier._wait, locks.Barrier, _barrier),  # type: ignore[attr-defined]
    (locks.Barrier._block, locks.Barrier, _barrier),  # type: ignore[attr-defined]
    (queues.Queue.get, queues.Queue, _get),
    (queues.Queue.put, queues.Queue, _put),
    (queues.Queue.join, queues.Queue, _join),
    (asyncio.sleep, None, _sleep),
    (streams.StreamReader._wait_for_data, streams.StreamReader, _read),  # type: ignore[attr-defined]
    (streams.FlowControlMixin._drain_helper, streams.FlowControlMixin, _drain),  # type: ignore[attr-defined]
    (streams.StreamWriter.drain, streams.StreamWriter, _drain_writer),
    (streams.StreamWriter.wait_closed, streams.StreamWriter, _closed),
    (asyncio.tasks._wait, None, _wait),  # type: ignore[attr-defined]
    (asyncio.wait, None, _wait),
    (asyncio.wait_for, asyncio.Future, _inner),
    (taskgroups.TaskGroup.__aexit__, taskgroups.TaskGroup, _group),
    # in later versions the end of __aexit__
    (getattr(taskgroups.TaskGroup, "_aexit", None), taskgroups.TaskGroup, _group),
)
