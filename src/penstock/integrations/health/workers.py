"""One health port for several worker processes: the parent has the port, and asks each worker's own thread.

Every worker makes a pair of sockets and hands the parent one end, through a socket that all workers share. The parent
sends a question on each link; the worker's thread answers with its condition. A worker that does not answer holds the
GIL, or is stopped: that counts as blocked, since the question was asked. A link whose worker has ended fails, and goes.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import astuple, replace
from typing import TYPE_CHECKING

from penstock.integrations.health.port import HealthPort, listen
from penstock.integrations.health.vitals import Condition
from penstock.runtime.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.integrations.health.server import Judge, LoopCondition

__all__ = ["HealthReporter", "WorkersHealth"]

QUESTION = b"?"
# a Condition's four fields
ANSWER = struct.Struct("???d")
# a worker's thread answers within a few turns of the GIL
ANSWER_S = 0.1
# answers are as good for so long: a flood of requests asks the workers no more often
FRESH_S = 0.05


class HealthReporter:
    """In a worker: the thread that answers the parent. Ownership: the thread owns its end of the link."""

    def __init__(self, handover: socket.socket, condition: LoopCondition) -> None:
        self._handover, self._condition = handover, condition

    def start(self) -> None:
        """Give the parent a link, and answer on it until either process ends."""
        threading.Thread(target=self._run, name="penstock-health", daemon=True).start()

    def _run(self) -> None:
        link, parents = socket.socketpair()
        # a process that the application forks lives on after the worker: the link must end with the worker
        os.register_at_fork(after_in_child=link.close)
        with suppress(OSError), link:
            # here, where it may wait: the parent takes links when it is asked
            with parents:
                socket.send_fds(self._handover, [b"+"], [parents.fileno()])
            while self._answer(link):
                pass

    def _answer(self, link: socket.socket) -> bool:
        """Wait for a question, or until it is time for a beat. False: the parent has ended."""
        link.settimeout(self._condition.tick())
        try:
            if not link.recv(len(QUESTION)):
                return False
        except TimeoutError:
            return True
        condition = self._condition()
        link.sendall(ANSWER.pack(*astuple(condition)))
        return True


class _Link:
    """The parent's end of one worker's link."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        # when the question was asked that is not answered yet
        self.asked_s: float | None = None
        self.condition = Condition()

    def ask(self) -> None:
        """Ask, unless a question is open. Raises OSError when the worker has ended."""
        self.take()
        if self.asked_s is None:
            self.sock.send(QUESTION)
            self.asked_s = time.monotonic()

    def take(self) -> None:
        """Read the worker's answers. Raises OSError when the worker has ended."""
        with suppress(BlockingIOError):
            # so few bytes come as they were sent
            answer = self.sock.recv(ANSWER.size)
            if len(answer) != ANSWER.size:
                raise ConnectionResetError("the worker has ended")
            self.condition, self.asked_s = Condition(*ANSWER.unpack(answer)), None

    def told(self) -> Condition:
        """The worker's condition: as it was told, or blocked since it was asked."""
        if self.asked_s is None:
            return self.condition
        silent_s = time.monotonic() - self.asked_s
        return replace(self.condition, blocked_s=max(self.condition.blocked_s, silent_s))


class WorkersHealth:
    """In the parent: the port, and the links to the workers. `handover` is what workers inherit."""

    def __init__(self, port: int, host: str, judge: Judge) -> None:
        self._judge = judge
        self._given, self.handover = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._given.setblocking(False)
        self._links: list[_Link] = []
        self._asked_s = -FRESH_S
        listener = listen(host, port)
        self.host, self.port = listener.getsockname()[:2]
        self._server = HealthPort(listener, self._answer)

    def start(self) -> None:
        """Answer from now on."""
        self._server.start()

    def close(self) -> None:
        """Answer no more; the port is free afterwards."""
        self._server.close()
        for sock in (self._given, self.handover, *(link.sock for link in self._links)):
            sock.close()
        self._links.clear()

    def _answer(self, path: str) -> tuple[int, str] | None:
        if Deadline.has_begun():
            return self._judge.answer(path, [Condition(is_started=True, is_ending=True)])
        now_s = time.monotonic()
        if now_s - self._asked_s >= FRESH_S:
            self._asked_s = now_s
            self._take_links()
            self._ask()
        return self._judge.answer(path, [link.told() for link in self._links])

    def _take_links(self) -> None:
        with suppress(BlockingIOError):
            while True:
                _, numbers, _, _ = socket.recv_fds(self._given, 16, 1)
                for number in numbers:
                    sock = socket.socket(fileno=number)
                    sock.setblocking(False)
                    self._links.append(_Link(sock))

    def _ask(self) -> None:
        began_s = time.monotonic()
        self._each(self._links, _Link.ask)
        # a worker that is silent since an earlier question is not waited for
        while asked := [link for link in self._links if link.asked_s is not None and link.asked_s >= began_s]:
            left_s = began_s + ANSWER_S - time.monotonic()
            if left_s <= 0:
                return
            poll = select.poll()
            for link in asked:
                poll.register(link.sock, select.POLLIN)
            poll.poll(left_s * 1000)
            self._each(asked, _Link.take)

    def _each(self, links: list[_Link], call: Callable[[_Link], None]) -> None:
        """Call it for each link, and drop the links whose worker has ended."""
        for link in list(links):
            try:
                call(link)
            except OSError:
                self._links.remove(link)
                link.sock.close()
