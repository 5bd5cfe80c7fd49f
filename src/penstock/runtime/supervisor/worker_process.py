"""A worker process as its supervisor has it: its channel, its health page, its stack file, its state."""

from __future__ import annotations

import enum
import json
import os
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.runtime.supervisor.health.hang_watch import HangWatch
from penstock.runtime.supervisor.health.page import HealthPage
from penstock.runtime.supervisor.health.stack_dump import StackFile
from penstock.runtime.supervisor.worker.link import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.runtime.supervisor.generation import Generation
    from penstock.runtime.supervisor.recycling import WorkerBounds

__all__ = ["State", "WorkerProcess"]


# a start that takes longer is told, and again at twice the age
SLOW_START_S = 30.0
# more than a channel holds: a worker that sends without end does not keep its supervisor
MOST_MESSAGES = 1000


class State(enum.Enum):
    """The state of a worker process."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    ENDED = "ended"


class WorkerProcess:
    """One worker process. `pid` is None until it is known: a forked worker says so itself.

    Ownership: it owns the supervisor's ends of channel, page and stack file until `close`.
    """

    def __init__(self, number: int, generation: Generation, bounds: WorkerBounds, launched_s: float) -> None:
        self.number = number
        self.generation = generation
        self.bounds = bounds
        self.launched_s = launched_s
        self.pid: int | None = None
        self.state = State.STARTING
        self.serving_since_s: float | None = None
        # the time at which a draining worker is killed
        self.killed_at_s: float | None = None
        # the reason of a kill whose stack is awaited, and since when
        self.kill_reason = ""
        self.kill_asked_s = 0.0
        # the failed start that the worker has reported
        self.failure: tuple[str, int, str] | None = None
        # whether the worker has received a signal that asks it to end, and when
        self.signalled_s: float | None = None
        # whether it accepts no more clients
        self.is_ending = False
        # when the stacks that it was asked for are logged
        self.shown_at_s: float | None = None
        # the age at which its start is told to be slow
        self.slow_start_s = SLOW_START_S
        # whether its end of the channel is closed
        self.has_hung_up = False
        self.hang = HangWatch()
        with ExitStack() as stack:
            # a process without descriptors left keeps none of these
            self.page = HealthPage.create()
            stack.callback(self.page.close)
            self.stack = StackFile.create()
            stack.callback(self.stack.close)
            self.channel, self.child_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.pop_all()
        self.channel.setblocking(False)

    def __str__(self) -> str:
        return f"worker {self.number} ({'not forked yet' if self.pid is None else f'pid {self.pid}'})"

    def descriptors(self) -> list[int]:
        """Return the worker's own descriptors, as its orders list them."""
        return [self.page.fd, self.stack.fd]

    def send(self, message: dict[str, Any]) -> None:
        """Send a message, unless the worker has ended or does not read."""
        with suppress(OSError):
            self.channel.send(json.dumps(message).encode())

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the messages that have arrived, at most `MOST_MESSAGES`. What is no message is left out."""
        for _ in range(MOST_MESSAGES):
            try:
                packet = self.channel.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self.has_hung_up = True
                return
            message = _message(packet)
            if message is not None:
                yield message

    def signal(self, signum: int) -> None:
        """Send a signal. The process is the supervisor's child: its number is not used again before it is reaped."""
        if self.pid is not None and self.state is not State.ENDED:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def catches(self, signum: int) -> bool:
        """Return whether the process has a handler for the signal. False where the system does not say so."""
        with suppress(OSError, ValueError):
            status = Path(f"/proc/{self.pid}/status").read_text(errors="replace")
            caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
            return bool(int(caught, 16) >> (signum - 1) & 1)
        return False

    def kill(self) -> None:
        """End the process at once."""
        self.signal(signal.SIGKILL)

    def served_s(self, now_s: float) -> float:
        """Return for how many seconds the worker has served."""
        return 0.0 if self.serving_since_s is None else now_s - self.serving_since_s

    def close(self) -> None:
        """Close the supervisor's ends, after the end of the process."""
        self.state = State.ENDED
        for each in (self.channel, self.child_channel, self.page, self.stack):
            each.close()


def _message(packet: bytes) -> dict[str, Any] | None:
    """Return the message of a packet; None for one that the worker's own code has written to the descriptor."""
    try:
        found = json.loads(packet)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
