"""Channels between worker processes and their parent: each worker makes a socket pair and sends one end to the parent.

Workers inherit one datagram socket, the hand-over, and send descriptors on it. The parent puts questions on the
channels, and a thread of each worker answers.
"""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["WorkerChannel", "WorkerChannels", "send_channel"]


class WorkerChannel(Protocol):
    """The parent's end of one worker's channel. `sock` does not block."""

    sock: socket.socket

    @property
    def is_waiting(self) -> bool:
        """Whether a question has no answer yet."""

    def read(self) -> None:
        """Read the worker's answers. Raises OSError when the worker has ended."""


C = TypeVar("C", bound=WorkerChannel)


def send_channel(
    handover: socket.socket, kind: bytes, *, closes_at_fork: bool = False, most_s: float | None = None
) -> socket.socket:
    """Send the parent one end of a new channel, with its kind, and return the worker's end. Raises OSError.

    With `closes_at_fork` processes that the worker forks close its end: they may live on, and the channel must not.
    It waits until the parent has received the channels sent before, for `most_s` seconds at most if they are given.
    """
    ours, parents = socket.socketpair()
    if closes_at_fork:
        os.register_at_fork(after_in_child=ours.close)
    with parents:
        try:
            _send_descriptor(handover, kind, parents.fileno(), most_s)
        except BaseException:
            ours.close()
            raise
    return ours


def _send_descriptor(handover: socket.socket, kind: bytes, number: int, most_s: float | None) -> None:
    if most_s is None:
        socket.send_fds(handover, [kind], [number])
        return
    until_s = time.monotonic() + most_s
    while True:
        try:
            socket.send_fds(handover, [kind], [number], socket.MSG_DONTWAIT)
            return
        except BlockingIOError:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise
        poll = select.poll()
        poll.register(handover, select.POLLOUT)
        poll.poll(left_s * 1000)


class WorkerChannels(Generic[C]):
    """The parent's channels, numbered from 1. The number of an ended worker is used again.

    `handover` is the socket that workers inherit. `make` makes a channel of a socket. `blocking` is for `receive`.
    Not safe for threads.
    Ownership: `close` closes the hand-over and every channel.
    """

    def __init__(self, make: Callable[[socket.socket], C], *, blocking: bool) -> None:
        self._make = make
        self._receiver, self.handover = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        # of the socket, for recv_fds ignores its flags
        self._receiver.setblocking(blocking)
        self._by_number: dict[int, C] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def items(self) -> list[tuple[int, C]]:
        """Return each number with its channel, in order."""
        return sorted(self._by_number.items())

    def receive(self) -> tuple[bytes, list[socket.socket]]:
        """Return the next kind with its sockets; an empty kind after `interrupt`.

        Raises BlockingIOError if there is none yet and `blocking` is false.
        """
        kind, numbers, _, _ = socket.recv_fds(self._receiver, 16, 1)
        return kind, [socket.socket(fileno=number) for number in numbers]

    def add(self, sock: socket.socket) -> None:
        """Add a worker's channel, under the first free number."""
        sock.setblocking(False)
        for channel in [*self._by_number.values()]:
            self._call(channel, lambda each: each.read())
        free = next(number for number in range(1, len(self) + 2) if number not in self._by_number)
        self._by_number[free] = self._make(sock)

    def ask(self, put: Callable[[C], object], answer_s: float) -> None:
        """Put a question to each worker, and wait at most `answer_s` seconds for the answers.

        `put(channel)` returns false where no answer is to be waited for. Ended workers are removed.
        """
        until_s = time.monotonic() + answer_s
        asked = [channel for channel in [*self._by_number.values()] if self._call(channel, put)]
        while waiting := [each for each in asked if each.is_waiting and each in self._by_number.values()]:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return
            _wait(waiting, left_s)
            for channel in waiting:
                self._call(channel, lambda each: each.read())

    def _call(self, channel: C, call: Callable[[C], object]) -> object:
        """Call it, and return its result; remove the channel, and return False, if its worker has ended."""
        try:
            return call(channel)
        except OSError:
            self._by_number = {number: each for number, each in self._by_number.items() if each is not channel}
            channel.sock.close()
            return False

    def interrupt(self) -> None:
        """End a blocking `receive` in another thread."""
        with suppress(OSError):
            self._receiver.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the hand-over and the channels."""
        for sock in (self._receiver, self.handover, *(channel.sock for channel in self._by_number.values())):
            sock.close()
        self._by_number.clear()


def _wait(channels: Iterable[WorkerChannel], most_s: float) -> None:
    poll = select.poll()
    for channel in channels:
        poll.register(channel.sock, select.POLLIN)
    poll.poll(most_s * 1000)
