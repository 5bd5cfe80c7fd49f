"""An open-loop load generator: requests begin on time, whether earlier ones are answered or not.

`python examples/tour/openload.py PORT PATH RATE SECONDS` prints JSON: how many requests were due, answered in time
(`good`), refused (`shed`) and neither (`lost`), and percentiles of the time from when a request was due to its answer.
A client waits for half a second. It uses the selector without an event loop, so that it favours none.
"""

import json
import selectors
import socket
import sys
from collections import deque
from time import perf_counter

PATIENCE_S = 0.5
MOST_CONNECTIONS = 500
REQUEST = "GET {} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


class Connection:
    """A keep-alive connection with at most one request in flight."""

    def __init__(self, port: int) -> None:
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect_ex(("127.0.0.1", port))
        self.received = b""
        self.due_s: float | None = None


class Load:
    """The load of one run, and the counts of its answers."""

    def __init__(self, port: int, path: str) -> None:
        self.port, self.request = port, REQUEST.format(path).encode()
        self.selector = selectors.DefaultSelector()
        self.idle: list[Connection] = []
        self.busy: deque[Connection] = deque()
        self.connections = 0
        self.good_s: list[float] = []
        self.due = self.shed = self.lost = 0

    def run(self, rate: float, seconds: float) -> dict[str, float]:
        begin_s = perf_counter()
        end_s = begin_s + seconds
        while (now_s := perf_counter()) < end_s or (self._in_flight() and now_s < end_s + PATIENCE_S):
            while self.due < rate * min(now_s - begin_s, seconds):
                self._begin(begin_s + self.due / rate)
            self._give_up(now_s)
            wait_s = begin_s + self.due / rate - perf_counter() if now_s < end_s else 0.01
            self._receive(min(max(wait_s, 0.0), 0.05))
        self._give_up(float("inf"))
        return self._result(seconds)

    def _in_flight(self) -> bool:
        return any(each.due_s is not None for each in self.busy)

    def _begin(self, due_s: float) -> None:
        self.due += 1
        if not self.idle and self.connections >= MOST_CONNECTIONS:
            self.lost += 1
            return
        connection = self.idle.pop() if self.idle else self._connect()
        connection.due_s = due_s
        self.busy.append(connection)
        try:
            connection.sock.send(self.request)
        except BlockingIOError:
            self.selector.modify(connection.sock, selectors.EVENT_WRITE, connection)
        except OSError:
            self._lose(connection)

    def _connect(self) -> Connection:
        connection = Connection(self.port)
        self.selector.register(connection.sock, selectors.EVENT_READ, connection)
        self.connections += 1
        return connection

    def _receive(self, wait_s: float) -> None:
        for key, mask in self.selector.select(wait_s):
            connection: Connection = key.data
            try:
                if mask & selectors.EVENT_WRITE:
                    connection.sock.send(self.request)
                    self.selector.modify(connection.sock, selectors.EVENT_READ, connection)
                    continue
                data = connection.sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._lose(connection)
                continue
            connection.received += data
            self._take_answer(connection)

    def _take_answer(self, connection: Connection) -> None:
        head, blank, body = connection.received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if not blank or len(body) < int(length or 0):
            return
        due_s, connection.due_s, connection.received = connection.due_s, None, b""
        if due_s is not None:
            self._count(head[9:12] == b"200", perf_counter() - due_s)
        if b"connection: close" in head.lower():
            self._close(connection)
        else:
            self.idle.append(connection)

    def _count(self, is_good: bool, took_s: float) -> None:
        if not is_good:
            self.shed += 1
        elif took_s <= PATIENCE_S:
            self.good_s.append(took_s)
        else:
            self.lost += 1

    def _give_up(self, now_s: float) -> None:
        """Close the connections whose clients have waited for too long."""
        while self.busy and (self.busy[0].due_s is None or now_s - self.busy[0].due_s > PATIENCE_S):
            connection = self.busy.popleft()
            if connection.due_s is not None and now_s - connection.due_s > PATIENCE_S:
                self._lose(connection)

    def _lose(self, connection: Connection) -> None:
        if connection.due_s is not None:
            self.lost += 1
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        connection.due_s = None
        if connection in self.idle:
            self.idle.remove(connection)
        if connection.sock.fileno() >= 0:
            self.selector.unregister(connection.sock)
            connection.sock.close()
            self.connections -= 1

    def _result(self, seconds: float) -> dict[str, float]:
        ordered = sorted(self.good_s) or [0.0]
        percentile = {share: ordered[int(len(ordered) * share / 100)] * 1e3 for share in (50, 99)}
        counts = {"due": self.due, "good": len(self.good_s), "shed": self.shed, "lost": self.lost}
        return {**counts, "goodput": len(self.good_s) / seconds, "p50_ms": percentile[50], "p99_ms": percentile[99]}


if __name__ == "__main__":
    port, path, rate, seconds = sys.argv[1:]
    print(json.dumps(Load(int(port), path).run(float(rate), float(seconds))))
