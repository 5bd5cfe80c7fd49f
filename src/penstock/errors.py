"""The public exceptions of penstock, each named for the caller's situation.

Where asyncio specifies an exception, penstock raises asyncio's.
"""

from __future__ import annotations

import pickle
import signal
from typing import Any

__all__ = [
    "ChannelClosed",
    "ConfigError",
    "DeadlineExceeded",
    "Deadlock",
    "ExplorationFailed",
    "InternalError",
    "JobInterrupted",
    "Overloaded",
    "PenstockError",
    "PoisonJob",
    "PolicyRemovedError",
    "ReferenceNotFoundError",
    "RemoteError",
    "SchedulerLost",
    "SlowPeer",
    "UnpicklableError",
    "WorkerLost",
    "WorkerStartError",
]


class PenstockError(Exception):
    """The base class of penstock's exceptions."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception.__reduce__ calls the class with the message only, whatever its constructor takes
        return _made_again, (type(self), self.args), self.__dict__ or None


def _made_again(kind: type[BaseException], args: tuple[object, ...]) -> BaseException:
    """Make an exception without calling its constructor; pickle restores its attributes from the state."""
    problem = kind.__new__(kind, *args)
    problem.args = args
    return problem


class ConfigError(PenstockError, ValueError):
    """An invalid config key or value.

    `key` is the dotted key (`loop.spin_us`), `value` its value, `source` the origin (a file, a variable, an option, a
    call) and `allowed` describes the allowed values. The message has all four in one line.
    """

    def __init__(
        self, message: str, *, key: str = "", value: object = None, source: str = "", allowed: str = ""
    ) -> None:
        super().__init__(message)
        self.key = key
        self.value = value
        self.source = source
        self.allowed = allowed

    @classmethod
    def bad_value(cls, key: str, value: object, source: str, allowed: str) -> ConfigError:
        """Return the error for an invalid value of a known key. A token is a secret, and is not shown."""
        if key.endswith("_token"):
            value = "(hidden)"
        message = f"{key} = {value!r} ({source}): allowed is {allowed}"
        return cls(message, key=key, value=value, source=source, allowed=allowed)


class ReferenceNotFoundError(ConfigError):
    """A `module:name` reference whose module cannot be imported or has no such name."""


class PolicyRemovedError(PenstockError, RuntimeError):
    """`EventLoopPolicy` was used on a Python whose asyncio has no policies (3.16 and later)."""


class Overloaded(PenstockError):
    """A request was shed: refused early, because its resource is at a limit.

    `reason` is one word. An executor's lane sheds for `full` (the queue is full) or `displaced` (a newer job replaced
    this one). A gate sheds for `limit` (no permit is free and entries do not wait), `wait` (the predicted wait is too
    long), `full` (the queue is full), `expired` (the wait was too long), `deadline` (the request cannot finish in
    time), `share` (its key has its fair share of the queue), `displaced` (a request of a higher class replaced it),
    `closed` (the gate is closed) or `streams` (`max_streams` is reached). Further reasons are `left` (the client has
    disconnected), `lag` (the loop is overloaded), `tasks` (too many tasks), `memory`, and `throttled` (a backend sheds
    too many requests).

    `queued` and `limit` are counts at that moment; `retry_after_s` is the likely wait in seconds, None if unknown;
    `queue_age_s` is the wait of the oldest entry in seconds, or the own wait of a queued request. `gate` is the name of
    the gate. Without `message`, the message is made of these when it is read.
    """

    def __init__(
        self,
        message: str | None = None,
        reason: str = "limit",
        queued: int = 0,
        limit: int = 0,
        retry_after_s: float | None = None,
        queue_age_s: float = 0.0,
        gate: str = "",
    ) -> None:
        # One tuple, which a gate fills without this call: attributes would be its largest cost.
        super().__init__(message, reason, queued, limit, retry_after_s, queue_age_s, gate)

    reason: str = property(lambda self: self.args[1])  # type: ignore[assignment]
    queued: int = property(lambda self: self.args[2])  # type: ignore[assignment]
    limit: int = property(lambda self: self.args[3])  # type: ignore[assignment]
    retry_after_s: float | None = property(lambda self: self.args[4])  # type: ignore[assignment]
    queue_age_s: float = property(lambda self: self.args[5])  # type: ignore[assignment]
    gate: str = property(lambda self: self.args[6])  # type: ignore[assignment]

    def __str__(self) -> str:
        message = self.args[0]
        return str(message) if message is not None else self._message()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r}, reason={self.reason!r})"

    def _message(self) -> str:
        where = f"gate {self.gate!r}" if self.gate else "a gate"
        counts = f"limit {self.limit}, {self.queued} queued"
        retry = "" if self.retry_after_s is None else f"; try again in {self.retry_after_s:.3g} s"
        text = _MESSAGES.get(self.reason, "{where} sheds ({reason}; {counts})")
        message = text.format(where=where, counts=counts, reason=self.reason, age=f"{self.queue_age_s:.3g} s")
        return message + retry


# The message of a gate, by reason.
_MESSAGES = {
    "limit": "{where} has no permit free ({counts}): raise its limit, or let entries wait by max_wait_s",
    "wait": "{where} predicts a wait longer than max_wait_s ({counts}): raise its limit or max_wait_s",
    "full": "{where} has a full queue ({counts}): raise its limit or max_queued",
    "expired": "{where} had no permit within {age} ({counts}): raise its limit or max_wait_s",
    "deadline": "{where} could not finish this by its deadline, after {age} ({counts}): raise the limit or deadline_s",
    "share": "{where} has the fair share of this key in its queue ({counts})",
    "displaced": "{where} replaced this entry by one of a higher class ({counts}): raise its limit or the priority",
    "streams": "{where} has its {limit} streams: raise max_streams, or exempt the path",
    "closed": "{where} is closed: it admits no more entries",
}


class ChannelClosed(PenstockError):
    """The channel is closed: it takes no more items, or has none left."""


class SlowPeer(PenstockError, ConnectionAbortedError):
    """The argument of `connection_lost` when penstock disconnected a slow peer.

    `reason` is `slow_reader` (the peer left `size_bytes` unread for `late_s` seconds), `receive` (it sent `size_bytes`
    of a request in `late_s` seconds) or `idle` (no traffic for `late_s` seconds). `peer` is its address.
    """

    def __init__(self, message: str, *, reason: str, peer: object, size_bytes: int, late_s: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.peer = peer
        self.size_bytes = size_bytes
        self.late_s = late_s


class DeadlineExceeded(PenstockError, TimeoutError):
    """The deadline around a call (`penstock.pressure.deadline`) passed before its lane had the result.

    If the timeout of the call itself is sooner, the call raises TimeoutError.
    """


class WorkerLost(PenstockError):
    """The worker process died while it ran this job. Other jobs are not affected; a new worker replaces it.

    `pid` is the worker's; `signal` is the number of the signal that killed it, or None; `exit_code` is its exit code,
    or None. A job may have run in part: only one declared idempotent (`retries=`) is run again.
    """

    def __init__(self, job: str, *, pid: int, signal: int | None, exit_code: int | None) -> None:
        super().__init__(f"{job}: its worker (pid {pid}) {_how_it_ended(signal, exit_code)}")
        self.job = job
        self.pid = pid
        self.signal = signal
        self.exit_code = exit_code


def _how_it_ended(number: int | None, exit_code: int | None) -> str:
    if number is not None:
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        hint = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"
    return "died" if exit_code is None else f"exited with code {exit_code}"


class PoisonJob(WorkerLost):
    """A job during which `kills` workers died, the limit of its lane: it is not run again.

    `pid`, `signal` and `exit_code` are of the last worker.
    """

    def __init__(self, job: str, *, kills: int, pid: int, signal: int | None, exit_code: int | None) -> None:
        super().__init__(job, pid=pid, signal=signal, exit_code=exit_code)
        self.kills = kills
        self.args = (f"{self.args[0]}; {kills} workers died while they ran it; it is not run again",)


class JobInterrupted(BaseException):
    """Raised inside a job, in its worker, when its caller cancels it or its timeout passes.

    It derives from BaseException, so `except Exception` does not catch it. A job that suppresses it is killed.
    """


class UnpicklableError(PenstockError, pickle.PicklingError):
    """A function, argument, context variable or result that cannot be pickled; the message names the object."""


class WorkerStartError(PenstockError):
    """The workers of a lane do not start.

    A preloaded module or the initializer raised or took longer than `start_s`, or the process ended at once.
    """


class RemoteError(PenstockError):
    """A job raised an exception that cannot be pickled: `kind` is the name of its type, `traceback` its text."""

    def __init__(self, kind: str, text: str, traceback: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text
        self.traceback = traceback


class SchedulerLost(PenstockError):
    """The scheduler of the cluster at `address` is not reachable. penstock does not run its jobs again."""

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"scheduler {address}: {problem}")
        self.address = address


class Deadlock(PenstockError, RuntimeError):
    """A virtual loop has no event left, or its time does not advance. The message names the wait of each task."""


class ExplorationFailed(PenstockError, AssertionError):
    """A scenario failed under a schedule.

    `seed` and `moment`, the number of the step at which a task was cancelled or None, reproduce it.
    """

    def __init__(self, message: str, *, seed: int | None, moment: int | None) -> None:
        super().__init__(message)
        self.seed = seed
        self.moment = moment


class InternalError(PenstockError):
    """A bug of penstock: please report it."""
