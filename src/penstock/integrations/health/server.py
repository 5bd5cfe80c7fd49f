"""Answers liveness and readiness checks on a port of its own, from a thread: `with HealthServer(port=8081) as health:`.

`/livez` and `/healthz` fail only when the loop is stuck: one callback has blocked it for `stuck_s`. Overload is no
failure, since a restart would add to it. `/readyz` fails before the start is done, from the first signal on, and while
the loop is stuck.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from penstock.config import PressureConfig
from penstock.integrations.health.liveness import PING_S, HealthState, LoopLiveness
from penstock.integrations.health.port import HealthPort, listen
from penstock.runtime.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

__all__ = ["HealthEndpoints", "HealthServer", "LoopHealth"]

STUCK_S: float = PressureConfig().health_stuck_s
# a loop that is blocked for longer is live, and its answer says so
REPORT_BLOCKED_S = 1.0
LIVE, READY = ("/livez", "/healthz"), ("/readyz",)


@dataclass(frozen=True, slots=True)
class HealthEndpoints:
    """The paths of health checks, and the response of each by the states of the processes."""

    stuck_s: float = STUCK_S
    overload_unready: bool = False

    def respond(self, path: str, states: Sequence[HealthState]) -> tuple[int, str] | None:
        """Return status and text for a path, by the state of each process; None for other paths."""
        if path in LIVE:
            responses = [self.liveness(state) for state in states] or [(200, "starting")]
            # live if each process is
            return max(responses, key=_gravity)
        if path in READY:
            responses = [self.readiness(state) for state in states] or [(503, "starting")]
            # ready if any process is
            return min(responses, key=_gravity)
        return None

    def liveness(self, state: HealthState) -> tuple[int, str]:
        """Return the liveness of one process. While it starts or drains, it is never stuck."""
        if not state.is_started or state.is_draining:
            return 200, "draining" if state.is_draining else "starting"
        if state.blocked_s >= self.stuck_s:
            return 503, f"stuck for {state.blocked_s:.1f} s"
        if state.blocked_s >= REPORT_BLOCKED_S:
            return 200, f"blocked for {state.blocked_s:.1f} s"
        return 200, "overloaded" if state.is_overloaded else "ok"

    def readiness(self, state: HealthState) -> tuple[int, str]:
        """Return the readiness of one process."""
        status, text = self.liveness(state)
        if not state.is_started or state.is_draining:
            return 503, text
        if state.is_overloaded and self.overload_unready:
            return 503, "overloaded"
        return status, text


def _gravity(response: tuple[int, str]) -> tuple[int, bool]:
    return response[0], response[1] != "ok"


class LoopHealth:
    """The health of this process by its loop. `is_started()` and `is_draining()` are called in another thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        is_started: Callable[[], bool],
        is_draining: Callable[[], bool] = Deadline.has_begun,
    ) -> None:
        self._liveness = LoopLiveness(loop)
        self._is_started, self._is_draining = is_started, is_draining

    def state(self) -> HealthState:
        """Return the state now."""
        blocked_s, is_overloaded = self._liveness.read()
        return HealthState(self._is_started(), self._is_draining(), is_overloaded, blocked_s)

    def send_ping(self) -> float | None:
        """Send a ping if the loop needs them. Return the seconds until the next one; None for never."""
        if not self._liveness.needs_pings:
            return None
        self._liveness.send_ping()
        return PING_S


class HealthServer:
    """A port that answers liveness and readiness checks of this process: a context manager, or `start` and `close`.

    `port` is a number, 0 picks a free one; `stuck_s` are the seconds of one callback after which `/livez` fails; with
    `overload_unready` `/readyz` fails while the loop is overloaded. It follows the loop that runs where it is started,
    or the loop given to `follow`. Raises OSError, naming the address, and ValueError for `stuck_s` of 0 or less.
    """

    def __init__(
        self, port: int, host: str = "127.0.0.1", *, stuck_s: float = STUCK_S, overload_unready: bool = False
    ) -> None:
        if stuck_s <= 0:
            raise ValueError(f"stuck_s = {stuck_s!r}: allowed is more than 0")
        self._endpoints = HealthEndpoints(stuck_s, overload_unready)
        self._health: LoopHealth | None = None
        self._is_ready = self._has_been_ready = False
        listener = listen(host, port)
        self.host, self.port = listener.getsockname()[:2]
        self._server = HealthPort(listener, self._respond, self._send_ping)

    def start(self) -> None:
        """Answer from now on, for the running loop if there is one."""
        try:
            self.follow(asyncio.get_running_loop())
        except RuntimeError:
            pass
        self._server.start()

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer for this loop from now on."""
        self.follow_health(LoopHealth(loop, lambda: self._has_been_ready, self._is_draining))

    def follow_health(self, health: LoopHealth) -> None:
        """Answer from now on by a health that another part of the program makes."""
        self._health = health
        self._server.wake()

    def ready(self, is_ready: bool = True) -> None:
        """Say that the start is done, or with False that the process takes no more work. Callable from any thread.

        While signals drain the process, the first signal does the latter.
        """
        self._is_ready = is_ready
        self._has_been_ready = self._has_been_ready or is_ready

    def close(self) -> None:
        """Stop answering, and give the port back."""
        self._server.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _is_draining(self) -> bool:
        return Deadline.has_begun() or (self._has_been_ready and not self._is_ready)

    def _respond(self, path: str) -> tuple[int, str] | None:
        health: Any = self._health
        return self._endpoints.respond(path, [] if health is None else [health.state()])

    def _send_ping(self) -> float | None:
        return None if self._health is None else self._health.send_ping()
