"""A job: one call that a lane runs, and the future its caller holds, in one object.

A `LoopJob` is an asyncio future, for a call from a loop; a `ThreadJob` is a `concurrent.futures` one, for a call from a
thread. Either tells its lane when it is cancelled, without a done callback per job.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from operator import index
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from penstock.errors import DeadlineExceeded
from penstock.executors.call import function_name
from penstock.expiry import expiry, now_s

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Hashable

__all__ = ["NEVER_NS", "Job", "LoopJob", "ThreadJob", "span_ns"]

# 31 years: a time that is longer has no end
NEVER_NS = 10**18

FIELDS = (
    "args",
    "by_deadline",
    "context",
    "expires_ns",
    "fn",
    "key",
    "kills",
    "kwargs",
    "loop",
    "mark",
    "offered_ns",
    "on_cancel",
    "payload",
    "priority",
    "retries",
    "size_bytes",
    "started_ns",
    "timer",
)

# An executor's exceptions, as asyncio's own `run_in_executor` gives them to a loop.
ASYNCIO_ERRORS: dict[type[BaseException], type[BaseException]] = {
    concurrent.futures.CancelledError: asyncio.CancelledError,
    concurrent.futures.InvalidStateError: asyncio.InvalidStateError,
}


def _finished() -> None:
    """Stand for the function of a job that is over."""


def span_ns(seconds: float) -> int | None:
    """Return a time span in nanoseconds, None for one that never ends. Raises ValueError (nan) and TypeError."""
    try:
        span = int(seconds * 1e9)
    except OverflowError:
        return None if seconds > 0 else -NEVER_NS
    except (TypeError, ValueError) as problem:
        raise type(problem)(f"a time of {seconds!r}: allowed is a number of seconds, or None") from None
    return None if span >= NEVER_NS else max(span, -NEVER_NS)


def whole_number(value: Any, name: str) -> int:
    """Return the value as an int. Raises TypeError."""
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} of {value!r}: allowed is a whole number") from None


class Job:
    """What is to run, for whom, until when. A lane keeps its own notes in `mark` and `payload`."""

    if not TYPE_CHECKING:
        # the two classes have the slots: two bases with slots of their own cannot be joined
        __slots__ = ()

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] | None
    # callers with the same key share one place in the lane's rotation
    key: Hashable
    # the larger runs first, where an executor knows priorities (a cluster's does); a lane's own queue is fair, no more
    priority: int
    # how often it may be run again after a lost worker: its caller has said that it is idempotent
    retries: int
    # workers it has taken down
    kills: int
    # on time.monotonic_ns()'s clock; None never
    expires_ns: int | None
    # whether that is the deadline of its caller, not its own timeout
    by_deadline: bool
    # what to run in; None the worker's own
    context: contextvars.Context | None
    # None for a ThreadJob
    loop: asyncio.AbstractEventLoop | None
    # called once, in the thread that cancels, when the caller gives up
    on_cancel: Callable[[Any], None] | None
    offered_ns: int
    # 0 until a worker has it
    started_ns: int
    # of the payload, once it is built
    size_bytes: int
    payload: Any
    # what ends it when its time is up
    timer: asyncio.TimerHandle | None
    mark: Any

    def _describe(
        self,
        loop: asyncio.AbstractEventLoop | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        timeout_s: float | None,
        key: Hashable,
        priority: int,
        retries: int,
        context: contextvars.Context | None,
    ) -> None:
        self.loop, self.fn, self.args, self.kwargs = loop, fn, args, kwargs
        # it is not used before a worker is lost: by then, what raises would leave the job pending for ever
        self.retries = retries if type(retries) is int else whole_number(retries, "retries")
        self.key, self.priority, self.context = key, priority, context
        self.offered_ns = now_ns = monotonic_ns()
        span = None if timeout_s is None else span_ns(timeout_s)
        self.expires_ns = None if span is None else now_ns + span
        self.by_deadline = False
        self.kills = self.started_ns = self.size_bytes = 0
        self.on_cancel = self.payload = self.timer = self.mark = None
        deadline_s = expiry.get()
        if deadline_s is not None:
            self._apply_deadline(deadline_s)

    def _apply_deadline(self, deadline_s: float) -> None:
        """End by the caller's deadline, if that is sooner than the timeout."""
        now = now_s() if self.loop is None else self.loop.time()
        span = span_ns(deadline_s - now)
        if span is not None and (self.expires_ns is None or self.offered_ns + span < self.expires_ns):
            self.expires_ns, self.by_deadline = self.offered_ns + span, True

    @property
    def allowed(self) -> str:
        """The time it has, and whether its timeout or its caller's deadline says so, as messages tell it."""
        assert self.expires_ns is not None
        span_s = (self.expires_ns - self.offered_ns) / 1e9
        return (
            f"{round(span_s, 3):g} s (the deadline of its caller)"
            if self.by_deadline
            else f"{span_s:g} s (its timeout)"
        )

    def late(self, message: str) -> TimeoutError:
        """Make the exception for a job whose time is up."""
        return DeadlineExceeded(message) if self.by_deadline else TimeoutError(message)

    def run(self) -> tuple[str, Any]:
        """Run the call in its context. Return "ok" and its value, or "error" and what it raised."""
        fn, args = self.fn, self.args
        if self.context is not None:
            fn, args = self.context.run, (fn, *args)
        try:
            return "ok", fn(*args) if self.kwargs is None else fn(*args, **self.kwargs)
        except BaseException as problem:
            # Without this frame: it would hold the job, and with it the exception that holds the frame.
            return "error", problem.with_traceback(problem.__traceback__ and problem.__traceback__.tb_next)
        finally:
            del self, fn, args

    @property
    def name(self) -> str:
        """The function, as messages name it."""
        return function_name(self.fn)

    def finish(self, value: Any) -> None:
        """Give the caller the result, in the thread the future belongs to; nothing when it is done already."""
        raise NotImplementedError

    def fail(self, problem: BaseException) -> None:
        """Give the caller the exception, in the thread the future belongs to; nothing when it is done already."""
        raise NotImplementedError

    def finish_from_thread(self, value: Any) -> None:
        """`finish`, from any thread."""
        raise NotImplementedError

    def fail_from_thread(self, problem: BaseException) -> None:
        """`fail`, from any thread."""
        raise NotImplementedError

    if TYPE_CHECKING:

        def done(self) -> bool:
            """Whether its caller has an answer, or wants none."""

        def cancel(self, *args: Any) -> bool:
            """Give it up."""

    def forget_arguments(self) -> None:
        """Let go of the call of a job that is over; its result may live on. A function may hold much, too."""
        self.fn, self.args, self.kwargs, self.payload = _finished, (), None, None

    def _give_up(self) -> None:
        tell, self.on_cancel = self.on_cancel, None
        if tell is not None:
            tell(self)


class LoopJob(Job, asyncio.Future[Any]):
    """A call from a loop: an asyncio future. Confined to the loop's thread but for the two `_from_thread` methods."""

    __slots__ = FIELDS

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        timeout_s: float | None = None,
        key: Hashable = None,
        priority: int = 0,
        retries: int = 0,
        context: contextvars.Context | None = None,
    ) -> None:
        asyncio.Future.__init__(self, loop=loop)
        self._describe(loop, fn, args, kwargs, timeout_s, key, priority, retries, context)

    def cancel(self, msg: Any = None) -> bool:
        """As asyncio's; the lane interrupts what runs already."""
        cancelled = super().cancel(msg)
        if cancelled:
            self._give_up()
        return cancelled

    def finish(self, value: Any) -> None:
        """As Job's."""
        if not self.done():
            self.set_result(value)

    def fail(self, problem: BaseException) -> None:
        """As Job's. A StopIteration, which no asyncio future can carry, comes as a RuntimeError caused by it; an
        exception of `concurrent.futures` that asyncio has too comes as asyncio's, as from its own run_in_executor."""
        if self.done():
            return
        asyncios = ASYNCIO_ERRORS.get(type(problem))
        if asyncios is not None:
            problem = asyncios(*problem.args).with_traceback(problem.__traceback__)
        if isinstance(problem, StopIteration):
            cause, problem = problem, RuntimeError("the call raised StopIteration, which no future can carry")
            problem.__cause__ = cause
        self.set_exception(problem)

    def finish_from_thread(self, value: Any) -> None:
        """As Job's."""
        self._post(self.finish, value)

    def fail_from_thread(self, problem: BaseException) -> None:
        """As Job's."""
        self._post(self.fail, problem)

    def _post(self, deliver: Callable[[Any], None], outcome: Any) -> None:
        assert self.loop is not None
        try:
            self.loop.call_soon_threadsafe(deliver, outcome)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more


class ThreadJob(Job, concurrent.futures.Future[Any]):
    """A call from a thread: a `concurrent.futures` future. Cancelled while it runs, it is interrupted by its lane."""

    __slots__ = (*FIELDS, "delivered_by")

    # the thread that delivers the result, if a wait in that thread would be a wait for oneself
    delivered_by: int | None

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        timeout_s: float | None = None,
        key: Hashable = None,
        priority: int = 0,
        retries: int = 0,
        context: contextvars.Context | None = None,
    ) -> None:
        concurrent.futures.Future.__init__(self)
        self.delivered_by = None
        self._describe(None, fn, args, kwargs, timeout_s, key, priority, retries, context)

    def cancel(self) -> bool:
        """Cancel it, running or not; False when it is done."""
        was_cancelled = self.cancelled()
        cancelled = super().cancel()
        if cancelled and not was_cancelled:
            self.set_running_or_notify_cancel()
            self._give_up()
        return cancelled

    def running(self) -> bool:
        """Whether a worker has it."""
        return self.started_ns != 0 and not self.done()

    def finish(self, value: Any) -> None:
        """As Job's."""
        try:
            self.set_result(value)
        except concurrent.futures.InvalidStateError:
            pass  # done already, perhaps this very moment

    def fail(self, problem: BaseException) -> None:
        """As Job's."""
        try:
            self.set_exception(problem)
        except concurrent.futures.InvalidStateError:
            pass

    finish_from_thread = finish
    fail_from_thread = fail

    def result(self, timeout: float | None = None) -> Any:
        """As `concurrent.futures`'; RuntimeError in the thread of the loop that would deliver it."""
        self._refuse_to_deadlock()
        try:
            return super().result(timeout)
        finally:
            # as the standard library does: the exception's traceback leads here
            del self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As `concurrent.futures`'; RuntimeError in the thread of the loop that would deliver it."""
        self._refuse_to_deadlock()
        return super().exception(timeout)

    def _refuse_to_deadlock(self) -> None:
        if self.delivered_by == threading.get_ident() and not self.done():
            raise RuntimeError(
                f"{self.name}: to wait for its result here would block the loop that delivers it; "
                "use await penstock.offload(...) or await loop.run_in_executor(...)"
            )
