"""Liveness and readiness on a port of their own, answered by a thread: `with HealthServer(port=8081) as health:`.

`/livez` and `/healthz` fail when the loop is stuck, and only then: one callback has kept it for `stuck_s`. Overload is
no failure; a restart would add to it. `/readyz` fails before the start is done, from the first signal on, and while
stuck.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from penstock.integrations.health.port import HealthPort, listen
from penstock.integrations.health.vitals import BEAT_S, Condition, LoopVitals
from penstock.runtime.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

__all__ = ["HealthServer", "Judge", "LoopCondition"]

STUCK_S = 10.0
# a loop that is blocked for longer is told of, and lives
TOLD_S = 1.0
LIVE, READY = ("/livez", "/healthz"), ("/readyz",)


@dataclass(frozen=True, slots=True)
class Judge:
    """The meaning of conditions: the answer that each path has."""

    stuck_s: float = STUCK_S
    overload_unready: bool = False

    def answer(self, path: str, conditions: Sequence[Condition]) -> tuple[int, str] | None:
        """Return status and text for a path, by the condition of each process; None for other paths."""
        if path in LIVE:
            told = [self.live(condition) for condition in conditions] or [(200, "starting")]
            # live if each of them is
            return max(told, key=_gravity)
        if path in READY:
            told = [self.ready(condition) for condition in conditions] or [(503, "starting")]
            # ready if any of them is
            return min(told, key=_gravity)
        return None

    def live(self, condition: Condition) -> tuple[int, str]:
        """Return whether a process lives. One that starts or drains may take its time."""
        if not condition.is_started or condition.is_ending:
            return 200, "draining" if condition.is_ending else "starting"
        if condition.blocked_s >= self.stuck_s:
            return 503, f"stuck for {condition.blocked_s:.1f} s"
        if condition.blocked_s >= TOLD_S:
            return 200, f"blocked for {condition.blocked_s:.1f} s"
        return 200, "overloaded" if condition.is_overloaded else "ok"

    def ready(self, condition: Condition) -> tuple[int, str]:
        """Return whether a process takes work."""
        status, text = self.live(condition)
        if not condition.is_started or condition.is_ending:
            return 503, text
        if condition.is_overloaded and self.overload_unready:
            return 503, "overloaded"
        return status, text


def _gravity(answer: tuple[int, str]) -> tuple[int, bool]:
    return answer[0], answer[1] != "ok"


class LoopCondition:
    """The condition of this process by its loop; `is_started()` and `is_ending()` are asked in another thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        is_started: Callable[[], bool],
        is_ending: Callable[[], bool] = Deadline.has_begun,
    ) -> None:
        self._vitals = LoopVitals(loop)
        self._is_started, self._is_ending = is_started, is_ending

    def __call__(self) -> Condition:
        """Return the condition now."""
        blocked_s, is_overloaded = self._vitals.read()
        return Condition(self._is_started(), self._is_ending(), is_overloaded, blocked_s)

    def tick(self) -> float | None:
        """Send what the loop has to answer; after how many seconds again, None: never."""
        if not self._vitals.needs_beats:
            return None
        self._vitals.beat()
        return BEAT_S


class HealthServer:
    """A port that tells whether this process lives and is ready. Use it as a context manager, or `start` and `close`.

    It follows the loop that runs where it is started, or the one given to `follow`. `ready()` says that the start is
    done, `ready(False)` that it takes no more work; under a drain the first signal does that.
    """

    def __init__(
        self, port: int, host: str = "127.0.0.1", *, stuck_s: float = STUCK_S, overload_unready: bool = False
    ) -> None:
        if stuck_s <= 0:
            raise ValueError(f"stuck_s = {stuck_s!r}: allowed is more than 0")
        self._judge = Judge(stuck_s, overload_unready)
        self._condition: LoopCondition | None = None
        self._is_ready = self._has_been_ready = False
        listener = listen(host, port)
        self.host, self.port = listener.getsockname()[:2]
        self._server = HealthPort(listener, self._answer, self._tick)

    def start(self) -> None:
        """Answer from now on, for the running loop if there is one."""
        try:
            self.follow(asyncio.get_running_loop())
        except RuntimeError:
            pass
        self._server.start()

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer for this loop from now on."""
        self.follow_condition(LoopCondition(loop, lambda: self._has_been_ready, self._is_ending))

    def follow_condition(self, condition: LoopCondition) -> None:
        """Answer by a condition that another part of the program makes."""
        self._condition = condition
        self._server.wake()

    def ready(self, is_ready: bool = True) -> None:
        """Say that the process takes work, or takes no more. Callable from any thread."""
        self._is_ready = is_ready
        self._has_been_ready = self._has_been_ready or is_ready

    def close(self) -> None:
        """Answer no more; the port is free afterwards."""
        self._server.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _is_ending(self) -> bool:
        return Deadline.has_begun() or (self._has_been_ready and not self._is_ready)

    def _answer(self, path: str) -> tuple[int, str] | None:
        condition: Any = self._condition
        return self._judge.answer(path, [] if condition is None else [condition()])

    def _tick(self) -> float | None:
        return None if self._condition is None else self._condition.tick()
