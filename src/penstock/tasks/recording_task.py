"""A task that records each call of its `cancel()`: the caller, the place of the call, and the chain of cancellers.

It is asyncio's task in all else. A loop makes such tasks with the config's `tasks.name_cancellers`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from penstock.tasks.awaits.frames import is_user_code
from penstock.tasks.cancellations import Cancellation, NamedTask, cancellations
from penstock.tasks.flighttrace import Event
from penstock.tasks.observers.registry import observer_of
from penstock.tasks.place import Place

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["RecordingTask", "make_task"]

logger = logging.getLogger("penstock.tasks")

MOST_CHAIN = 16
# asyncio's and penstock's functions that run a loop: frames beyond are not the caller of a callback
RUNNERS = frozenset({"run_forever", "run_until_complete", "_run_once", "run"})
# a signal handler: frames beyond are of the code that it interrupts
SIGNAL_HANDLER = "_on_sigint"


class RecordingTask(asyncio.Task[Any]):
    """A task of asyncio's whose cancellations are recorded."""

    # the newest cancellation of this task
    __slots__ = ("_cancellation",)
    _cancellation: Cancellation

    def cancel(self, msg: Any | None = None) -> bool:
        """Record the call unless the task has ended, then cancel as asyncio does."""
        if not self.done():
            try:
                _record(self, sys._getframe(1))
            except Exception:
                # the program's cancellation goes on
                logger.debug("a cancellation was not recorded", exc_info=True)
        return super().cancel(msg)


# as in asyncio's texts about a task
RecordingTask.__name__ = RecordingTask.__qualname__ = "Task"
_CANCEL = RecordingTask.cancel.__code__


def make_task(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
    """Make a task that records its cancellations: a maker for `set_task_maker`."""
    return RecordingTask(coro, loop=loop, **kwargs)


def _record(task: RecordingTask, frame: FrameType | None) -> None:
    place, canceller = _caller(frame)
    by = None if canceller is None else _named(canceller)
    cancelled = _named(task)
    chain = () if by is None else (by.name, *_chain_of(canceller))[:MOST_CHAIN]
    thread = threading.current_thread().name
    found = Cancellation(time.monotonic(), time.time(), cancelled, by, thread, place, chain)
    task._cancellation = found
    cancellations.add(found)
    note = getattr(observer_of(task.get_loop()), "note", None)
    if note is not None:
        note(Event(time.monotonic_ns(), 0, "cancel", cancelled.number, _text(found)))


def _caller(frame: FrameType | None) -> tuple[Place | None, Any]:
    """Return the place of a call of `cancel()`, by its frame, and the task that cancels."""
    first, passing = None, None
    while frame is not None:
        code = frame.f_code
        place = Place(code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname)
        if code is _CANCEL:
            # a task that is cancelled cancels what it awaits
            passing = passing or frame.f_locals["self"]
        elif is_user_code(code.co_filename):
            return place, passing or _current_task()
        elif code.co_name == SIGNAL_HANDLER:
            return first or place, passing
        elif code.co_name in RUNNERS:
            break
        else:
            first = first or place
        frame = frame.f_back
    return first, passing or _current_task()


def _current_task() -> Any:
    """Return the task that runs in this thread; None in a callback and outside of a loop."""
    loop = asyncio._get_running_loop()
    return None if loop is None else asyncio.current_task(loop)


def _chain_of(canceller: Any) -> tuple[str, ...]:
    """Return the cancellers of a task that is being cancelled itself."""
    former: Cancellation | None = getattr(canceller, "_cancellation", None)
    return former.chain if isinstance(former, Cancellation) and canceller.cancelling() else ()


def _named(task: Any) -> NamedTask:
    observer = observer_of(task.get_loop())
    if observer is None:
        return NamedTask(task.get_name(), 0, None)
    return NamedTask(task.get_name(), observer.number_of(task), observer.site_of_task(task))


def _text(found: Cancellation) -> str:
    by = f"thread {found.thread}" if found.by is None else found.by.name
    place = "" if found.place is None else f" in {os.path.basename(found.place.file)}:{found.place.line}"
    return f"{found.task.name} by {by}{place}"
