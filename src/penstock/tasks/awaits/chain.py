"""What a task waits for: the chain of awaits from its coroutine down, and the thing at its end, as frozen data.

Reads coroutines, never their frames' `f_locals`, which before 3.13 would keep a copy of every local alive. Knows
asyncio's own locks, queues and streams by their code; others make theirs known through `recognise`, or their class has
a method `_awaited_in(name)` that says kind and state of what its method of that name awaits.
"""

from __future__ import annotations

import asyncio
import gc
import types
from asyncio import locks, queues, streams, taskgroups
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["TASKS", "Awaited", "Chain", "Frame", "awaited_by", "by_future", "chain", "parts", "recognise"]

# asyncio's two: the C one, and the one in Python, which a program may choose
TASKS: tuple[type[asyncio.Task[Any]], ...] = (asyncio.Task, asyncio.tasks._PyTask)  # type: ignore[attr-defined]
# what a suspended coroutine, generator or async generator calls its frame, its code and the thing it awaits
FRAME_NAMES = ("cr_frame", "gi_frame", "ag_frame")
CODE_NAMES = ("cr_code", "gi_code", "ag_code")
AWAITED_NAMES = ("cr_await", "gi_yieldfrom", "ag_await")
GENERATORS = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)
# C iterators that stand between two of them, and hold the next one
STEPS = frozenset({"async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper"})
# a chain longer than this is cut: some program recurses
MOST_FRAMES = 200
MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


@dataclass(frozen=True, slots=True)
class Awaited:
    """What is at the end of a chain.

    `kind` is task, future, gather (also asyncio.wait and a TaskGroup's end), lock, queue, semaphore, event, condition,
    barrier, sleep, stream, channel, limiter, job (of an executor), gate, or nothing: it runs, is ready or has ended.
    `text`: for people.
    """

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The frames from the task's coroutine down, and what the innermost one awaits."""

    frames: tuple[Frame, ...]
    awaited: Awaited


def chain(task: asyncio.Task[Any]) -> Chain:
    """What `task` awaits, now. To be called where the task cannot run meanwhile: in its loop's thread."""
    found = list(parts(getattr(task, "_coro", None)))
    return Chain(tuple(frame for part in found if (frame := _frame(part)) is not None), _awaited(task, found))


def awaited_by(task: asyncio.Task[Any]) -> Awaited:
    """The end of the chain alone."""
    return _awaited(task, list(parts(getattr(task, "_coro", None))))


def recognise(
    function: Callable[..., Any], kind: str, describe: Callable[[Any], str], *, throughout: bool = False
) -> None:
    """From now on a task whose innermost frame is the method `function` awaits a `kind`.

    With `throughout`, whatever `function` itself awaits. `describe` is given the object that the method belongs to (or
    its first argument), and must neither block nor raise.
    """
    known = _throughout if throughout else _known
    known[function.__code__] = _Known(None, lambda owner, part: Awaited(kind, describe(owner)))


def parts(outermost: Any) -> Iterator[Any]:
    """The coroutines and generators of a chain, outer first."""
    part = outermost
    for _ in range(MOST_FRAMES):
        while type(part).__name__ in STEPS:
            part = next((held for held in gc.get_referents(part) if type(held) in GENERATORS or _is_step(held)), None)
        if part is None or _first(part, CODE_NAMES) is None:
            return
        yield part
        part = _first(part, AWAITED_NAMES)


def _is_step(thing: Any) -> bool:
    return type(thing).__name__ in STEPS


def _first(part: Any, names: tuple[str, ...]) -> Any:
    # a compiled coroutine (Cython's) has the names, not always the values
    return next((value for name in names if (value := getattr(part, name, None)) is not None), None)


def _frame(part: Any) -> Frame | None:
    code, frame = _first(part, CODE_NAMES), _first(part, FRAME_NAMES)
    if frame is None:
        return None
    return Frame(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname)


def _awaited(task: asyncio.Task[Any], found: list[Any]) -> Awaited:
    future = getattr(task, "_fut_waiter", None)
    if future is None or future.done():
        return Awaited("nothing", _idle_text(task))
    return (
        by_future(future) or _by_any_code(found) or _by_code(found) or Awaited("future", f"{_named(future)} (pending)")
    )


def _idle_text(task: asyncio.Task[Any]) -> str:
    if task.done():
        return "ended"
    try:
        running = asyncio.current_task(task.get_loop()) is task
    except RuntimeError:
        running = False
    return "running" if running else "ready"


def by_future(future: Any) -> Awaited | None:
    """What the future itself tells: a task, a gather's, an executor's job, a place at a gate."""
    if isinstance(future, TASKS):
        return Awaited("task", f"task {future.get_name()!r}")
    children = getattr(future, "_children", None)
    if children is not None:
        return Awaited("gather", f"gather of {_list(children)}")
    # an executor's job is a future that says which call it stands for, and when it was offered
    if hasattr(future, "offered_ns") and hasattr(future, "fn"):
        state = "running" if future.started_ns else "queued"
        return Awaited("job", f"job {future.name} ({state})")
    # one that waits at a gate, for a semaphore or for a limiter awaits what says whose it is
    owner = getattr(future, "owner", None)
    if owner is not None and hasattr(future, "queued_s"):
        return Awaited("gate", _gate(owner))
    if hasattr(type(owner), "_awaited_in"):
        return _told(owner, "acquire")
    return None


def _gate(gate: Any) -> str:
    return f"gate {gate.name!r} ({gate.inflight} of {gate.limit} in flight, {gate.queued()} queued)"


def _list(futures: Any) -> str:
    """`3 (1 done): task 'a', ...`."""
    pending = [future for future in futures if not future.done()]
    names = [_named(future) for future in pending[:MOST_NAMES]]
    if len(pending) > MOST_NAMES:
        names.append("...")
    return f"{len(futures)} ({len(futures) - len(pending)} done)" + (f": {', '.join(names)}" if names else "")


def _named(future: Any) -> str:
    if isinstance(future, TASKS):
        return f"task {future.get_name()!r}"
    return f"{'job' if hasattr(future, 'offered_ns') else 'future'} {id(future):#x}"


@dataclass(frozen=True, slots=True)
class _Known:
    """A function of asyncio's that awaits: what class its `self` is of (None: its first local), and what it awaits."""

    owner: type | None
    describe: Callable[[Any, Any], Awaited]


def _by_any_code(found: list[Any]) -> Awaited | None:
    """What a frame tells that knows better than all those it awaits: the innermost of them."""
    for part in reversed(found) if _throughout else ():
        known = _throughout.get(_first(part, CODE_NAMES))
        owner = None if known is None else _owner(part, known.owner)
        if known is not None and owner is not None:
            return known.describe(owner, part)
    return None


def _by_code(found: list[Any]) -> Awaited | None:
    """What the innermost frames tell, when they are asyncio's: the outermost of them knows best."""
    best = None
    for part in reversed(found):
        known = _known.get(_first(part, CODE_NAMES))
        owner = _owner(part, known.owner if known is not None else None)
        if owner is None:
            break
        if known is not None:
            best = known.describe(owner, part)
        elif hasattr(type(owner), "_awaited_in"):
            best = _told(owner, _first(part, CODE_NAMES).co_name)
        else:
            break
        if best.kind == "lock":
            # a condition's wait() that has been notified waits for its lock
            break
    return best


def _owner(part: Any, kind: type | None) -> Any:
    """The local that is of class `kind`: `self` comes first. Of no class: the first after the function and its code."""
    held = gc.get_referents(part)
    code = _first(part, CODE_NAMES)
    # a frame shows its function, the function's code, and then its locals
    at = next((at for at in range(1, len(held)) if held[at] is code and _is_of(held[at - 1], code)), len(held))
    # a local that an inner function uses is in a cell
    known = (_content(each) for each in held[at + 1 :])
    return next((each for each in known if kind is None or issubclass(type(each), kind)), None)


def _is_of(function: Any, code: Any) -> bool:
    return type(function) is types.FunctionType and function.__code__ is code


def _content(local: Any) -> Any:
    if type(local) is types.CellType:
        return next(iter(gc.get_referents(local)), None)
    return local


def _at(thing: Any, what: str, state: str) -> str:
    return f"{what} {id(thing):#x} ({state})"


def _told(owner: Any, method: str) -> Awaited:
    kind, state = owner._awaited_in(method)
    return Awaited(kind, _at(owner, kind, state))


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


def _wait(_: Any, part: Any) -> Awaited:
    waited = next((held for held in gc.get_referents(part) if type(held) in {set, frozenset, list}), ())
    return Awaited("gather", f"wait for {_list(waited)}")


def _inner(future: Any, _: Any) -> Awaited:
    # 3.11's wait_for() waits for a future of its own, that what it was given or a timer sets
    return by_future(future) or Awaited("future", f"{_named(future)} (pending)")


def _group(group: Any, _: Any) -> Awaited:
    return Awaited("gather", f"TaskGroup of {_list(group._tasks)}")


def _codes(*entries: tuple[Any, type | None, Callable[[Any, Any], Awaited]]) -> dict[Any, _Known]:
    return {function.__code__: _Known(owner, describe) for function, owner, describe in entries if function is not None}


_throughout: dict[Any, _Known] = {}
_known: dict[Any, _Known] = _codes(
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
    # the end of later versions' __aexit__
    (getattr(taskgroups.TaskGroup, "_aexit", None), taskgroups.TaskGroup, _group),
)
