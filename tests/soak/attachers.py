"""A fuzz of attach sockets: messages of every shape to a running service, whole, torn and in pieces.

`python -m tests.soak.attachers [MESSAGES]` sends 100,000. The service must answer afterwards, with the threads,
descriptors and tasks that it had before.
"""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.attached import asked, line_of, running, socket_path
from tests.support.waiting import wait_until

__all__ = ["fuzz"]

SERVICE = """
import asyncio, penstock

async def leaf():
    await asyncio.Event().wait()

async def main():
    tasks = [asyncio.create_task(leaf()) for _ in range(50)]
    await asyncio.Event().wait()

penstock.run(main())
"""
COMMANDS = ("about", "snapshot", "tasks", "task", "graph", "stacks", "findings", "level", "cancel", "gc", "set-limit")
NAMES = ("sites", "sort", "limit", "descending", "filter", "group", "tree", "number", "since", "level", "gate", "loop")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KNOWN = st.builds(
    lambda command, arguments: {"version": 1, "command": command, **arguments},
    st.sampled_from(COMMANDS),
    st.dictionaries(st.sampled_from(NAMES), JSON | st.sampled_from(["age", "site", "stack", 0, 1, True]), max_size=3),
)
LINES = st.one_of(
    KNOWN.map(lambda message: json.dumps(message, default=str).encode()),
    JSON.map(lambda message: json.dumps(message, default=str).encode()),
    st.binary(max_size=200).map(lambda raw: raw.replace(b"\n", b" ")),
    st.sampled_from([b"", b"[" * 5000, b'{"version":1,"command":"about"', b"x" * 66_000]),
)


def fuzz(messages: int) -> None:
    """Send so many messages. Raises AssertionError if the service does not stay as it was."""
    # a path of sockets is short
    with tempfile.TemporaryDirectory(prefix="fuzz", dir="/tmp") as folder, running(SERVICE, Path(folder)) as process:
        path = socket_path(Path(folder), process.pid)
        wait_until(lambda: asked(path, line_of("about", patience_ms=10_000))["loops"][0]["tasks_live"] == 51)
        before = figures(process.pid, path)
        sent, seed = 0, Random(1)
        while sent < messages:
            sent += burst(path, min(2000, messages - sent), seed)
            assert process.poll() is None, "the service has ended"
        wait_until(lambda: figures(process.pid, path) == before, told=lambda: f"{figures(process.pid, path)}, {before}")


def figures(pid: int, path: Path) -> tuple[int, int, int]:
    """Return the number of threads, descriptors and tasks, with no other connection than this question's."""
    tasks = asked(path, line_of("about", patience_ms=10_000))["loops"][0]["tasks_live"]
    return len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd")), tasks


def burst(path: Path, count: int, seed: Random) -> int:
    """Send some hundred messages on each of several connections, with answers read or not. Return their number."""
    total = 0

    @settings(
        max_examples=max(1, count // 10),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(LINES, min_size=10, max_size=10))
    def send(lines: list[bytes]) -> None:
        nonlocal total
        total += len(lines)
        talk(path, lines, seed)

    send()
    return total


def talk(path: Path, lines: list[bytes], seed: Random) -> None:
    """Send lines on one connection; read all answers, some, or none."""
    with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
        sock.settimeout(20)
        sock.connect(str(path))
        reads = seed.random() < 0.7
        for line in lines:
            for piece in pieces(line + b"\n", seed):
                sock.sendall(piece)
            if reads and len(line) < 65_000:
                answer: Any = json.loads(b"".join(answer_of(sock)))
                assert isinstance(answer["ok"], bool)


def pieces(line: bytes, seed: Random) -> Iterator[bytes]:
    cut = seed.randrange(len(line) + 1) if seed.random() < 0.3 else len(line)
    yield line[:cut]
    yield line[cut:]


def answer_of(sock: socket.socket) -> Iterator[bytes]:
    while True:
        data = sock.recv(65536)
        if not data:
            raise ConnectionResetError
        yield data
        if data.endswith(b"\n"):
            return


if __name__ == "__main__":
    fuzz(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
