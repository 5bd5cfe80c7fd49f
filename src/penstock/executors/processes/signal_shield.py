"""Handling of signals that reach a whole group, for workers and the forkserver.

SIGTERM reaches all processes of a process group (of a shell or an init) or of a control group (systemd). A worker and
the forkserver end with their parent, which handles the signal. They ignore it by a handler, not by SIG_IGN, which a
program started from here would inherit. A process forked from here resets its handlers before it can receive a signal.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["do_nothing", "ignore_sigterm", "reset_in_children"]

HELD = (signal.SIGTERM, signal.SIGINT)
# the signals that were blocked before each fork in progress
_masks: list[set[int]] = []


def ignore_sigterm() -> object:
    """Ignore SIGTERM in this process, by a handler. Return the handler before."""
    before = signal.signal(signal.SIGTERM, do_nothing)
    # nor may it interrupt a system call
    signal.siginterrupt(signal.SIGTERM, False)
    return before


def do_nothing(signum: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing."""


def reset_in_children(reset: Callable[[], object]) -> None:
    """Call `reset()` first in every process forked from this one. Signals sent meanwhile are handled afterwards."""
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=partial(_reset, reset))


def _block() -> None:
    # an interrupt may be raised when the mask is set: the mask before is stored by then
    _masks.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop())


def _reset(reset: Callable[[], object]) -> None:
    reset()
    _unblock()
