"""Answers health checks for several worker processes: the parent has the port, and asks a thread of each worker.

A worker that does not answer holds the GIL, or is stopped: it counts as blocked since the question.
"""

from __future__ import annotations

import struct
import threading
import time
from contextlib import suppress
from dataclasses import astuple, replace
from typing import TYPE_CHECKING

from penstock.integrations.health.liveness import HealthState
from penstock.integrations.health.port import HealthPort
from penstock.integrations.worker_channels import WorkerChannels, send_channel
from penstock.runtime.deadline import Deadline

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from penstock.integrations.health.server import HealthEndpoints, LoopHealth

__all__ = ["HealthReporter", "WorkersHealth"]

KIND = b"+"
QUESTION = b"?"
# a HealthState's four fields
ANSWER = struct.Struct("???d")
# a worker's thread answers within a few switches of the GIL
ANSWER_S = 0.1
# answers stay valid for so long: a flood of checks asks the workers no more often
FRESH_S = 0.05


class HealthReporter:
    """A worker's thread that reports its health to the parent. Ownership: the thread owns its end of the channel."""

    def __init__(self, handover: socket.socket, health: LoopHealth) -> None:
        self._handover, self._health = handover, health

    def start(self) -> None:
        """Send the parent a channel, and answer on it until either process ends."""
        threading.Thread(target=self._run, name="penstock-health", daemon=True).start()

    def _run(self) -> None:
        # sent in this thread, since it may block: the parent receives channels only when it is asked
        with suppress(OSError), send_channel(self._handover, KIND, closes_at_fork=True) as channel:
            while self._answer(channel):
                pass

    def _answer(self, channel: socket.socket) -> bool:
        """Wait for a question, or until the next ping is due. Return False when the parent has ended."""
        channel.settimeout(self._health.send_ping())
        try:
            if not channel.recv(len(QUESTION)):
                return False
        except TimeoutError:
            return True
        channel.sendall(ANSWER.pack(*astuple(self._health.state())))
        return True


class HealthChannel:
    """The parent's end of one worker's channel."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        # when the question was asked that is not answered yet
        self._asked_s: float | None = None
        self._state = HealthState()

    @property
    def is_waiting(self) -> bool:
        """Whether a question has no answer yet."""
        return self._asked_s is not None

    def ask(self) -> bool:
        """Ask; return False if an earlier question has no answer yet. Raises OSError when the worker has ended."""
        self.read()
        if self._asked_s is not None:
            return False
        self.sock.send(QUESTION)
        self._asked_s = time.monotonic()
        return True

    def read(self) -> None:
        """Read the worker's answer. Raises OSError when the worker has ended."""
        with suppress(BlockingIOError):
            # a message this short is not split
            answer = self.sock.recv(ANSWER.size)
            if len(answer) != ANSWER.size:
                raise ConnectionResetError("the worker has ended")
            self._state, self._asked_s = HealthState(*ANSWER.unpack(answer)), None

    def state(self) -> HealthState:
        """Return the worker's state: as it answered, or blocked since the question."""
        if self._asked_s is None:
            return self._state
        silent_s = time.monotonic() - self._asked_s
        return replace(self._state, blocked_s=max(self._state.blocked_s, silent_s))


class WorkersHealth:
    """The health port of a parent, on a listening socket. `handover` is the socket that workers inherit.

    `is_draining()` is called in the port's thread.

    Ownership: the port's thread has the channels; `close` closes them after it.
    """

    def __init__(
        self,
        listener: socket.socket,
        endpoints: HealthEndpoints,
        is_draining: Callable[[], bool] = Deadline.has_begun,
    ) -> None:
        self._endpoints, self._is_draining = endpoints, is_draining
        self._channels = WorkerChannels(HealthChannel, blocking=False)
        self.handover = self._channels.handover
        self._asked_s = -FRESH_S
        self.listener = listener
        self.host, self.port = listener.getsockname()[:2]
        self._server = HealthPort(listener, self._respond)

    @property
    def workers(self) -> int:
        """The number of workers that had a channel at the last check."""
        return len(self._channels)

    def start(self) -> None:
        """Answer from now on."""
        self._server.start()

    def stop_answering(self) -> None:
        """Give the port back; the workers' channels stay."""
        self._server.close()

    def close(self) -> None:
        """Stop answering, and give the port back."""
        self.stop_answering()
        self._channels.close()

    def _respond(self, path: str) -> tuple[int, str] | None:
        if self._is_draining():
            return self._endpoints.respond(path, [HealthState(is_started=True, is_draining=True)])
        now_s = time.monotonic()
        if now_s - self._asked_s >= FRESH_S:
            self._asked_s = now_s
            self._receive_channels()
            self._channels.ask(HealthChannel.ask, ANSWER_S)
        return self._endpoints.respond(path, [channel.state() for _, channel in self._channels.items()])

    def _receive_channels(self) -> None:
        with suppress(BlockingIOError):
            while True:
                _, sockets = self._channels.receive()
                for sock in sockets:
                    self._channels.add(sock)
