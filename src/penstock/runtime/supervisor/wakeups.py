"""The wake-ups of the supervisor's loop: signals, and calls from other threads."""

from __future__ import annotations

import signal
import socket
from collections import deque
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Wakeups"]

T = TypeVar("T")
# bytes in the socket, which takes some 270 one by one
NEARLY_FULL = 100


class Wakeups:
    """A socket that is readable when a signal has arrived or a thread has posted a call.

    Ownership: the sockets are closed by `close`.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        # the signals since the last `take`, of which some may have found no room in the socket
        self._seen: set[int] = set()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._reader.fileno()

    @contextmanager
    def signals(self, numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
        """Receive these signals in the main thread for the block. Afterwards they are held: the process ends."""
        former_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        try:
            yield
        finally:
            signal.set_wakeup_fd(former_fd)
            # the interpreter's own end restores the default actions: one more signal would change the exit code
            signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def _note(self, signum: int, frame: object) -> None:
        """Note a signal. A handler, not SIG_IGN: children do not inherit it."""
        self._seen.add(signum)

    def post(self, call: Callable[[], T]) -> Future[T]:
        """Have the loop's thread make a call; return the future of its result. Callable from any thread."""
        future: Future[T] = Future()
        self._calls.append((call, future))
        self.wake()
        return future

    def wake(self) -> None:
        """Wake the loop."""
        with suppress(BlockingIOError):
            # zero is no signal's number
            self._writer.send(b"\0")

    def take(self) -> list[int]:
        """Make the posted calls, and return the numbers of the signals that have arrived."""
        arrived = bytearray()
        with suppress(BlockingIOError):
            while part := self._reader.recv(4096):
                arrived += part
        while self._calls:
            call, future = self._calls.popleft()
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)
        seen, self._seen = self._seen, set()
        lost = seen.difference(arrived) if len(arrived) >= NEARLY_FULL else ()
        return [*filter(None, arrived), *lost]

    def close(self) -> None:
        """Close the sockets; calls that nobody has made are cancelled."""
        while self._calls:
            self._calls.popleft()[1].cancel()
        for sock in (self._reader, self._writer):
            with suppress(OSError):
                sock.close()
