"""The HTTP server of the page: a thread for each connection, one request for each, all of them bounded.

Threads are enough for the few readers of a page, and an answer may wait for an attach socket.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from penstock.monitor.page.request import BadRequest, PageRequest, read_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PageServer", "Reply"]

logger = logging.getLogger("penstock")

# connections at a time, each with a thread
MAX_CONNECTIONS = 64
BACKLOG = 64
# one write to a client that does not read
SEND_S = 5.0
# after an answer, for further bytes of the client: a close with unread bytes would discard the answer
LINGER_S = 0.5
LINGER_BYTES = 64 * 1024
# after a failed accept, as without free descriptors
PAUSE_S = 0.1
HEADERS = (
    ("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
    ("Connection", "close"),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """A response: status, content type, body, further header fields. `chunks` follow the body until they end.

    The iterator yields None where it has nothing to send, so that the server notices a client that is gone. `finish()`
    is called in the end, also if nothing could be sent.
    """

    status: int = 200
    content_type: str = "application/json"
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    chunks: Iterator[bytes | None] | None = field(default=None, compare=False)
    finish: Callable[[], object] = field(default=bool, compare=False)

    def head(self) -> bytes:
        """Return the head, with the empty line at its end."""
        phrase = HTTPStatus(self.status).phrase
        length = () if self.chunks is not None else (("Content-Length", str(len(self.body))),)
        fields = (("Content-Type", self.content_type), *length, *HEADERS, *self.headers)
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {value}" for name, value in fields)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class PageServer:
    """The server: `handle(request)` returns the reply; `check_peer(sock)` comes before. Both may raise BadRequest."""

    def __init__(
        self,
        listener: socket.socket,
        handle: Callable[[PageRequest], Reply],
        check_peer: Callable[[socket.socket], object] = bool,
        *,
        request_s: float = 5.0,
        most: int = MAX_CONNECTIONS,
    ) -> None:
        self._listener, self._handle, self._check_peer = listener, handle, check_peer
        self._request_s = request_s
        self._room = threading.BoundedSemaphore(most)
        self._is_closing = False
        self._thread = threading.Thread(target=self._accept_all, name="penstock-page", daemon=True)

    def start(self) -> None:
        """Start to accept."""
        self._thread.start()

    def close(self) -> None:
        """End accepting and close the listener; connections end by themselves."""
        self._is_closing = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept_all(self) -> None:
        while not self._is_closing:
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if not self._is_closing:
                    logger.warning("the monitor's page cannot accept: %s", error)
                    time.sleep(PAUSE_S)
                continue
            self._begin(sock)

    def _begin(self, sock: socket.socket) -> None:
        if not self._room.acquire(blocking=False):
            _send_at_once(sock, _refusal(503, "too many connections"))
            sock.close()
            return
        try:
            threading.Thread(target=self._serve, args=(sock,), name="penstock-page-client", daemon=True).start()
        except RuntimeError:
            self._room.release()
            sock.close()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock, suppress(OSError):
                reply = self._reply(sock)
                if reply is None:
                    return
                try:
                    _send(sock, reply)
                finally:
                    reply.finish()
                _linger(sock)
        finally:
            self._room.release()

    def _reply(self, sock: socket.socket) -> Reply | None:
        try:
            self._check_peer(sock)
            request = read_request(sock, within_s=self._request_s)
            return None if request is None else self._handle(request)
        except BadRequest as error:
            return _refusal(error.status, str(error))
        except OSError:
            raise
        except Exception:
            logger.exception("the monitor's page failed at a request")
            return _refusal(500, "the page failed: its log has the reason")


def _refusal(status: int, reason: str) -> Reply:
    return Reply(status, "text/plain; charset=utf-8", f"{reason}\n".encode())


def _send_at_once(sock: socket.socket, reply: Reply) -> None:
    with suppress(OSError):
        sock.setblocking(False)
        sock.send(reply.head() + reply.body)


def _send(sock: socket.socket, reply: Reply) -> None:
    sock.settimeout(SEND_S)
    sock.sendall(reply.head() + reply.body)
    if reply.chunks is None:
        return
    for chunk in reply.chunks:
        if chunk:
            sock.settimeout(SEND_S)
            sock.sendall(chunk)
        elif _is_gone(sock):
            return


def _is_gone(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        # a client sends nothing after its request: bytes are as good as an end
        sock.recv(1)
    except BlockingIOError:
        return False
    return True


def _linger(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)
    until_s, left_bytes = time.monotonic() + LINGER_S, LINGER_BYTES
    while left_bytes > 0 and (left_s := until_s - time.monotonic()) > 0:
        sock.settimeout(left_s)
        data = sock.recv(4096)
        if not data:
            return
        left_bytes -= len(data)
