"""Servers in processes of their own: start on a free port, the address of the monitor's page, the end."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

EXAMPLES = Path(__file__).parents[1]
START_S = 20.0
STOP_S = 10.0
PAGE = re.compile(r"is shown at (http\S+)")


class Server:
    """A running server. Its output is kept, and shown only if it fails."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.port = free_port()
        self.page = ""
        self.lines: deque[str] = deque(maxlen=40)
        line = [sys.executable, *command, "--port", str(self.port)]
        self.process = subprocess.Popen(
            line, cwd=EXAMPLES, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        # the output must be read: a full pipe would block the server
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            found = PAGE.search(line)
            if found:
                self.page = found[1]

    def wait_until_served(self) -> None:
        """Wait for an answer within a fifth of a second; raise SystemExit if none comes."""
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s and self.process.poll() is None:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{self.port}/", timeout=0.2):
                return
            time.sleep(0.05)
        raise SystemExit(f"{self.name} does not answer:\n{''.join(self.lines)}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def serving(name: str, command: list[str]) -> Iterator[Server]:
    """Run a server on the first core until the end of the block."""
    server = Server(name, command)
    try:
        pin(server.process.pid, 0)
        server.wait_until_served()
        yield server
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pin(pid: int, place: int) -> None:
    """Keep server and client from sharing a core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        with suppress(OSError):
            os.sched_setaffinity(pid, {cores[place % len(cores)]})
