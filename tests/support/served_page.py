"""A page over fake processes on a free port of loopback, and a client that sends bytes as they are."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from penstock.monitor.history import History
from penstock.monitor.page.access import PageAccess
from penstock.monitor.page.points import PagePoint, merged_point, point_of
from penstock.monitor.page.routes import PageRoutes
from penstock.monitor.page.sampler import MERGED, PageSampler
from penstock.monitor.page.server import PageServer
from tests.support.monitored import FakeProcess, FakeSource
from tests.support.waiting import wait_until

__all__ = ["Answered", "ServedPage", "exchange", "served"]

PATIENCE_S = 20.0


@dataclass
class Answered:
    """A response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)


@dataclass
class ServedPage:
    """A page that answers."""

    port: int
    source: FakeSource
    sampler: PageSampler
    access: PageAccess
    server: PageServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def send(self, path: str, method: str = "GET", *, body: bytes = b"", **headers: str | None) -> Answered:
        """Send a request with these header fields, `_` for `-`; None leaves out a field that is there otherwise."""
        fields: dict[str, str | None] = {"host": f"127.0.0.1:{self.port}"}
        if body or method == "POST":
            fields["content-length"] = str(len(body))
            fields["content-type"] = "application/json"
            fields["origin"] = f"http://127.0.0.1:{self.port}"
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [
            f"{method} {path} HTTP/1.1",
            *(f"{name}: {value}" for name, value in fields.items() if value is not None),
        ]
        return parsed(exchange(self.port, "\r\n".join(lines).encode() + b"\r\n\r\n" + body))


def exchange(port: int, data: bytes) -> bytes:
    """Send bytes, and return all that comes until the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as sock:
        sock.sendall(data)
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    return received


def parsed(received: bytes) -> Answered:
    head, _, body = received.partition(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")
    found = re.fullmatch(r"HTTP/1\.1 (\d{3}) .+", start)
    assert found, received[:200]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert "content-length" not in headers or int(headers["content-length"]) == len(body)
    return Answered(int(found[1]), headers, body)


def past_points(process: FakeProcess, seconds: int) -> list[PagePoint]:
    """Return the points that a process would have had in the last seconds."""
    former = FakeProcess(process.pid, process.number, behind_s=seconds + 1)
    history = History()
    for behind_s in range(seconds, 0, -1):
        former.behind_s = behind_s
        history.add(former.answer("snapshot", {}))
    return [point_of(each) for each in history.series()[1:]]


def add_past(sampler: PageSampler, source: FakeSource, past_s: int) -> None:
    pasts = {pid: past_points(process, past_s) for pid, process in source.processes.items()}
    merged = [merged_point(points) for points in zip(*pasts.values(), strict=True)]
    for scope, points in [*pasts.items(), (MERGED, [point for point in merged if point is not None])]:
        series = sampler.of(scope)
        assert series is not None
        series.points.extendleft(reversed(points))


@contextmanager
def served(*processes: FakeProcess, token: str | None = None, past_s: int = 0, **options: Any) -> Iterator[ServedPage]:
    """Have a page over these processes, which has their first samples, and a history of `past_s` seconds."""
    source = FakeSource(*(processes or (FakeProcess(4242),)))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    access = PageAccess("127.0.0.1", port, token)
    sampler = PageSampler(source)
    sampler.start()
    server = PageServer(listener, PageRoutes(sampler, access).handle, access.check_user, **options)
    server.start()
    try:
        wait_until(lambda: all(sampler.history(pid) or source.processes[pid].is_silent for pid in source.processes))
        if past_s:
            add_past(sampler, source, past_s)
        yield ServedPage(port, source, sampler, access, server)
    finally:
        sampler.close()
        server.close()
