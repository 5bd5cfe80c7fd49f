"""A worker's end of its channel to the supervisor: it reports its start and its end, and is told to drain.

Messages are JSON objects, one in each packet. The channel ends when the supervisor has ended, for any reason: the
worker then drains for a second.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from penstock.runtime.supervisor.health.page import DRAINING, SERVING, HealthPage
from penstock.runtime.supervisor.health.stack_dump import STACK_SIGNAL
from penstock.runtime.supervisor.rundir import control_sockets
from penstock.runtime.supervisor.worker.orders import MAX_DESCRIPTORS, MAX_ORDERS_BYTES, WorkerOrders
from penstock.runtime.supervisor.worker.parent_tie import lifeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from penstock.runtime.supervisor.health.writer import HealthWriter

__all__ = ["HELD_SIGNALS", "MAX_MESSAGE_BYTES", "WorkerLink", "current_link", "receive_orders"]

MAX_MESSAGE_BYTES = 16 * 1024
MAX_REASON_BYTES = 2000
MAX_DETAILS_BYTES = 12000
# signals that a new process holds until it has handlers for them
HELD_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, STACK_SIGNAL)
# the drain of a worker without a supervisor; the kernel ends it a moment later
ORPHAN_DRAIN_S = 0.8
REMOVAL_TRIES, REMOVAL_INTERVAL_S = 10, 0.05

_current: WorkerLink | None = None


def current_link() -> WorkerLink | None:
    """Return the link of this process to its supervisor; None in a process that is no worker."""
    return _current


class WorkerLink:
    """The worker's end of its channel. `listeners` are its listening sockets, `inherited` further descriptors.

    `owned` are the listeners of this service alone; with `leaves_listeners` another supervisor goes on with these too.

    Ownership: the link keeps the channel and the page until the process ends.
    """

    def __init__(self, channel: socket.socket, orders: WorkerOrders, descriptors: list[int]) -> None:
        # imported here: it imports the loop, and the supervisor uses this module too
        from penstock.runtime.supervisor.health.writer import HealthWriter

        self._channel = channel
        self.orders = orders
        self.page = HealthPage(descriptors[0])
        self.stack_fd = descriptors[1]
        end = 2 + len(orders.owned)
        self.listeners = [socket.socket(fileno=number) for number in descriptors[2:end]]
        pairs = zip(self.listeners, orders.owned, strict=True)
        self.owned = [listener for listener, is_owned in pairs if is_owned]
        self.leaves_listeners = orders.leaves_listeners
        self.inherited = descriptors[end:]
        self.health: HealthWriter = HealthWriter(self.page, lifeline(orders.parent_pid))
        self._on_drain: Callable[[float | None, bool], object] | None = None
        self._lock = threading.Lock()
        # whether the supervisor has told the worker to drain, or has ended
        self.is_drained = False

    @property
    def number(self) -> int:
        """The worker's number, from 1; the number of an ended worker is used again."""
        return self.orders.number

    def start(self) -> None:
        """Make this process a worker: obey the supervisor, and pass signals on to it."""
        global _current
        _current = self
        os.register_at_fork(after_in_child=_forget)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self.report_signal)
        for signum in (signal.SIGHUP, signal.SIGUSR2):
            # they are for the supervisor, but may come to the whole process group
            signal.signal(signum, _ignore)
        # held since the start of the process
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)
        self._send({"pid": os.getpid()})
        self.health.start()
        threading.Thread(target=self._read, name="penstock-worker-link", daemon=True).start()

    def serve_drains(self, on_drain: Callable[[float | None, bool], object] | None) -> None:
        """Call `on_drain(seconds, is_orphan)` in the link's thread when the worker is to drain, in so many seconds.

        Without such a function the process ends at once instead: it serves nobody yet.
        """
        with self._lock:
            self._on_drain = on_drain

    def started(self) -> None:
        """Report that the worker listens."""
        self.page.set_state(SERVING)
        self._send({"started": True})

    def failed(self, reason: str, code: int, details: str = "") -> None:
        """Report that the start has failed: the reason in one line, the exit code, further lines."""
        self._send(
            {"failed": _cut(reason, MAX_REASON_BYTES), "code": code, "details": _cut(details, MAX_DETAILS_BYTES)}
        )

    def ending(self) -> None:
        """Report that the worker accepts no more clients."""
        self._send({"ending": True})

    def report_signal(self, signum: int, frame: FrameType | None = None) -> None:
        """Pass a signal on: the supervisor decides, since the signal may have come to it as well."""
        self._send({"signal": signum})

    def _send(self, message: dict[str, Any]) -> None:
        # a supervisor that has ended, or does not read, must not stop the worker
        with suppress(OSError):
            self._channel.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)

    def _read(self) -> None:
        while True:
            try:
                packet = self._channel.recv(MAX_MESSAGE_BYTES)
            except OSError:
                packet = b""
            if not packet:
                self._drain(ORPHAN_DRAIN_S, is_orphan=True)
                _remove_control_socket()
                return
            message = json.loads(packet)
            if "leaves_listeners" in message:
                self.leaves_listeners = message["leaves_listeners"]
            if "drain" in message:
                self._drain(message["drain"], is_orphan=False)

    def _drain(self, drain_s: float | None, *, is_orphan: bool) -> None:
        with self._lock:
            self.is_drained = True
            self.page.set_state(DRAINING)
            if self._on_drain is None:
                os._exit(0)
            self._on_drain(drain_s, is_orphan)


def receive_orders(channel: socket.socket) -> WorkerLink:
    """Receive the first message of a channel. Raises EOFError if the supervisor has ended."""
    packet, descriptors, _, _ = socket.recv_fds(channel, MAX_ORDERS_BYTES, MAX_DESCRIPTORS)
    if not packet:
        raise EOFError("the supervisor has ended")
    for number in descriptors:
        os.set_inheritable(number, False)
    return WorkerLink(channel, pickle.loads(packet), descriptors)


def _remove_control_socket() -> None:
    """Remove the file of the control socket that a killed supervisor has left. A dying one may still hold it."""
    for _ in range(REMOVAL_TRIES):
        with suppress(OSError):
            # the look removes files that nobody answers on
            control_sockets(os.environ)
        threading.Event().wait(REMOVAL_INTERVAL_S)


def _forget() -> None:
    """Close the channel in a process that the worker forks: it may live on, and the channel must not."""
    global _current
    link, _current = _current, None
    if link is not None:
        link._channel.close()


def _ignore(signum: int, frame: FrameType | None) -> None:
    """Do nothing. A handler, not SIG_IGN: programs that the worker starts do not inherit it."""


def _cut(text: str, most_bytes: int) -> str:
    # escaped in JSON, a character may take six bytes and a lone surrogate is no error
    return text if len(json.dumps(text)) <= most_bytes else text[: most_bytes // 6]
