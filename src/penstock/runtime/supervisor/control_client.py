"""The client of control sockets: the live supervisors of this user, and one question to one of them."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from typing import Any

from penstock.runtime.supervisor.control import VERSION, peer_ids
from penstock.runtime.supervisor.rundir import control_sockets, refused_directories

__all__ = ["ask", "explain_absence", "supervisors"]

MAX_ANSWER_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 64 * 1024


def supervisors() -> list[int]:
    """Return the process numbers of this user's live supervisors."""
    return list(control_sockets(os.environ))


def explain_absence() -> str:
    """Return why a supervisor that runs may not be found, as the end of a line; an empty text without a reason."""
    refused = refused_directories(os.environ)
    return f" ({'; '.join(refused)})" if refused else ""


def ask(pid: int, command: str, *, within_s: float = 10.0, **arguments: object) -> dict[str, Any]:
    """Return a supervisor's answer: an object with `ok`, and with `error` if that is false.

    `within_s` is the longest wait in seconds. Raises OSError, in one line: ProcessLookupError without such a
    supervisor, TimeoutError without an answer in time, ConnectionError for an answer that is none.
    """
    path = control_sockets(os.environ).get(pid)
    if path is None:
        raise ProcessLookupError(f"process {pid} is no supervisor of this user{explain_absence()}")
    until_s = time.monotonic() + within_s
    message = {"version": VERSION, "command": command, **arguments}
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.settimeout(max(within_s, 0.001))
            sock.connect(str(path))
            if peer_ids(sock)[1] not in (0, os.geteuid()) and os.geteuid() != 0:
                raise PermissionError(f"the supervisor {pid} is another user's")
            # it may have answered before the end of the line
            with suppress(BrokenPipeError):
                sock.sendall(json.dumps(message).encode() + b"\n")
            line = _line(sock, until_s)
        except TimeoutError:
            raise TimeoutError(f"the supervisor {pid} did not answer in {within_s:g} s") from None
        except ConnectionError:
            raise ConnectionError(f"the supervisor {pid} ended the connection") from None
    return _answer(pid, line)


def _line(sock: socket.socket, until_s: float) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        sock.settimeout(left_s)
        data = sock.recv(CHUNK_BYTES)
        received += data
        if not data or len(received) > MAX_ANSWER_BYTES:
            raise ConnectionError
    return bytes(received)


def _answer(pid: int, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("ok"), bool):
        raise ConnectionError(f"the supervisor {pid} sent no answer")
    return found
