"""Programs that can be attached to: their processes, and raw connections to their sockets."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until

__all__ = ["asked", "line_of", "running", "socket_path"]


@contextmanager
def running(program: str, folder: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the block ends, with its sockets in `folder`; enter when it can be attached to."""
    environ = {**os.environ, "PENSTOCK_RUNTIME_DIR": str(folder), **variables}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        path = socket_path(folder, process.pid)
        wait_until(lambda: path.exists() or process.poll() is not None)
        assert process.poll() is None, "the program has ended"
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def socket_path(folder: Path, pid: int) -> Path:
    """Return the path of a process's attach socket."""
    return folder / f"{pid}-attach.sock"


def line_of(command: str, **arguments: Any) -> bytes:
    """Return the line of a message."""
    return json.dumps({"version": 1, "command": command, **arguments}).encode() + b"\n"


def asked(path: Path, line: bytes, within_s: float = 30.0) -> dict[str, Any]:
    """Send one line on a connection of its own, and return the answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(within_s)
        sock.connect(str(path))
        sock.sendall(line)
        with sock.makefile("rb") as lines:
            found: dict[str, Any] = json.loads(lines.readline())
    return found
