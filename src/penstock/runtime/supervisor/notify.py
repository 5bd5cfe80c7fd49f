"""systemd's notification protocol, sd_notify(3): the state of a service in datagrams to the socket NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

__all__ = ["Notifier"]

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
# messages that a full socket did not take
MOST_UNSENT = 16
MOST_STATUS_CHARS = 500


class Notifier:
    """The sender of a service's state to systemd, or nothing without `address`.

    `address` is a path, or `@` and the name of an abstract socket. `watchdog_interval_s` is how often `watchdog` is to
    be called, in seconds, half of systemd's bound; None for never. No method raises or blocks, and each may be called
    in any thread and in a signal's handler. Ownership: it keeps a socket until `close`.
    """

    def __init__(self, address: str = "", watchdog_interval_s: float | None = None) -> None:
        self.watchdog_interval_s = watchdog_interval_s
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._unsent: deque[bytes] = deque(maxlen=MOST_UNSENT)
        self._socket: socket.socket | None = None
        self._handover: dict[str, str] = {}
        if address:
            with suppress(OSError):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Self:
        """Take systemd's variables and return the notifier that they mean. No child inherits them."""
        found = {name: environ.pop(name, "") for name in VARIABLES}
        address = found["NOTIFY_SOCKET"]
        if not address.startswith(("/", "@")) or len(address) < 2:
            return cls()
        made = cls(address, _watchdog_interval_s(found))
        made._handover = {name: value for name, value in found.items() if value and name != "WATCHDOG_PID"}
        if made.watchdog_interval_s is None:
            made._handover.pop("WATCHDOG_USEC", None)
        return made

    @property
    def is_active(self) -> bool:
        """Whether there is a socket to notify."""
        return self._socket is not None

    def handover(self) -> Mapping[str, str]:
        """Return the variables for a process that takes this one's place; its own number replaces WATCHDOG_PID."""
        return dict(self._handover)

    def ready(self, status: str = "") -> None:
        """Report that the service has started, or that its reload is done."""
        self._send("READY=1", *_status(status))

    def reloading(self) -> None:
        """Report that a reload begins, with the time that `Type=notify-reload` asks for; `ready` ends it."""
        # systemd compares it with the time of its own request, by the same clock
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Report that the service begins to stop."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Report one line for `systemctl status`."""
        self._send(*_status(text))

    def watchdog(self) -> None:
        """Report that the service is alive."""
        self._send("WATCHDOG=1", is_kept=False)

    def main_pid(self, pid: int) -> None:
        """Report that another process is the service's main process from now on."""
        self._send(f"MAINPID={pid}")

    def retry(self) -> bool:
        """Send again what a full socket did not take. Return True if nothing is left."""
        while self._unsent:
            message = self._unsent[0]
            if not self._try(message):
                return False
            with suppress(IndexError):
                self._unsent.popleft()
        return True

    def close(self) -> None:
        """Close the socket; nothing is reported afterwards."""
        made, self._socket = self._socket, None
        self._unsent.clear()
        if made is not None:
            made.close()

    def _send(self, *lines: str, is_kept: bool = True) -> None:
        if self._socket is None or not lines:
            return
        message = "\n".join(lines).encode(errors="backslashreplace")
        # in order: STOPPING=1 must not come before READY=1
        if not (self.retry() and self._try(message)) and is_kept:
            self._unsent.append(message)

    def _try(self, message: bytes) -> bool:
        """Send a message. Return False if the socket is full: later it may take the message."""
        made = self._socket
        if made is not None:
            try:
                made.sendto(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, self._address)
            except BlockingIOError:
                return False
            except (OSError, ValueError):
                # nobody listens there, or the address is none
                return True
        return True


def _status(text: str) -> tuple[str, ...]:
    # a line break would begin another assignment
    line = " ".join(text.split())[:MOST_STATUS_CHARS]
    return (f"STATUS={line}",) if line else ()


def _watchdog_interval_s(variables: Mapping[str, str]) -> float | None:
    pid, text = variables["WATCHDOG_PID"], variables["WATCHDOG_USEC"]
    if pid and pid != str(os.getpid()):
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) == 0:
        return None
    return int(text) / 2e6
