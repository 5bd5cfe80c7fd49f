"""The process from which workers are forked: it preloads once, so that they start faster and share memory.

The supervisor sends it the channels of new workers. It forks twice, and the process between ends at once, so that each
worker becomes a child of the supervisor, the subreaper. It runs no thread of its own: a fork copies one thread.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import socket
import sys
import threading
import traceback
from contextlib import suppress
from pkgutil import resolve_name
from typing import Any

from penstock.runtime.supervisor.launching import spawn_module
from penstock.runtime.supervisor.worker.orders import MAX_ORDERS_BYTES, Orders, PreloadError

__all__ = ["TemplateProcess", "adopt_orphans", "run_template"]

PR_SET_CHILD_SUBREAPER = 36
FORK = b"fork"
MAX_MESSAGE_BYTES = 16 * 1024
# six bytes a character in JSON
MAX_REASON, MAX_DETAILS = 400, 2000
FAILED_PRELOAD = 3


def adopt_orphans() -> None:
    """Make this process the parent of its descendants whose own parent ends. Raises OSError where Linux is missing."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot adopt the workers that are forked")


class TemplateProcess:
    """The template of one generation, in the supervisor. Ownership: it owns the supervisor's end of the channel."""

    def __init__(self, orders: Orders) -> None:
        self.channel, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with child:
            packet = pickle.dumps((os.getpid(), orders))
            if len(packet) > MAX_ORDERS_BYTES:
                self.channel.close()
                raise ValueError(
                    f"the orders of a worker have {len(packet)} bytes: at most {MAX_ORDERS_BYTES} are sent"
                )
            self.pid = spawn_module(__name__, child, orders.environ, ("template",))
        self.channel.send(packet)
        self.channel.setblocking(False)
        # why it could not preload: the reason, the exit code, further lines
        self.failure: tuple[str, int, str] | None = None
        # the names of threads that the preloaded program runs
        self.threads: list[str] = []

    def fork(self, channel: socket.socket) -> None:
        """Have it fork a worker with this channel, as soon as it has preloaded. Raises OSError if it has ended."""
        socket.send_fds(self.channel, [FORK], [channel.fileno()])

    def receive(self) -> None:
        """Receive the report of its preload, if it has arrived."""
        with suppress(OSError):
            while packet := self.channel.recv(MAX_MESSAGE_BYTES):
                self._take(json.loads(packet))

    def _take(self, message: dict[str, Any]) -> None:
        if "failed" in message:
            self.failure = message["failed"], message["code"], message["details"]
        self.threads = message.get("threads", [])

    def ended(self, status: str) -> None:
        """Note the end of the process, described by `status`: without a report of its own that is its failure."""
        self.receive()
        if self.failure is None:
            self.failure = f"the process that workers are forked from {status}", FAILED_PRELOAD, ""

    def close(self) -> None:
        """End the process: it ends with its channel."""
        self.channel.close()


def run_template(channel: socket.socket) -> int:
    """Preload, then fork a worker for each channel that arrives, until the supervisor ends. Return the exit code."""
    from penstock.runtime.supervisor.worker.parent_tie import end_at_parents_end

    channel.setblocking(True)
    channel.set_inheritable(False)
    packet = channel.recv(MAX_ORDERS_BYTES)
    if not packet:
        return 0
    parent_pid, orders = pickle.loads(packet)
    # it holds the end signals for its workers, so nothing milder would end it
    end_at_parents_end(parent_pid)
    sys.path[:] = orders.path
    if not _preload(channel, orders):
        return 1
    while True:
        packet, descriptors, _, _ = socket.recv_fds(channel, len(FORK), 1)
        if not packet:
            return 0
        if not _fork_apart():
            channel.close()
            return _run_forked(descriptors[0], parent_pid)
        for number in descriptors:
            os.close(number)


def _preload(channel: socket.socket, orders: Orders) -> bool:
    try:
        resolve_name(orders.preload or "")(orders.payload)
    except PreloadError as error:
        _report(channel, error)
        return False
    except BaseException as error:
        reason = f"cannot preload: {type(error).__name__}: {' '.join(str(error).split())}"
        _report(channel, PreloadError(reason, FAILED_PRELOAD, traceback.format_exc()))
        return False
    message = {"preloaded": True, "threads": [thread.name for thread in threading.enumerate()[1:]][:10]}
    channel.send(json.dumps(message).encode())
    return True


def _report(channel: socket.socket, error: PreloadError) -> None:
    failure = {"failed": error.reason[:MAX_REASON], "code": error.code, "details": error.details[-MAX_DETAILS:]}
    channel.send(json.dumps(failure).encode())


def _fork_apart() -> bool:
    """Fork a process whose parent is the subreaper. Return False in that process."""
    sys.stdout.flush()
    sys.stderr.flush()
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return True
    if os.fork():
        os._exit(0)
    return False


def _run_forked(number: int, parent_pid: int) -> int:
    from penstock.runtime.supervisor.worker.child import run_worker

    with suppress(OSError):
        os.set_inheritable(number, False)
    _await_parent(parent_pid)
    return run_worker(socket.socket(fileno=number))


def _await_parent(parent_pid: int) -> None:
    """Wait until the process between has ended: the kernel's tie to the parent needs the right one."""
    left = 1000
    while os.getppid() != parent_pid and left:
        left -= 1
        threading.Event().wait(0.001)


if __name__ == "__main__":
    sys.exit(run_template(socket.socket(fileno=int(sys.argv[1]))))
