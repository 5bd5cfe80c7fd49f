"""The client of attach sockets: this user's penstock processes, and a connection to one of them."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from penstock.errors import PenstockError
from penstock.runtime.supervisor.control import peer_ids
from penstock.runtime.supervisor.rundir import attach_sockets, control_sockets, refused_directories

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["AttachedProcess", "Refused", "error_line", "processes"]

VERSION = 1
# more than the answer about a hundred thousand tasks has
MOST_ANSWER_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
# between two tries to connect to a server whose queue is full
CONNECT_AGAIN_S = 0.01
# for another look at a process that had no GIL to spare, though none of its loops is blocked: a busy machine
PATIENCE_MS = 500


class Refused(PenstockError):
    """A process has refused a command; the text says why."""


def processes() -> list[int]:
    """Return the process numbers of this user's penstock processes that can be attached to."""
    return list(attach_sockets(os.environ))


def error_line(error: BaseException) -> str:
    """Return the text of an error in one line."""
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())


class AttachedProcess:
    """A connection to the attach socket of process `pid`, made again when it is lost.

    `within_s` is the longest wait for an answer in seconds. Raises OSError, in one line: ProcessLookupError without
    such a process, PermissionError for one of another user. One thread at a time may use it.
    """

    def __init__(self, pid: int, *, within_s: float = 5.0) -> None:
        self.pid = pid
        self._within_s = within_s
        self._received = bytearray()
        self._sock: socket.socket | None = self._connected(within_s)

    def _connected(self, within_s: float) -> socket.socket:
        path = attach_sockets(os.environ).get(self.pid)
        if path is None:
            raise ProcessLookupError(
                f"no penstock process {self.pid} of this user can be attached to{_reasons(self.pid)}"
            )
        self._received.clear()
        sock = socket.socket(socket.AF_UNIX)
        try:
            _connect(sock, str(path), time.monotonic() + within_s)
            if peer_ids(sock)[1] not in (0, os.geteuid()) and os.geteuid() != 0:
                raise PermissionError(f"process {self.pid} belongs to another user")
        except TimeoutError:
            sock.close()
            raise TimeoutError(f"process {self.pid} did not accept a connection in {within_s:g} s") from None
        except PermissionError as error:
            sock.close()
            raise PermissionError(f"process {self.pid} cannot be attached to: {error}") from None
        except OSError as error:
            sock.close()
            raise ProcessLookupError(f"process {self.pid} has ended ({error.strerror or error})") from None
        return sock

    def ask(self, command: str, *, within_s: float | None = None, **arguments: object) -> dict[str, Any]:
        """Return the answer to a command; in a partial one, made without the GIL, `partial` is true.

        A partial answer comes within 0.1 s if a loop is blocked, else within 0.6 s.

        Raises Refused with the process's reason, TimeoutError without an answer in time, and ConnectionError or
        ProcessLookupError if the process has ended.
        """
        limit_s = self._within_s if within_s is None else within_s
        line = json.dumps({"version": VERSION, "command": command, **arguments}).encode() + b"\n"
        until_s = time.monotonic() + limit_s
        answer = self._answered(line, until_s, limit_s)
        if answer.get("partial") and not any(loop.get("blocked") for loop in answer["loops"]):
            message = {"version": VERSION, "command": command, "patience_ms": PATIENCE_MS, **arguments}
            answer = self._answered(json.dumps(message).encode() + b"\n", until_s, limit_s)
        if not answer["ok"]:
            raise Refused(str(answer.get("error") or "no reason given"))
        return answer

    def _answered(self, line: bytes, until_s: float, limit_s: float) -> dict[str, Any]:
        try:
            return self._asked(line, until_s)
        except ConnectionError:
            # an idle connection was given up, or the process forked: try again
            self.close()
            return self._asked(line, until_s)
        except TimeoutError:
            # a late answer would be taken for the next one
            self.close()
            raise TimeoutError(f"process {self.pid} did not answer in {limit_s:g} s") from None

    def _asked(self, line: bytes, until_s: float) -> dict[str, Any]:
        if self._sock is None:
            self._sock = self._connected(until_s - time.monotonic())
        self._sock.settimeout(max(until_s - time.monotonic(), 0.001))
        try:
            self._sock.sendall(line)
            return self._parsed(self._line(self._sock, until_s))
        except (BrokenPipeError, ConnectionResetError):
            raise ConnectionError(f"process {self.pid} ended the connection") from None

    def _line(self, sock: socket.socket, until_s: float) -> bytes:
        at = 0
        while (end := self._received.find(b"\n", at)) < 0:
            at = len(self._received)
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            sock.settimeout(left_s)
            data = sock.recv(CHUNK_BYTES)
            self._received += data
            if not data or len(self._received) > MOST_ANSWER_BYTES:
                raise ConnectionError(f"process {self.pid} ended the connection")
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def _parsed(self, line: bytes) -> dict[str, Any]:
        found = None
        with suppress(ValueError, RecursionError):
            found = json.loads(line)
        if not isinstance(found, dict) or not isinstance(found.get("ok"), bool):
            raise ConnectionError(f"process {self.pid} sent no answer")
        return found

    def close(self) -> None:
        """Close the connection; the next question makes a new one."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _connect(sock: socket.socket, path: str, until_s: float) -> None:
    """Connect. While more clients than the server's queue takes come at once, try again."""
    while True:
        sock.settimeout(max(until_s - time.monotonic(), 0.001))
        try:
            return sock.connect(path)
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise TimeoutError from None
            time.sleep(CONNECT_AGAIN_S)


def _reasons(pid: int) -> str:
    if pid in control_sockets(os.environ):
        return ": it is a supervisor, choose one of its workers in 'penstock ps'"
    refused = refused_directories(os.environ)
    return f" ({'; '.join(refused)})" if refused else ""
