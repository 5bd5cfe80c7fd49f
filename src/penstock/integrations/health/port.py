"""The health port: a few lines of HTTP/1 from a thread of its own, with plain sockets, whatever the loop does.

Connections are bounded in number, time and bytes. At the bound the oldest makes room: a client that keeps connections
open keeps no other client out. A descriptor is kept in reserve for when the process has none left.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HealthPort", "listen"]

logger = logging.getLogger("penstock")

MOST_CLIENTS = 64
MOST_BYTES = 8192
# to send the request and to take the answer
CLIENT_S = 5.0
BACKLOG = 128
# a pause after a failure, so that a lasting failure takes no time of the process
PAUSE_S = 0.1
METHODS = (b"GET", b"HEAD")
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 picks a free one. Raises OSError, naming the address."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, number)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot listen for health checks on {host}:{port}: {reason}") from None
    listener.setblocking(False)
    return listener


class _Client:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.until_s = time.monotonic() + CLIENT_S
        self.received = b""


class HealthPort:
    """Answers GET and HEAD on a listening socket. `answer(path)` gives the status and a line; None: no such path.

    `tick()` is called in the port's thread, and says after how many seconds again; None: not before the next request.
    Ownership: the port owns the socket, its clients' sockets and the reserved descriptor, and closes them all.
    """

    def __init__(
        self,
        listener: socket.socket,
        answer: Callable[[str], tuple[int, str] | None],
        tick: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._listener, self._answer, self._tick = listener, answer, tick
        self._clients: dict[int, _Client] = {}
        self._waker, self._woken = socket.socketpair()
        self._reserve = _reserved()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="penstock-health", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def wake(self) -> None:
        """Have `tick` called now."""
        with suppress(OSError):
            self._waker.send(b"\0", socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Answer no more; the port is free afterwards. A second call does nothing."""
        if self._is_over:
            return
        self._is_over = True
        self.wake()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        for sock in (self._listener, self._waker, self._woken, *(client.sock for client in self._clients.values())):
            sock.close()
        self._clients.clear()
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    # --- the thread

    def _run(self) -> None:
        was_told = False
        while not self._is_over:
            try:
                self._round()
            except Exception:
                # it is the last to tell how the service fares: it goes on
                if not was_told:
                    logger.exception("the health port failed, and goes on")
                was_told = True
                time.sleep(PAUSE_S)

    def _round(self) -> None:
        if self._reserve is None:
            self._reserve = _reserved()
        poll = select.poll()
        for number in (self._listener.fileno(), self._woken.fileno(), *self._clients):
            poll.register(number, select.POLLIN)
        ready = [number for number, _ in poll.poll(self._patience_ms())]
        if self._woken.fileno() in ready:
            self._woken.recv(4096)
        for number in ready:
            if number in self._clients:
                self._read(self._clients[number])
        if self._listener.fileno() in ready and not self._is_over:
            self._accept()
        self._cut_late()

    def _patience_ms(self) -> float | None:
        tick_s = self._tick()
        waits = [] if tick_s is None else [tick_s]
        if self._clients:
            waits.append(min(client.until_s for client in self._clients.values()) - time.monotonic())
        return max(0.0, min(waits)) * 1000 + 1 if waits else None

    def _accept(self) -> None:
        try:
            sock = self._accepted()
        except OSError as error:
            self._after_failed_accept(error)
            return
        if len(self._clients) >= MOST_CLIENTS:
            self._end(min(self._clients.values(), key=lambda client: client.until_s))
        sock.setblocking(False)
        client = self._clients[sock.fileno()] = _Client(sock)
        # most requests are there already
        self._read(client)

    def _accepted(self) -> socket.socket:
        """Accept, with the reserved descriptor where there is no other; it is back when this client's is."""
        try:
            return self._listener.accept()[0]
        except OSError as error:
            if error.errno not in NO_DESCRIPTOR or self._reserve is None:
                raise
        os.close(self._reserve)
        self._reserve = None
        return self._listener.accept()[0]

    def _after_failed_accept(self, error: OSError) -> None:
        if error.errno in NO_DESCRIPTOR:
            time.sleep(PAUSE_S)
        elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR):
            raise error

    def _read(self, client: _Client) -> None:
        try:
            piece = client.sock.recv(MOST_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            piece = b""
        client.received += piece
        if b"\r\n\r\n" in client.received or b"\n\n" in client.received:
            self._reply(client)
        elif not piece or len(client.received) > MOST_BYTES:
            self._end(client)

    def _reply(self, client: _Client) -> None:
        method, target, *_ = [*client.received.split(b"\n", 1)[0].split(), b"", b""]
        try:
            status, line = self._answered(method, target)
            # an empty buffer takes it whole
            with suppress(OSError):
                client.sock.send(_message(status, line, with_body=method != b"HEAD"))
                client.sock.shutdown(socket.SHUT_WR)
        finally:
            self._end(client)

    def _answered(self, method: bytes, target: bytes) -> tuple[int, str]:
        if not target.startswith(b"/"):
            return 400, "no HTTP request"
        if method not in METHODS:
            return 405, "GET or HEAD"
        return self._answer(target.split(b"?", 1)[0].decode("latin-1")) or (
            404,
            "this port has /livez, /readyz and /healthz",
        )

    def _cut_late(self) -> None:
        now_s = time.monotonic()
        for client in [client for client in self._clients.values() if client.until_s <= now_s]:
            self._end(client)

    def _end(self, client: _Client) -> None:
        del self._clients[client.sock.fileno()]
        client.sock.close()


def _message(status: int, line: str, *, with_body: bool) -> bytes:
    body = f"{line}\n"
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(body.encode())}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return (head + body if with_body else head).encode()


def _reserved() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
