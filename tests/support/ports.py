"""Free TCP ports, for servers that are told theirs."""

import random
import socket
from pathlib import Path

__all__ = ["free_port"]

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST = 10_000
# hypothesis seeds the module's own functions, in each leg alike
_random = random.SystemRandom()


def free_port() -> int:
    """Return a port of 127.0.0.1 to which nothing is bound.

    It lies below the range from which the kernel gives ports to clients: no connection of a parallel leg takes it
    before the server does, and no client that polls for the server connects to itself.
    """
    highest = int(RANGE.read_text().split()[0])
    while True:
        port = _random.randrange(LOWEST, highest)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
