"""The hand-over of a service's listeners to a new program: a second supervisor starts beside the first one.

Once its workers serve, the first supervisor drains its own and ends. Until then the new process ends with the old one.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from penstock.runtime.supervisor.launching import FIRST_FD, spawn_program
from penstock.runtime.supervisor.worker.parent_tie import signal_at_parents_end

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence

__all__ = ["Successor", "TakenOver", "taken_over"]

VARIABLE = "PENSTOCK_UPGRADE"
READY = b"ready"
# descriptors are moved up first, so that none is overwritten before it is copied
HIGH_FD = 256


class Successor:
    """The new supervisor, in the old one. Ownership: it owns the channel until `close`."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        environ: Mapping[str, str],
        failed: Callable[[], object] = bool,
        served: Callable[[], object] = bool,
    ) -> None:
        """Start the program of this process again, with these sockets. Raises OSError.

        `failed()` is called if it ends before its workers serve, `served()` once they do.
        """
        self.failed, self.served = failed, served
        self.channel, child = socket.socketpair()
        self.channel.setblocking(False)
        with child:
            moved = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, HIGH_FD) for sock in (child, *sockets)]
            try:
                numbers = range(FIRST_FD, FIRST_FD + len(moved))
                actions = [(os.POSIX_SPAWN_DUP2, source, number) for source, number in zip(moved, numbers, strict=True)]
                order = json.dumps({"parent": os.getpid(), "channel": FIRST_FD, "sockets": list(numbers[1:])})
                command = [sys.executable, *sys.orig_argv[1:]]
                self.pid = spawn_program(command, actions, {**environ, VARIABLE: order})
            finally:
                for number in moved:
                    os.close(number)
        self._received = b""

    def is_ready(self) -> bool:
        """Return whether the new supervisor's workers serve. Raises EOFError if it has ended before."""
        with suppress(BlockingIOError):
            packet = self.channel.recv(len(READY) - len(self._received))
            self._received += packet
            if not packet and self._received != READY:
                raise EOFError("the new program has ended")
        return self._received == READY

    def kill(self) -> None:
        """Kill the new supervisor; its workers end with it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def cancel(self) -> None:
        """End the new supervisor in order."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()


class TakenOver:
    """The sockets that a new supervisor takes over, in the order in which the old one has them."""

    def __init__(self, channel: socket.socket, sockets: list[socket.socket]) -> None:
        self._channel, self.sockets = channel, sockets

    def tell_ready(self) -> None:
        """Tell the old supervisor that the new workers serve: it ends now."""
        signal_at_parents_end(0)
        with suppress(OSError):
            self._channel.send(READY)
        self._channel.close()


def taken_over(environ: MutableMapping[str, str]) -> TakenOver | None:
    """Return the sockets that an old supervisor hands over to this process; None if there is none."""
    order = environ.pop(VARIABLE, None)
    if order is None:
        return None
    told = json.loads(order)
    signal_at_parents_end(signal.SIGTERM)
    if os.getppid() != told["parent"]:
        raise OSError("the supervisor that hands its sockets over has ended")
    found = [socket.socket(fileno=number) for number in (told["channel"], *told["sockets"])]
    for sock in found:
        sock.set_inheritable(False)
    return TakenOver(found[0], found[1:])
