"""Signals: the descriptor to which signal numbers are written during a run."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SignalHooks"]


class SignalHooks(asyncio.BaseEventLoop):
    """Mixin, before asyncio's loop in the bases, that keeps a signal descriptor beside asyncio's own."""

    # the descriptor of `watch_signals`, where the program has none of its own
    _signals_to: int | None = None

    def signal_fd(self) -> int:
        """Return the descriptor for `signal.set_wakeup_fd` with which a signal ends this loop's wait."""
        fd: int = self._csock.fileno()  # type: ignore[attr-defined]
        return fd

    def has_signal_handlers(self) -> bool:
        """Return whether the program has set a handler by `add_signal_handler`."""
        return bool(self._signal_handlers)  # type: ignore[attr-defined]

    def watch_signals(self, fd: int) -> None:
        """Have every signal written to `fd` until `unwatch_signals`, unless the program has a descriptor of its own."""
        ours = {-1, fd, self._signals_to, self.signal_fd() if self.has_signal_handlers() else -1}
        # set first: a signal's handler may raise between any two of these lines
        self._signals_to = fd
        taken = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        if taken not in ours:
            signal.set_wakeup_fd(taken)
            self._signals_to = None

    def unwatch_signals(self) -> None:
        """Undo `watch_signals`, unless another descriptor was set meanwhile."""
        if self._signals_to is None:
            return
        taken = signal.set_wakeup_fd(self.signal_fd() if self.has_signal_handlers() else -1)
        if taken != self._signals_to:
            signal.set_wakeup_fd(taken)
        self._signals_to = None

    def relay_signals(self, numbers: bytes) -> None:
        """Take signal numbers as the loop's own descriptor would. Any thread may call it, for a closed loop too."""
        sock = self._csock  # type: ignore[attr-defined]
        if sock is not None:
            with suppress(OSError):
                sock.send(numbers)

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: object) -> None:
        """Add a handler as asyncio's loop does."""
        super().add_signal_handler(sig, callback, *args)
        _keep_wakeup_fd()

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove a handler as asyncio's loop does. Return whether there was one."""
        was_removed = super().remove_signal_handler(sig)
        _keep_wakeup_fd()
        return was_removed


def _keep_wakeup_fd() -> None:
    # asyncio sets its own descriptor with a handler, and none with a loop's last: be it the running loop or another
    running = asyncio._get_running_loop()
    if isinstance(running, SignalHooks) and running._signals_to is not None:
        signal.set_wakeup_fd(running._signals_to, warn_on_full_buffer=False)
