"""The orders of a worker process: the program to run, and the descriptors that it gets.

They are pickled, and sent as the first message of the worker's channel by its parent, which is trusted.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

__all__ = ["MAX_DESCRIPTORS", "MAX_ORDERS_BYTES", "Orders", "PreloadError", "WorkerOrders", "packed"]

# less than the kernel's bound of a message between two local sockets
MAX_ORDERS_BYTES = 160 * 1024
MAX_DESCRIPTORS = 200


@dataclass(frozen=True, slots=True)
class Orders:
    """The orders of all workers of one generation.

    `target` is the import string of a function `run(link, payload) -> exit code`, called in the worker's main thread.
    `environ` are the worker's variables, `path` is its `sys.path`. `preload` is the import string of a function
    `preload(payload)`, called in the process that workers are forked from; it may raise PreloadError. None: each worker
    is a fresh process.
    """

    target: str
    payload: Any
    environ: dict[str, str]
    path: tuple[str, ...]
    preload: str | None = None


class PreloadError(Exception):
    """A preload that has failed: the reason in one line, the exit code of the service, further lines."""

    def __init__(self, reason: str, code: int, details: str) -> None:
        super().__init__(reason)
        self.reason, self.code, self.details = reason, code, details


@dataclass(frozen=True, slots=True)
class WorkerOrders:
    """The orders of one worker. The message carries its descriptors: the health page, the stack file, the listening
    sockets, then those that the payload speaks of."""

    number: int
    generation: int
    parent_pid: int
    orders: Orders
    # of each listener, whether the service owns it: another program goes on with the others
    owned: tuple[bool, ...]
    # whether another supervisor goes on with all listeners if this one ends
    leaves_listeners: bool = False


def packed(orders: object) -> bytes:
    """Return orders as one message. Raises ValueError if they are too long, or cannot be pickled."""
    try:
        packet = pickle.dumps(orders)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"the settings cannot be sent to a worker: {error}") from error
    if len(packet) > MAX_ORDERS_BYTES:
        raise ValueError(f"the settings of a worker have {len(packet)} bytes: at most {MAX_ORDERS_BYTES} are sent")
    return packet
