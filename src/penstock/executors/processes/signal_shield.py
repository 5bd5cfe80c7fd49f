"""Outlives signals that reach whole groups, and hands nothing of that down.

SIGTERM comes to all of a process group (a shell's, an init's) or of a control group (systemd's). A worker and the
forkserver end with their parent, and how that ends is its own to decide. Handlers do this, not SIG_IGN, which a program
would inherit that is started from here; and a process that is forked from here has its own handlers before it hears of
a signal.
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
# of each fork that is being made, what was blocked before
_masks: list[set[int]] = []


def ignore_sigterm() -> object:
    """Have SIGTERM do nothing in this process; what it did before."""
    before = signal.signal(signal.SIGTERM, do_nothing)
    # not even interrupt a system call
    signal.siginterrupt(signal.SIGTERM, False)
    return before


def do_nothing(signum: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing."""


def reset_in_children(reset: Callable[[], object]) -> None:
    """Call `reset()` first in every process that is forked from this one: what is sent to it meanwhile comes after."""
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=partial(_reset, reset))


def _block() -> None:
    # an interrupt may be raised as the mask is set: by then what it was is known
    _masks.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop())


def _reset(reset: Callable[[], object]) -> None:
    reset()
    _unblock()
