"""The pings of systemd's watchdog: a thread sends them while the loop is not stuck."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from penstock.integrations.health.server import HealthEndpoints

if TYPE_CHECKING:
    from penstock.integrations.health.server import LoopHealth
    from penstock.runtime.supervisor.notify import Notifier

__all__ = ["SystemdWatchdog"]


class SystemdWatchdog:
    """A thread that pings systemd while the loop is not stuck, and stops to while it is.

    The loop is stuck once one callback has blocked it for `watchdog_interval_s`, half of `WatchdogSec`: systemd acts
    after a hang of one to one and a half `WatchdogSec`. A loop that starts or drains is never stuck.
    """

    def __init__(self, notifier: Notifier, health: LoopHealth) -> None:
        self._notifier, self._health = notifier, health
        self._interval_s = notifier.watchdog_interval_s or 0.0
        self._endpoints = HealthEndpoints(self._interval_s)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="penstock-systemd", daemon=True)

    def start(self) -> None:
        """Ping from now on; without an interval do nothing."""
        if self._interval_s > 0:
            self._thread.start()

    def close(self) -> None:
        """Stop the pings, and wait for the end of the thread."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        left_s = 0.0
        while True:
            if left_s <= 0:
                left_s = self._interval_s
                self._ping()
            wait_s = min(left_s, self._health.send_ping() or left_s)
            if self._stopped.wait(wait_s):
                return
            left_s -= wait_s

    def _ping(self) -> None:
        status, _ = self._endpoints.liveness(self._health.state())
        if status == 200:
            self._notifier.watchdog()
