"""Every public exception of penstock, named for the situation the caller is in.

asyncio's own exceptions are used wherever asyncio specifies one; these are for what asyncio has no word for.
Knows nothing of the rest of the package.
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
    """The base of every exception that penstock defines."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception.__reduce__ calls the class with the message alone, whatever its constructor takes
        return _made_again, (type(self), self.args), self.__dict__ or None


def _made_again(kind: type[BaseException], args: tuple[object, ...]) -> BaseException:
    """Make an exception without calling its constructor; pickle restores its attributes from the state."""
    problem = kind.__new__(kind, *args)
    problem.args = args
    return problem


class ConfigError(PenstockError, ValueError):
    """A config key or value that cannot be used.

    `key` is the dotted key (`loop.spin_us`), `value` what was given, `source` where it came from (a file, a variable,
    an option, a call) and `allowed` what would have been right. The message says all four in one line.
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
        """The error for a known key with an impossible value."""
        message = f"{key} = {value!r} ({source}): allowed is {allowed}"
        return cls(message, key=key, value=value, source=source, allowed=allowed)


class ReferenceNotFoundError(ConfigError):
    """A `module:name` reference whose module cannot be imported, or has no such name."""


class PolicyRemovedError(PenstockError, RuntimeError):
    """`EventLoopPolicy` was asked for on a Python whose asyncio has no policies any more (3.16 and later)."""


class Overloaded(PenstockError):
    """Refused early: what was asked is at its limit, and waiting would help nobody.

    `reason` is one word:
    of an executor's lane `full` (no place in the queue) or `displaced` (a newer one took its place);
    of a gate `limit` (no permit free, and none is waited for), `wait` (the wait would be too long), `full` (the queue
    is at its longest), `expired` (it waited too long), `deadline` (it could not finish in time), `share` (its key has
    its fair share of the queue), `displaced` (one of a higher class took its place), `closed`,
    `streams` (there are `max_streams` already);
    of what stands around gates `left` (the client has gone), `lag` (the loop is behind), `tasks` (too many tasks),
    `memory`, `throttled` (too many were refused elsewhere).

    `queued` and `limit` are the counts met; `retry_after_s` is when a place is likely, None if nobody can tell;
    `queue_age_s` is how long the oldest has waited, or the refused one itself if it had waited. `gate` is the gate's
    name. Without a message, one is made of these when it is read.
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
        # One tuple, which a gate fills without coming here: attributes would take far longer than all else it does.
        super().__init__(message, reason, queued, limit, retry_after_s, queue_age_s, gate)

    reason: str = property(lambda self: self.args[1])  # type: ignore[assignment]
    queued: int = property(lambda self: self.args[2])  # type: ignore[assignment]
    limit: int = property(lambda self: self.args[3])  # type: ignore[assignment]
    retry_after_s: float | None = property(lambda self: self.args[4])  # type: ignore[assignment]
    queue_age_s: float = property(lambda self: self.args[5])  # type: ignore[assignment]
    gate: str = property(lambda self: self.args[6])  # type: ignore[assignment]

    def __str__(self) -> str:
        message = self.args[0]
        return str(message) if message is not None else self._told()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r}, reason={self.reason!r})"

    def _told(self) -> str:
        where = f"gate {self.gate!r}" if self.gate else "a gate"
        counts = f"limit {self.limit}, {self.queued} queued"
        retry = "" if self.retry_after_s is None else f"; try again in {self.retry_after_s:.3g} s"
        text = _REFUSALS.get(self.reason, "{where} refuses ({reason}; {counts})")
        told = text.format(where=where, counts=counts, reason=self.reason, age=f"{self.queue_age_s:.3g} s")
        return told + retry


# What a gate's refusal says when it is read.
_REFUSALS = {
    "limit": "{where} has no permit free ({counts}): raise its limit, or let entries wait by max_wait_s",
    "wait": "{where} would have this wait longer than max_wait_s ({counts}): raise its limit or max_wait_s",
    "full": "{where} has no place in its queue ({counts}): raise its limit or max_queued",
    "expired": "{where} had no permit within {age} ({counts}): raise its limit or max_wait_s",
    "deadline": "{where} could not have this finished by its deadline, after {age} ({counts}): raise the limit or "
    "deadline_s",
    "share": "{where} has as many of this key queued as is fair ({counts})",
    "displaced": "{where} gave this one's place to one of a higher class ({counts}): raise its limit or the priority",
    "streams": "{where} counts as many streams as it may ({limit}): raise max_streams, or exempt the path",
    "closed": "{where} is closed: it lets nobody in any more",
}


class ChannelClosed(PenstockError):
    """The channel is closed: nothing can be sent any more, or nothing is left to be received."""


class SlowPeer(PenstockError, ConnectionAbortedError):
    """What `connection_lost` gets when penstock has cut a connection whose peer was too slow; the message says why.

    `reason` is `slow_reader` (it left `size_bytes` unread for `late_s` seconds), `receive` (it sent `size_bytes` of a
    request in `late_s`) or `idle` (nothing came or went for `late_s`); `peer` is its address.
    """

    def __init__(self, message: str, *, reason: str, peer: object, size_bytes: int, late_s: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.peer = peer
        self.size_bytes = size_bytes
        self.late_s = late_s


class DeadlineExceeded(PenstockError, TimeoutError):
    """The deadline around the call (`penstock.pressure.deadline`) passed before its lane had the result.

    A call whose own timeout is sooner gets a plain TimeoutError.
    """


class WorkerLost(PenstockError):
    """The worker process died while it ran this job; other jobs are not touched, and another worker takes its place.

    `pid` is the worker's; `signal` the number of the signal that killed it, or None; `exit_code` what it exited with,
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
    """A job that has killed as many workers as its lane allows: it is not run again. The last worker's end is told."""

    def __init__(self, job: str, *, kills: int, pid: int, signal: int | None, exit_code: int | None) -> None:
        super().__init__(job, pid=pid, signal=signal, exit_code=exit_code)
        self.kills = kills
        self.args = (f"{self.args[0]}; it has killed {kills} workers and is not run again",)


class JobInterrupted(BaseException):
    """Raised inside a job, in its worker, when its caller has cancelled it or its time is up.

    Not an Exception, so that a job's `except Exception` lets it pass; a job that holds it back is killed.
    """


class UnpicklableError(PenstockError, pickle.PicklingError):
    """A function, argument, context variable or result that cannot be pickled; the message names the object."""


class WorkerStartError(PenstockError):
    """A lane's workers do not start.

    A module to preload or the initializer raised, or took longer than `start_s`, or the process ended at once.
    """


class RemoteError(PenstockError):
    """A job raised an exception that cannot itself travel: `kind` is its type's name, `traceback` its remote text."""

    def __init__(self, kind: str, text: str, traceback: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text
        self.traceback = traceback


class SchedulerLost(PenstockError):
    """The cluster's scheduler is gone or not reached: `address` names it. Jobs it had are not run again by penstock."""

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"scheduler {address}: {problem}")
        self.address = address


class Deadlock(PenstockError, RuntimeError):
    """On a virtual loop nothing can ever happen, or time never moves: the message names what each task waits for."""


class ExplorationFailed(PenstockError, AssertionError):
    """A scenario failed under a schedule: `seed` and `moment` (where a task was cancelled, or None) bring it back."""

    def __init__(self, message: str, *, seed: int | None, moment: int | None) -> None:
        super().__init__(message)
        self.seed = seed
        self.moment = moment


class InternalError(PenstockError):
    """A bug of penstock itself: please report it."""
