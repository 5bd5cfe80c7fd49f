"""Starts processes for the supervisor: by `posix_spawn` of a fresh interpreter, with one inherited descriptor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from penstock.runtime.supervisor.worker.link import HELD_SIGNALS
from penstock.runtime.supervisor.worker.orders import WorkerOrders, packed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["FIRST_FD", "interpreter", "send_orders", "spawn_module", "spawn_program"]

# the number of the first inherited descriptor in the new process
FIRST_FD = 3
DEFAULT_SIGNALS = (*HELD_SIGNALS, signal.SIGCHLD, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU, signal.SIGQUIT)


def interpreter() -> list[str]:
    """Return the command of a fresh interpreter with this one's options."""
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *options]


def spawn_module(module: str, channel: socket.socket, environ: Mapping[str, str], title: Sequence[str] = ()) -> int:
    """Start `python -m module 3 title...` with the channel as descriptor 3. Return its pid. Raises OSError.

    `title` are words for the list of processes. The child's end signals are held until it unblocks them.
    """
    # -P: the current folder must not hide the modules of penstock; the orders bring the path
    command = [*interpreter(), "-P", "-m", module, str(FIRST_FD), *title]
    actions = [(os.POSIX_SPAWN_DUP2, channel.fileno(), FIRST_FD)]
    return spawn_program(command, actions, environ, held=HELD_SIGNALS)


def spawn_program(
    command: Sequence[str],
    actions: Sequence[tuple[int, ...]],
    environ: Mapping[str, str],
    held: Sequence[int] = (),
) -> int:
    """Start a program with default signal actions, `held` signals blocked. Return its pid. Raises OSError."""
    return os.posix_spawn(
        command[0],
        list(command),
        environ,
        file_actions=list(actions),
        setsigmask=held,
        setsigdef=DEFAULT_SIGNALS,
    )


def send_orders(channel: socket.socket, orders: WorkerOrders, descriptors: Sequence[int]) -> None:
    """Send a worker its orders and descriptors. Raises ValueError if the orders are too long, and OSError."""
    socket.send_fds(channel, [packed(orders)], descriptors)
