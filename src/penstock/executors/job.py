"""A job: a call in a lane and the future of its caller, in one object.

A `LoopJob` is an asyncio future, for a call from a loop. A `ThreadJob` is a `concurrent.futures` future, for a call
from a thread. Both notify their lane of a cancellation, without a done callback per job.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from penstock.errors import DeadlineExceeded
from penstock.executors.call import Call, function_name
from penstock.expiry import expiry, now_s

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Hashable

__all__ = ["FINISHED", "NEVER_NS", "Job", "LoopJob", "ThreadJob", "span_ns"]

# 31 years: a longer time has no end.
NEVER_NS = 10**18

FIELDS = (
    "by_deadline",
    "call",
    "carried",
    "expires_ns",
    "is_ended",
    "key",
    "kills",
    "loop",
    "number",
    "offered_ns",
    "on_cancel",
    "payload",
    "place",
    "size_bytes",
    "started_ns",
    "timer",
)

# Exceptions of `concurrent.futures` and asyncio's own, as asyncio's `run_in_executor` translates them.
ASYNCIO_ERRORS: dict[type[BaseException], type[BaseException]] = {
    concurrent.futures.CancelledError: asyncio.CancelledError,
    concurrent.futures.InvalidStateError: asyncio.InvalidStateError,
}


def _finished() -> None:
    """Stand for the function of a finished job."""


FINISHED = Call(_finished)


def span_ns(seconds: float) -> int | None:
    """Convert a time span from seconds to nanoseconds. Return None for an endless one. Raises ValueError, TypeError."""
    try:
        span = int(seconds * 1e9)
    except OverflowError:
        return None if seconds > 0 else -NEVER_NS
    except (TypeError, ValueError) as problem:
        raise type(problem)(f"a time of {seconds!r}: allowed is a number of seconds, or None") from None
    return None if span >= NEVER_NS else max(span, -NEVER_NS)


class Job:
    """A call with its state in a lane. Base of `LoopJob` and `ThreadJob`."""

    if not TYPE_CHECKING:
        # the subclasses have the slots: two bases with slots of their own cannot be combined
        __slots__ = ()

    call: Call
    # the call's, which the queue reads
    key: Hashable
    # None for a ThreadJob
    loop: asyncio.AbstractEventLoop | None
    # on the clock of time.monotonic_ns(); None: never
    expires_ns: int | None
    # whether `expires_ns` is the deadline of the caller, not the job's own timeout
    by_deadline: bool
    offered_ns: int
    # 0 until a worker has the job
    started_ns: int
    # the number of workers that died while they ran it
    kills: int
    # called once, in the thread that cancels, when the caller gives up
    on_cancel: Callable[[Any], None] | None
    # of the arguments or the payload; 0 while it is not known
    size_bytes: int
    # Lanes of threads and lanes over a backend, under their lock: whether the outcome is decided, and the lock that a
    # calling thread blocks on until the job has a place in the queue.
    is_ended: bool
    place: threading.Lock | None
    # Lanes of processes, in their home loop's thread: context variables to send, the pickled call (a `Pickled`), the
    # number of the job at its worker (0: no worker has it) and the timer of its deadline.
    carried: tuple[dict[str, Any], dict[str, str]] | None
    payload: Any
    number: int
    timer: asyncio.TimerHandle | None

    def _set_up(self, loop: asyncio.AbstractEventLoop | None, call: Call) -> None:
        self.loop, self.call, self.key = loop, call, call.key
        self.offered_ns = now_ns = monotonic_ns()
        timeout_s = call.timeout_s
        span = None if timeout_s is None else span_ns(timeout_s)
        self.expires_ns = None if span is None else now_ns + span
        self.by_deadline = self.is_ended = False
        self.kills = self.started_ns = self.size_bytes = self.number = 0
        self.on_cancel = self.carried = self.payload = self.timer = self.place = None
        deadline_s = expiry.get()
        if deadline_s is not None:
            self._apply_deadline(deadline_s)

    def _apply_deadline(self, deadline_s: float) -> None:
        """Expire at the caller's deadline, if that is sooner than the timeout. `deadline_s` is on the loop's clock."""
        now = now_s() if self.loop is None else self.loop.time()
        span = span_ns(deadline_s - now)
        if span is not None and (self.expires_ns is None or self.offered_ns + span < self.expires_ns):
            self.expires_ns, self.by_deadline = self.offered_ns + span, True

    @property
    def allowed(self) -> str:
        """The time that the job has, for messages, with its origin: the timeout or the caller's deadline."""
        assert self.expires_ns is not None
        span_s = (self.expires_ns - self.offered_ns) / 1e9
        return (
            f"{round(span_s, 3):g} s (the deadline of its caller)"
            if self.by_deadline
            else f"{span_s:g} s (its timeout)"
        )

    def timeout_error(self, message: str) -> TimeoutError:
        """Make the exception for an expired job: DeadlineExceeded for its caller's deadline."""
        return DeadlineExceeded(message) if self.by_deadline else TimeoutError(message)

    def run(self, context: contextvars.Context | None = None) -> tuple[str, Any]:
        """Run the call in `context`, the call's own if None. Return "ok" and its value, or "error" and its
        exception."""
        call = self.call
        fn, args, kwargs = call.fn, call.args, call.kwargs
        if context is None:
            context = call.context
        if context is not None:
            fn, args = context.run, (fn, *args)
        try:
            return "ok", fn(*args) if kwargs is None else fn(*args, **kwargs)
        except BaseException as problem:
            # Without this frame: it would hold the job, and with it the exception that holds the frame.
            return "error", problem.with_traceback(problem.__traceback__ and problem.__traceback__.tb_next)
        finally:
            del self, call, fn, args, kwargs

    @property
    def name(self) -> str:
        """The name of the function, for messages."""
        return function_name(self.call.fn)

    def finish(self, value: Any) -> None:
        """Set the result, in the future's own thread. Do nothing if the job is done."""
        raise NotImplementedError

    def fail(self, problem: BaseException) -> None:
        """Set the exception, in the future's own thread. Do nothing if the job is done."""
        raise NotImplementedError

    def finish_from_thread(self, value: Any) -> None:
        """Set the result, from any thread."""
        raise NotImplementedError

    def fail_from_thread(self, problem: BaseException) -> None:
        """Set the exception, from any thread."""
        raise NotImplementedError

    if TYPE_CHECKING:

        def done(self) -> bool:
            """Return whether the job has an outcome or is cancelled."""

        def cancel(self, *args: Any) -> bool:
            """Cancel the job."""

    def forget_arguments(self) -> None:
        """Release the call of a finished job: its result may live on, and function and arguments may be large."""
        self.call, self.payload = FINISHED, None

    def _notify_cancelled(self) -> None:
        notify, self.on_cancel = self.on_cancel, None
        if notify is not None:
            notify(self)


class LoopJob(Job, asyncio.Future[Any]):
    """A call from a loop: an asyncio future. Confined to the loop's thread but for its two `_from_thread` methods."""

    __slots__ = FIELDS

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Call) -> None:
        asyncio.Future.__init__(self, loop=loop)
        self._set_up(loop, call)

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the job, as asyncio's futures; the lane interrupts a running call."""
        cancelled = super().cancel(msg)
        if cancelled:
            self._notify_cancelled()
        return cancelled

    def finish(self, value: Any) -> None:
        """Implement Job's method."""
        if not self.done():
            self.set_result(value)

    def fail(self, problem: BaseException) -> None:
        """Implement Job's method. An asyncio future cannot hold a StopIteration: it becomes the cause of a
        RuntimeError. An exception of `concurrent.futures` becomes asyncio's own, as in asyncio's `run_in_executor`."""
        if self.done():
            return
        kind = ASYNCIO_ERRORS.get(type(problem))
        if kind is not None:
            problem = kind(*problem.args).with_traceback(problem.__traceback__)
        if isinstance(problem, StopIteration):
            cause, problem = problem, RuntimeError("the call raised StopIteration, which no future can carry")
            problem.__cause__ = cause
        self.set_exception(problem)

    def finish_from_thread(self, value: Any) -> None:
        """Implement Job's method."""
        self._post(self.finish, value)

    def fail_from_thread(self, problem: BaseException) -> None:
        """Implement Job's method."""
        self._post(self.fail, problem)

    def _post(self, deliver: Callable[[Any], None], outcome: Any) -> None:
        assert self.loop is not None
        try:
            self.loop.call_soon_threadsafe(deliver, outcome)
        except RuntimeError:
            pass  # the loop is closed: there is no caller any more


class ThreadJob(Job, concurrent.futures.Future[Any]):
    """A call from a thread: a `concurrent.futures` future. Its lane interrupts a running call that is cancelled."""

    __slots__ = (*FIELDS, "delivered_by")

    # the thread of the loop that delivers the result: a wait for the result in that thread would be a deadlock
    delivered_by: int | None

    def __init__(self, call: Call) -> None:
        concurrent.futures.Future.__init__(self)
        self.delivered_by = None
        self._set_up(None, call)

    def cancel(self) -> bool:
        """Cancel the job, running or not. Return False if it is done."""
        was_cancelled = self.cancelled()
        cancelled = super().cancel()
        if cancelled and not was_cancelled:
            self.set_running_or_notify_cancel()
            self._notify_cancelled()
        return cancelled

    def running(self) -> bool:
        """Return whether a worker has the job."""
        return self.started_ns != 0 and not self.done()

    def finish(self, value: Any) -> None:
        """Implement Job's method."""
        try:
            self.set_result(value)
        except concurrent.futures.InvalidStateError:
            pass  # done already, perhaps at this moment

    def fail(self, problem: BaseException) -> None:
        """Implement Job's method."""
        try:
            self.set_exception(problem)
        except concurrent.futures.InvalidStateError:
            pass

    finish_from_thread = finish
    fail_from_thread = fail

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result, `timeout` seconds at most. Raises RuntimeError in the thread of the loop that delivers
        it."""
        self._refuse_to_deadlock()
        try:
            return super().result(timeout)
        finally:
            # as the standard library does: the traceback of the exception holds this frame
            del self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the exception, as `result` does."""
        self._refuse_to_deadlock()
        return super().exception(timeout)

    def _refuse_to_deadlock(self) -> None:
        if self.delivered_by == threading.get_ident() and not self.done():
            raise RuntimeError(
                f"{self.name}: a wait for its result here would block the loop that delivers it; "
                "use await penstock.offload(...) or await loop.run_in_executor(...)"
            )
