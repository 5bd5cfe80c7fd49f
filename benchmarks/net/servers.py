"""The servers of a round: one fresh process for each arm and kind of server, which serves all rows of its kind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from benchmarks.machine import Placement, Process, read_line, spawn, stop

__all__ = ["Servers", "read_port", "resident_bytes"]

Command = tuple[str, ...]


@dataclass(slots=True)
class Server:
    """A server's process and the file of its stderr; `port` is 0 until it is known."""

    process: Process
    log: IO[str]
    port: int = 0

    def last_words(self) -> str:
        """Return the last line that the server has written to stderr, empty if there is none."""
        self.log.seek(0)
        return (self.log.read().split("\n") or [""])[-2:][0].strip()

    def stop(self) -> None:
        stop(self.process)
        self.log.close()


class Servers:
    """The live servers by command. Owns the processes until `retire`.

    Only one kind lives at a time: the servers of other kinds are stopped first.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._kind = ""
        self._live: dict[Command, Server] = {}

    @contextmanager
    def address(self, kind: str, command: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yield the pid and the port of the server that the command starts, started if need be.

        Raises:
            RuntimeError: the server or its load failed; the message has the last line of the server's stderr, and the
                server is stopped.
        """
        if kind != self._kind:
            self.retire()
            self._kind = kind
        try:
            server = self._started(tuple(command))
            yield server.process.pid, server.port
        except BaseException as error:
            server = self._live.pop(tuple(command))
            told = server.last_words()
            server.stop()
            if not isinstance(error, Exception):
                raise
            raise RuntimeError(f"{told or error}") from error

    def _started(self, command: Command) -> Server:
        if command not in self._live:
            log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by Server.stop
            server = self._live[command] = Server(spawn(command, self._placement.server, stderr=log), log)
            server.port = read_port(server.process)
        return self._live[command]

    def retire(self) -> None:
        """Stop every server."""
        for server in self._live.values():
            server.stop()
        self._live.clear()


def read_port(server: Process) -> int:
    """Return the port that a server prints as its first line."""
    return int(read_line(server))


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    with open(f"/proc/{pid}/smaps_rollup") as rolled:
        lines = dict(line.split(":", 1) for line in rolled if ":" in line)
    return int(lines["Rss"].split()[0]) * 1024
