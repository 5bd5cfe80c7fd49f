"""The control socket of a supervisor: JSON lines from this user's commands, answered by one thread."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from penstock.runtime.socketfile import SocketFile, bind_file, remove_if_stale
from penstock.runtime.supervisor.rundir import control_sockets, make_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["VERSION", "ControlServer", "PendingAnswer", "listen_control", "peer_ids"]

VERSION = 1
MAX_LINE_BYTES = 64 * 1024
MOST_CLIENTS = 16
BACKLOG = 16
# the time in which a client sends its line, and takes some of its answer
PATIENCE_S = 5.0
JOIN_S = 5.0
ACCEPT_AGAIN_S = 0.05
PEER = struct.Struct("3i")


class PendingAnswer:
    """An answer that is given later, by `give`: meanwhile the thread answers other clients."""

    def __init__(self) -> None:
        self._answer: Mapping[str, object] | None = None
        self._wake: Callable[[], object] | None = None

    def give(self, answer: Mapping[str, object]) -> None:
        """Give the answer. Callable from any thread; the first call counts."""
        if self._answer is None:
            self._answer = answer
        wake = self._wake
        if wake is not None:
            wake()


class ControlClient:
    """One connection. It waits for a line, for its answer, or for its reader."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()
        self.unsent = b""
        self.pending: PendingAnswer | None = None
        self.until_s = time.monotonic() + PATIENCE_S

    @property
    def events(self) -> int:
        """The events to poll for. A client whose answer is pending is polled for its end only."""
        if self.unsent:
            return select.POLLOUT
        return 0 if self.pending is not None else select.POLLIN

    def renew(self) -> None:
        """Give the client its whole time again."""
        self.until_s = time.monotonic() + PATIENCE_S


class ControlServer:
    """A control socket over a listener that `listen_control` or another made.

    `answer(message)` is called in the server's thread with the object of one line. It returns the object of the answer
    or a PendingAnswer; an exception becomes an answer with `"ok": false`. Ownership: it keeps a thread, a pipe, the
    listener with its file, and its clients until `close`.
    """

    def __init__(
        self, answer: Callable[[Mapping[str, object]], Mapping[str, object] | PendingAnswer], listener: socket.socket
    ) -> None:
        self._answer = answer
        self._listener = listener
        # the file of another server with the same number is left alone
        self._file = SocketFile.of(self._listener)
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._clients: dict[int, ControlClient] = {}
        self._lock = threading.Lock()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="penstock-control", daemon=True)
        self._thread.start()

    @property
    def path(self) -> str:
        """The path of the socket's file."""
        return "" if self._file is None else self._file.path

    def close(self) -> None:
        """Close the socket and its clients, end the thread, and remove the file unless a later server has it."""
        with self._lock:
            if self._is_closing:
                return
            self._is_closing = True
            self._wake_locked()
        if threading.current_thread() is not self._thread:
            self._thread.join(JOIN_S)

    def _wake(self) -> None:
        with self._lock:
            self._wake_locked()

    def _wake_locked(self) -> None:
        # a full pipe wakes too; after the end it is closed
        with suppress(OSError):
            if self._writer >= 0:
                os.write(self._writer, b"\0")

    def _run(self) -> None:
        try:
            while not self._is_closing:
                self._turn()
        finally:
            self._release()

    def _release(self) -> None:
        if self._file is not None:
            self._file.remove()
        self._listener.close()
        for client in list(self._clients.values()):
            self._drop(client)
        with self._lock:
            reader, writer, self._reader, self._writer = self._reader, self._writer, -1, -1
        os.close(reader)
        os.close(writer)

    def _turn(self) -> None:
        """Wait for events and handle them. An error of one client ends that client."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        poll.register(self._listener, select.POLLIN)
        for client in self._clients.values():
            poll.register(client.sock, client.events)
        for fd, events in poll.poll(self._left_ms()):
            if fd == self._reader:
                with suppress(OSError):
                    os.read(self._reader, 4096)
            elif fd == self._listener.fileno():
                self._accept()
            else:
                self._guarded(self._clients.get(fd), events)
        self._send_pending()
        self._drop_late()

    def _left_ms(self) -> float | None:
        untils = [client.until_s for client in self._clients.values() if client.pending is None]
        return max(0.0, min(untils) - time.monotonic()) * 1000 + 1 if untils else None

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            # without descriptors the client stays in the queue: look again in a moment
            return time.sleep(ACCEPT_AGAIN_S)
        sock.setblocking(False)
        if peer_ids(sock)[1] not in (0, os.geteuid()):
            sock.close()
        elif len(self._clients) >= MOST_CLIENTS:
            with suppress(OSError), sock:
                sock.send(_line(_error(f"more than {MOST_CLIENTS} clients at once")))
        else:
            self._clients[sock.fileno()] = ControlClient(sock)

    def _guarded(self, client: ControlClient | None, events: int) -> None:
        if client is None:
            return
        try:
            self._serve(client, events)
        except OSError:
            self._drop(client)

    def _serve(self, client: ControlClient, events: int) -> None:
        if events & select.POLLOUT:
            self._send(client, client.unsent)
        elif events & select.POLLIN and client.pending is None:
            self._receive(client)
        elif events & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            self._drop(client)

    def _receive(self, client: ControlClient) -> None:
        data = client.sock.recv(MAX_LINE_BYTES)
        client.received += data
        if client.received.find(b"\n", 0, MAX_LINE_BYTES + 1) < 0 and len(client.received) > MAX_LINE_BYTES:
            # what follows is no message either
            with suppress(OSError):
                client.sock.send(_line(_error(f"a message has at most {MAX_LINE_BYTES} bytes")))
            self._drop(client)
        elif not data:
            self._drop(client)
        else:
            self._take_line(client)

    def _take_line(self, client: ControlClient) -> None:
        """Answer the next line; one that follows waits until its answer has been sent."""
        line, newline, rest = client.received.partition(b"\n")
        if not newline or client.unsent or client.pending is not None:
            return
        client.received = rest
        answered = self._answer_to(bytes(line))
        if isinstance(answered, PendingAnswer):
            client.pending = answered
            # in this order: an answer given meanwhile is found by the turn's end
            answered._wake = self._wake
        else:
            self._send(client, _line(answered))

    def _answer_to(self, line: bytes) -> Mapping[str, object] | PendingAnswer:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return _error("not a JSON line")
        reason = _unfit(message)
        if reason:
            return _error(reason)
        try:
            return self._answer(message)
        except Exception as error:
            return _error(f"{type(error).__name__}: {error}")

    def _send(self, client: ControlClient, data: bytes) -> None:
        client.unsent = data
        with suppress(BlockingIOError):
            sent = client.sock.send(data, socket.MSG_NOSIGNAL)
            client.unsent = data[sent:]
            client.renew()
        if not client.unsent:
            self._take_line(client)

    def _send_pending(self) -> None:
        for client in list(self._clients.values()):
            if client.pending is not None and client.pending._answer is not None:
                answered, client.pending = client.pending._answer, None
                try:
                    self._send(client, _line(answered))
                except OSError:
                    self._drop(client)

    def _drop_late(self) -> None:
        now_s = time.monotonic()
        for client in list(self._clients.values()):
            if client.pending is None and now_s >= client.until_s:
                self._drop(client)

    def _drop(self, client: ControlClient) -> None:
        self._clients.pop(client.sock.fileno(), None)
        client.sock.close()


def peer_ids(sock: socket.socket) -> tuple[int, int]:
    """Return the process and user numbers of the program that made or accepted the connection."""
    pid, user, _ = PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    return pid, user


def listen_control(pid: int) -> socket.socket:
    """Return the listener of the supervisor `pid`, in the user's runtime directory.

    Raises OSError, in one line, if the socket cannot be made.
    """
    # files of dead supervisors go
    control_sockets(os.environ)
    path = str(make_directory(os.environ) / f"{pid}.sock")
    if not remove_if_stale(path) and _is_own(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        bind_file(listener, path, 0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot make the control socket {path}: {error.strerror or error}") from None
    return listener


def _is_own(path: str) -> bool:
    """Return whether this process itself listens at the path: a supervisor that was replaced within its process."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.setblocking(False)
        probe.connect(path)
        return peer_ids(probe)[0] == os.getpid()
    return False


def _unfit(message: Any) -> str:
    """Return what is wrong with a message; an empty text if nothing is."""
    if not isinstance(message, dict):
        return "a message is a JSON object"
    version = message.get("version")
    if version != VERSION or isinstance(version, bool):
        return f"version {json.dumps(version)[:40]} is not known here, {VERSION} is"
    if not isinstance(message.get("command"), str):
        return "a message has a command"
    return ""


def _error(reason: str) -> dict[str, object]:
    return {"ok": False, "error": " ".join(reason.split())}


def _line(answer: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(dict(answer), default=str).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        return json.dumps(_error(f"the answer has no JSON text: {error}")).encode() + b"\n"
