"""The interface of the attach service's servers, and the choice between them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from penstock.loop import NATIVE
from penstock.runtime.attach.attachsocket import AttachSocket

if TYPE_CHECKING:
    from threading import Event

    from penstock._core.tasks.heartbeat import Heartbeat
    from penstock.runtime.attach.role import ProcessRole

__all__ = ["AttachServing", "make_server"]


class AttachServing(Protocol):
    """A server of attach sockets. `run` serves in the calling thread until `stop`, and can be called again."""

    def run(self, is_stopping: Event) -> None:
        """Serve until `stop`; not at all if `is_stopping` is set."""

    def stop(self) -> None:
        """Make `run` return. Any thread may call it."""

    def close(self) -> None:
        """Close everything, and remove the socket's file, after the end of `run`."""

    def forked(self) -> None:
        """Close everything in a forked child. The file is the parent's."""

    def follow(self, heartbeat: Heartbeat, name: str) -> None:
        """Show this loop while no thread gets the GIL."""

    def unfollow(self, heartbeat: Heartbeat) -> None:
        """Show this loop no more."""


def make_server(role: ProcessRole, actions: bool) -> AttachServing:
    """Return the server of this process. `actions` is whether monitors may act on it.

    Raises OSError if no socket can be made.
    """
    made = AttachSocket(os.getpid())
    if NATIVE:
        from penstock.runtime.attach.native_serving import NativeServing

        return NativeServing(role, actions, made)
    from penstock.runtime.attach.plain_serving import PlainServing

    return PlainServing(role, actions, made)
