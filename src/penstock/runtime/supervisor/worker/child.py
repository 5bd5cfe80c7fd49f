"""The main module of a worker process: `python -m penstock.runtime.supervisor.worker.child FD`.

FD is the worker's channel. The process receives its orders there and runs the program that they name.
"""

from __future__ import annotations

import socket
import sys
from pkgutil import resolve_name

from penstock.runtime.supervisor.health.stack_dump import install_stack_dump
from penstock.runtime.supervisor.worker.link import receive_orders
from penstock.runtime.supervisor.worker.parent_tie import tie_to_parent

__all__ = ["run_worker"]


def run_worker(channel: socket.socket) -> int:
    """Receive the orders of this worker process, and run its program. Return the exit code."""
    channel.setblocking(True)
    # no program that the application starts gets it
    channel.set_inheritable(False)
    try:
        link = receive_orders(channel)
    except (EOFError, OSError):
        return 0
    tie_to_parent(link.orders.parent_pid)
    install_stack_dump(link.stack_fd)
    link.start()
    orders = link.orders.orders
    sys.path[:] = orders.path
    return int(resolve_name(orders.target)(link, orders.payload))


if __name__ == "__main__":
    sys.exit(run_worker(socket.socket(fileno=int(sys.argv[1]))))
