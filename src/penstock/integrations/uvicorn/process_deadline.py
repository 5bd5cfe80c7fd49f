"""Ends a process in time after its first signal, if uvicorn serves in it."""

from __future__ import annotations

import asyncio
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn

from penstock.runtime.deadline import GRACE_S, Deadline, DeadlineOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.runtime.socketfile import SocketFile

__all__ = ["END_SIGNALS", "bound_server", "current_server"]

END_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# while the application starts no client waits for an answer: its cancelled startup has less time than a drain's tasks
STARTUP_GRACE_S = 0.15


def bound_server(drain_s: float | None, socket_files: Sequence[SocketFile], delay_s: float = 0.0) -> None:
    """Bound the end of this process, in whose main thread uvicorn serves, from its first signal on.

    `drain_s` is the time of the drain in seconds; None for no bound. It begins `delay_s` seconds later if the
    server says so. `socket_files` are removed at a forced end.
    """
    if threading.current_thread() is not threading.main_thread() or drain_s is None:
        return
    loop: Any = asyncio.get_running_loop()
    # kept: after its end it handles no signals
    server = current_server()
    options = DeadlineOptions(
        drain_s,
        lambda signum: _handling_server(signum) is not None,
        waited=_unfinished_work,
        relay=loop.relay_signals,
        at_end=partial(_remove_files, socket_files),
        grace_s=_grace_s,
        delay_s=delay_s,
        is_delayed=lambda: bool(getattr(server, "is_delaying", False)),
    )
    loop.watch_signals(Deadline.get().serve(options))


def _handling_server(signum: int) -> uvicorn.Server | None:
    """Return the server that handles the signal; None once uvicorn has ended and raises the signal again."""
    server = getattr(signal.getsignal(signum), "__self__", None) if signum in END_SIGNALS else None
    return server if isinstance(server, uvicorn.Server) else None


def current_server() -> uvicorn.Server | None:
    """Return the server that handles signals now."""
    return next(filter(None, map(_handling_server, END_SIGNALS)), None)


def _grace_s() -> float:
    server = current_server()
    return STARTUP_GRACE_S if server is not None and not server.started else GRACE_S


def _unfinished_work() -> str:
    server = current_server()
    if server is None:
        return ""
    counts = {"connection": len(server.server_state.connections), "task": len(server.server_state.tasks)}
    return ", ".join(f"{count} {noun}{'s' * (count != 1)}" for noun, count in counts.items() if count)


def _remove_files(socket_files: Sequence[SocketFile]) -> None:
    for file in socket_files:
        file.remove()
