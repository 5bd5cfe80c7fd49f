"""A minimal HTTP/1 server for health checks: it runs in a thread, with plain sockets, and does not need the loop.

Connections are bounded in number, time and bytes. At the bound the oldest one is closed, so that a client with many
open connections does not keep others out. One descriptor is kept in reserve for when the process has none left.
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

MAX_CLIENTS = 64
MAX_REQUEST_BYTES = 8192
# for the request and its answer
CLIENT_S = 5.0
BACKLOG = 128
# a pause after a failure, so that a lasting one does not use up a core
PAUSE_S = 0.1
METHODS = (b"GET", b"HEAD")
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
DESCRIPTOR_ERRORS = (errno.EMFILE, errno.ENFILE)


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
    """A server of GET and HEAD on a listening socket. `respond(path)` returns status and text, None for no such path.

    `tick()` is called in the port's thread. It returns the seconds until its next call, None for the next request.
    Ownership: the port owns the socket, its clients' sockets and the reserved descriptor, and closes them all.
    """

    def __init__(
        self,
        listener: socket.socket,
        respond: Callable[[str], tuple[int, str] | None],
        tick: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._listener, self._respond, self._tick = listener, respond, tick
        self._clients: dict[int, _Client] = {}
        self._waker, self._wakeup = socket.socketpair()
        self._reserve = _open_reserve()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="penstock-health", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def wake(self) -> None:
        """Call `tick` now, in the port's thread."""
        with suppress(OSError):
            self._waker.send(b"\0", socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Stop answering, and give the port back. A second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self.wake()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        for sock in (self._listener, self._waker, self._wakeup, *(client.sock for client in self._clients.values())):
            sock.close()
        self._clients.clear()
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    # --- the thread ---

    def _run(self) -> None:
        was_logged = False
        while not self._is_closed:
            try:
                self._run_once()
            except Exception:
                # health checks must be answered: the thread goes on
                if not was_logged:
                    logger.exception("the health port failed, and goes on")
                was_logged = True
                time.sleep(PAUSE_S)

    def _run_once(self) -> None:
        if self._reserve is None:
            self._reserve = _open_reserve()
        poll = select.poll()
        for number in (self._listener.fileno(), self._wakeup.fileno(), *self._clients):
            poll.register(number, select.POLLIN)
        ready = [number for number, _ in poll.poll(self._timeout_ms())]
        if self._wakeup.fileno() in ready:
            self._wakeup.recv(4096)
        for number in ready:
            if number in self._clients:
                self._read(self._clients[number])
        if self._listener.fileno() in ready and not self._is_closed:
            self._accept()
        self._close_late()

    def _timeout_ms(self) -> float | None:
        tick_s = self._tick()
        waits = [] if tick_s is None else [tick_s]
        if self._clients:
            waits.append(min(client.until_s for client in self._clients.values()) - time.monotonic())
        return max(0.0, min(waits)) * 1000 + 1 if waits else None

    def _accept(self) -> None:
        try:
            sock = self._accept_socket()
        except OSError as error:
            self._on_accept_error(error)
            return
        if len(self._clients) >= MAX_CLIENTS:
            self._end(min(self._clients.values(), key=lambda client: client.until_s))
        sock.setblocking(False)
        client = self._clients[sock.fileno()] = _Client(sock)
        # most requests have arrived with the connection
        self._read(client)

    def _accept_socket(self) -> socket.socket:
        """Accept, with the reserved descriptor if there is no other; `_run_once` opens it again."""
        try:
            return self._listener.accept()[0]
        except OSError as error:
            if error.errno not in DESCRIPTOR_ERRORS or self._reserve is None:
                raise
        os.close(self._reserve)
        self._reserve = None
        return self._listener.accept()[0]

    def _on_accept_error(self, error: OSError) -> None:
        if error.errno in DESCRIPTOR_ERRORS:
            time.sleep(PAUSE_S)
        elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR):
            raise error

    def _read(self, client: _Client) -> None:
        try:
            piece = client.sock.recv(MAX_REQUEST_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            piece = b""
        client.received += piece
        if b"\r\n\r\n" in client.received or b"\n\n" in client.received:
            self._reply(client)
        elif not piece or len(client.received) > MAX_REQUEST_BYTES:
            self._end(client)

    def _reply(self, client: _Client) -> None:
        method, target, *_ = [*client.received.split(b"\n", 1)[0].split(), b"", b""]
        try:
            status, line = self._response(method, target)
            # the socket's buffer is empty, so it takes the message whole
            with suppress(OSError):
                client.sock.send(_message(status, line, with_body=method != b"HEAD"))
                client.sock.shutdown(socket.SHUT_WR)
        finally:
            self._end(client)

    def _response(self, method: bytes, target: bytes) -> tuple[int, str]:
        if not target.startswith(b"/"):
            return 400, "no HTTP request"
        if method not in METHODS:
            return 405, "GET or HEAD"
        return self._respond(target.split(b"?", 1)[0].decode("latin-1")) or (
            404,
            "this port has /livez, /readyz and /healthz",
        )

    def _close_late(self) -> None:
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


def _open_reserve() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
