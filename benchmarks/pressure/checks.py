"""Health checks of a service under load, as a load balancer makes them: each on a new connection."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from benchmarks.pressure.arms import DEADLINE_S

__all__ = ["Checked", "Checks"]

EVERY_S = 0.025


@dataclass(slots=True)
class Checked:
    """The number of checks, and the times of the ones answered 200 within the deadline."""

    asked: int = 0
    good_us: list[float] = field(default_factory=list)

    @property
    def percent(self) -> float:
        """The share answered 200 within the deadline."""
        return 100 * len(self.good_us) / max(1, self.asked)

    def quantile_us(self, quantile: float) -> float | None:
        """Return a quantile of their times, None without any."""
        ordered = sorted(self.good_us)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] if ordered else None


class Checks:
    """A thread that makes checks after `after_s`, for `for_s` seconds at most; `found` is complete at its end."""

    def __init__(self, port: int, path: str, after_s: float, for_s: float) -> None:
        self.found = Checked()
        self._request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode()
        self._address, self._after_s, self._for_s = ("127.0.0.1", port), after_s, for_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        if self._is_over.wait(self._after_s):
            return
        until_s = time.monotonic() + self._for_s
        while time.monotonic() < until_s and not self._is_over.wait(EVERY_S):
            self.found.asked += 1
            took_s = self._ask()
            if took_s is not None:
                self.found.good_us.append(took_s * 1e6)

    def _ask(self) -> float | None:
        """Check once; return the time in seconds, None unless the answer is 200 within the deadline."""
        began_s = time.monotonic()
        try:
            with socket.create_connection(self._address, timeout=DEADLINE_S) as client:
                client.sendall(self._request)
                is_good = client.recv(64).startswith(b"HTTP/1.1 200 ")
        except OSError:
            return None
        took_s = time.monotonic() - began_s
        return took_s if is_good and took_s <= DEADLINE_S else None
