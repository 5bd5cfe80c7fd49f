"""The page beside real services: it moves while they are blocked, ends with them, and never ends them."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from penstock.loop import NATIVE
from tests.e2e.conftest import environment
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytest.importorskip("uvicorn")

PATIENCE_S = 60.0
APPLICATION = """
import asyncio, re, time
kept = []
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            kept.append(asyncio.create_task(asyncio.sleep(3600), name="sleeper"))
            await send({"type": message["type"] + ".complete"})
            if message["type"].endswith("shutdown"):
                return
    seconds = float(scope["query_string"] or 0)
    if scope["path"] == "/sleep":
        time.sleep(seconds)
    if scope["path"] == "/gil":
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            re.match(r"(a+)+$", "a" * 25 + "b")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""
SHOWN = re.compile(r"penstock monitor: process (\d+) is shown at (http://\S+)/(?:#token=(\S+))?")


class Program:
    """A program with its output, and the page that it announces."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        runtime = folder / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        environ = {**environment(), "PENSTOCK_RUNTIME_DIR": str(runtime), **variables}
        self.path = folder / f"{time.monotonic_ns()}.log"
        with self.path.open("wb") as log:
            command = [sys.executable, "-m", "penstock", *arguments]
            self.process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return self.path.read_text()

    def logs(self, text: str) -> None:
        wait_until(lambda: text in self.log or self.process.poll() is not None, PATIENCE_S, told=lambda: self.log)
        assert text in self.log, self.log

    def page(self) -> tuple[int, str, str | None]:
        """Return the process that the page shows, its address and its token."""
        self.logs("is shown at")
        found = SHOWN.search(self.log)
        assert found, self.log
        return int(found[1]), found[2], found[3]

    def end(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def program(folder: Path, *arguments: str, **variables: str) -> Iterator[Program]:
    (folder / "shop.py").write_text(APPLICATION)
    started = Program(folder, *arguments, **variables)
    try:
        yield started
    finally:
        started.end()


def states(url: str, token: str | None = None) -> Iterator[Any]:
    """Yield the states of a page."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{url}/api/events", headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as stream:
        name = b""
        for line in stream:
            if line.startswith(b"event: "):
                name = line
            elif line.startswith(b"data: ") and b"state" in name:
                yield json.loads(line[6:])


def state(url: str, holds: Callable[[Any], object], token: str | None = None) -> Any:
    """Return the first state for which something holds."""
    end_s = time.monotonic() + PATIENCE_S
    for found in states(url, token):
        if holds(found):
            return found
        assert time.monotonic() < end_s, found
    raise AssertionError("the stream has ended")


def ask(port: int, path: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    return sock


def answered(sock: socket.socket) -> bytes:
    with sock:
        return sock.recv(1000)


def page_pid(of: int) -> int | None:
    """Return the page's process of a service."""
    found = subprocess.run(["pgrep", "-f", f"penstock.monitor.page {of} "], capture_output=True, text=True, check=False)
    return int(found.stdout.split()[0]) if found.stdout.split() else None


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def running(found: Any) -> bool:
    return bool(found["processes"]) and all(row["state"] == "running" for row in found["processes"])


def running_pids(found: Any) -> set[int]:
    return {row["pid"] for row in found["processes"] if row["state"] == "running"}


def test_the_page_goes_on_while_the_loop_is_blocked(tmp_path: Path) -> None:
    port = free_port()
    with program(tmp_path, "serve", "shop:app", "--port", str(port), "--monitor", "127.0.0.1:0") as service:
        _, url, _ = service.page()
        state(url, lambda found: running(found) and found["point"] and found["point"]["live"])
        blocked = ask(port, "/sleep?5")
        if NATIVE:
            found = state(url, lambda found: found["point"] and (found["point"]["blocked_s"] or 0) > 1)
            assert found["point"]["p99_s"] > 1
            assert any("shop.py" in row["text"] for row in found["wrong"]), found["wrong"]
        first, second = islice((found["point"]["at_s"] for found in states(url) if found["point"]), 2)
        assert first < second
        assert not select.select([blocked], [], [], 0)[0]
        assert b"200 OK" in answered(blocked)
        state(url, lambda found: found["point"] and found["point"]["blocked_s"] is None)


@pytest.mark.skipif(not NATIVE, reason="without the native core a held GIL cannot be seen")
def test_the_page_goes_on_while_the_gil_is_held(tmp_path: Path) -> None:
    port = free_port()
    with program(tmp_path, "serve", "shop:app", "--port", str(port), "--monitor", "127.0.0.1:0") as service:
        _, url, _ = service.page()
        state(url, lambda found: running(found) and found["point"])
        blocked = ask(port, "/gil?4")
        found = state(url, lambda found: found["notices"] and found["wrong"])
        assert "the GIL is held" in found["notices"][0]
        assert "holds the GIL" in found["wrong"][0]["text"]
        assert found["details"]["process"]["pid"] == service.process.pid
        assert b"200 OK" in answered(blocked)
        state(url, running)


def test_a_supervisor_has_one_page_for_all_workers_which_outlives_their_reload(tmp_path: Path) -> None:
    port = free_port()
    arguments = ("serve", "shop:app", "--port", str(port), "--workers", "2", "--monitor", "127.0.0.1:0")
    with program(tmp_path, *arguments) as service:
        pid, url, _ = service.page()
        assert pid == service.process.pid
        found = state(url, lambda found: len(found["processes"]) == 2 and running(found))
        before = {row["pid"] for row in found["processes"]}
        assert len({row["number"] for row in found["processes"]}) == 2
        service.process.send_signal(signal.SIGHUP)
        state(
            url,
            lambda found: len({row["pid"] for row in found["processes"] if row["state"] == "running"} - before) == 2,
        )
        assert service.log.count("is shown at") == 1


def test_the_service_goes_on_when_its_page_is_killed(tmp_path: Path) -> None:
    port = free_port()
    with program(tmp_path, "serve", "shop:app", "--port", str(port), "--monitor", "127.0.0.1:0") as service:
        service.page()
        page = page_pid(service.process.pid)
        assert page is not None
        os.kill(page, signal.SIGKILL)
        service.logs("the monitor's page has ended with code -9; the service continues without it")
        assert b"200 OK" in answered(ask(port, "/"))


def test_an_address_that_cannot_be_had_is_one_line_and_the_service_goes_on(tmp_path: Path) -> None:
    port = free_port()
    with program(tmp_path, "serve", "shop:app", "--port", str(port), "--monitor", "192.0.2.7:8700") as service:
        service.logs("penstock monitor: no page at 192.0.2.7:8700: Cannot assign requested address")
        service.logs("the service continues without it")
        assert b"200 OK" in answered(ask(port, "/"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_the_page_ends_with_its_service(tmp_path: Path, signum: int) -> None:
    with program(tmp_path, "serve", "shop:app", "--port", str(free_port()), "--monitor", "127.0.0.1:0") as service:
        service.page()
        page = page_pid(service.process.pid)
        assert page is not None
        service.process.send_signal(signum)
        service.process.wait(PATIENCE_S)
        wait_until(lambda: is_gone(page), PATIENCE_S)
        assert "continues without it" not in service.log


def test_beyond_loopback_a_token_is_made_and_printed_once(tmp_path: Path) -> None:
    with program(tmp_path, "serve", "shop:app", "--port", str(free_port()), "--monitor", "0.0.0.0:0") as service:
        _, url, token = service.page()
        assert token is not None and len(token) >= 24
        assert service.log.count(token) == 1
        local = f"http://127.0.0.1:{url.rpartition(':')[2]}"
        with pytest.raises(urllib.error.HTTPError) as refused:
            next(states(local))
        assert refused.value.code == 401
        refused.value.close()
        state(local, running, token)


def test_a_token_of_the_config_is_asked_for_and_never_printed(tmp_path: Path) -> None:
    token = "a-secret-of-24-characters"
    arguments = ("serve", "shop:app", "--port", str(free_port()), "--monitor", "127.0.0.1:0")
    with program(tmp_path, *arguments, PENSTOCK_MONITOR_PAGE_TOKEN=token) as service:
        _, url, printed = service.page()
        assert printed is None
        state(url, running, token)
        page = page_pid(service.process.pid)
        assert token not in Path(f"/proc/{page}/cmdline").read_text()
        assert token not in service.log


def test_a_running_process_is_shown_by_the_command(tmp_path: Path) -> None:
    port = free_port()
    with program(tmp_path, "serve", "shop:app", "--port", str(port)) as service:
        service.logs("startup complete")
        wait_until(lambda: list((tmp_path / "run").glob("*-attach.sock")), PATIENCE_S)
        with program(tmp_path, "monitor", str(service.process.pid)) as monitor:
            pid, url, _ = monitor.page()
            assert pid == service.process.pid
            state(url, running)
            service.end()
            found = state(url, lambda found: found["ended"])
            assert "has ended" in found["notices"][0]


def test_the_command_prints_its_address_as_json(tmp_path: Path) -> None:
    with program(tmp_path, "serve", "shop:app", "--port", str(free_port())) as service:
        wait_until(lambda: list((tmp_path / "run").glob("*-attach.sock")), PATIENCE_S)
        with program(tmp_path, "monitor", "--json", "--bind", "0.0.0.0:0") as monitor:
            monitor.logs("}")
            found = json.loads(monitor.log)
            assert found["pid"] == service.process.pid
            state(f"http://127.0.0.1:{found['url'].rpartition(':')[2].rstrip('/')}", running, found["token"])


def test_a_script_has_a_page_as_well(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import asyncio\nasyncio.run(asyncio.sleep(60))\n")
    with program(tmp_path, "run", "--monitor", "127.0.0.1:0", "script.py") as service:
        _, url, _ = service.page()
        found = state(url, running)
        assert found["processes"][0]["name"] == "script.py"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("monitor", "4194303"), "process 4194303 is no penstock process of this user"),
        (("monitor",), "no penstock process of this user runs"),
        (("monitor", "--bind", "8700"), "'8700' is not HOST:PORT"),
        (("serve", "shop:app", "--monitor", "nonsense"), "'nonsense' is not HOST:PORT"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    with program(tmp_path, *arguments) as monitor:
        assert monitor.process.wait(PATIENCE_S) == 2
        assert text in monitor.log
        assert monitor.log.count("\n") == 1
