"""Worker processes of `penstock serve`: health, recycling, reloads, commands, an upgrade, the end of the parent."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE_S, Command, answers, attempt, environment, get, wait_for
from tests.support.waiting import wait_until

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the supervisor is for Linux")

APP = """
import asyncio, ctypes, os, time
VERSION = "one"
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    path = scope["path"]
    if path == "/hang":
        time.sleep(600)
    if path.startswith("/gil"):
        # C code that holds the GIL; without a time, for ever: the second lock of a mutex waits for itself
        mutex = ctypes.create_string_buffer(64)
        if path[4:]:
            ctypes.PyDLL(None).usleep(int(float(path[4:]) * 1e6))
        else:
            ctypes.PyDLL(None).pthread_mutex_lock(mutex), ctypes.PyDLL(None).pthread_mutex_lock(mutex)
    if path == "/crash":
        os.abort()
    body = f"{os.getpid()} {VERSION} {os.getppid()}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


class Served:
    """A server with workers, its address, and what it has said."""

    def __init__(self, command: Command, port: int, *options: str, text: str = APP, **extra: str) -> None:
        command.write("shop.py", text)
        self.command, self.address = command, ("127.0.0.1", port)
        self.extra = {"PENSTOCK_RUNTIME_DIR": str(command.folder / "run"), **extra}
        self.log = command.folder / "log"
        arguments = [sys.executable, "-m", "penstock", "serve", "shop:app", "--no-access-log"]
        arguments += [] if "--bind" in options else ["--port", str(port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*arguments, *options],
                cwd=command.folder,
                env=environment() | self.extra,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                text=True,
            )
        command.started.append(self.process)

    def ready(self) -> "Served":
        wait_for(lambda: answers(self.address), self.process)
        return self

    def body(self, path: str = "/") -> list[str]:
        return get(self.address, path).partition(b"\r\n\r\n")[2].decode().split()

    def says(self, text: str) -> bool:
        return text in self.log.read_text()

    def wait_for_line(self, text: str) -> str:
        wait_for(lambda: self.says(text), self.process)
        return next(line for line in self.log.read_text().splitlines() if text in line)

    def ask(self, path: str) -> socket.socket:
        """Send a request, and return its connection without an answer."""
        sock = self.command.stack.enter_context(socket.create_connection(self.address, timeout=PATIENCE_S))
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        return sock

    def told(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of penstock, for this supervisor."""
        return self.command(*arguments, **self.extra)

    def rows(self) -> list[dict[str, object]]:
        result = self.told("workers", "--json", str(self.process.pid))
        assert result.returncode == 0, result.stderr
        return list(json.loads(result.stdout)["workers"])

    def pids(self) -> list[int]:
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def end(self, signum: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        return self.process.wait(PATIENCE_S)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_hang_is_found_within_two_seconds_of_its_bound_and_its_stack_is_logged(
    penstock: Command, free_port: int
) -> None:
    served = Served(penstock, free_port, "--workers", "2", "--hang-timeout", "1").ready()
    served.ask("/hang")
    line = served.wait_for_line("is killed: its loop has been blocked for")
    lasted_s = float(re.findall(r"for ([0-9.]+) s", line)[0])
    assert 1.0 <= lasted_s < 3.0
    served.wait_for_line(f'File "{penstock.folder}/shop.py", line 9 in app')
    wait_for(lambda: len(served.rows()) == 2 and {row["state"] for row in served.rows()} == {"serving"}, served.process)
    assert served.end() == 128 + signal.SIGTERM


@pytest.mark.parametrize("hangs", [False, True])
def test_c_code_that_holds_the_gil_is_killed_beyond_the_bound_only(
    penstock: Command, free_port: int, hangs: bool
) -> None:
    served = Served(penstock, free_port, "--workers", "1", "--hang-timeout", "2").ready()
    pid = served.body()[0]
    if hangs:
        served.ask("/gil")
        served.wait_for_line("is killed: its loop has been blocked for")
        served.wait_for_line("in app")
        wait_for(lambda: served.body()[0] != pid, served.process)
    else:
        assert served.body("/gil1.2")[0] == pid
        assert served.body("/gil1.2")[0] == pid
        assert served.body()[0] == pid and not served.says("is killed")


def test_a_start_longer_than_the_hang_bound_is_left_alone(penstock: Command, free_port: int) -> None:
    slow = "import time; time.sleep(1.5)\nimport ctypes; ctypes.PyDLL(None).usleep(1_500_000)\n" + APP
    served = Served(penstock, free_port, "--workers", "1", "--hang-timeout", "0.5", text=slow).ready()
    assert not served.says("is killed")


def test_a_stopped_worker_is_found_too(penstock: Command, free_port: int) -> None:
    served = Served(penstock, free_port, "--workers", "1", "--hang-timeout", "1").ready()
    pid = int(served.body()[0])
    os.kill(pid, signal.SIGSTOP)
    served.wait_for_line("is killed: its loop has been blocked for")
    wait_for(lambda: attempt(served.address) != b"", served.process)


@pytest.mark.parametrize("preload", ["server", "app"])
def test_preloaded_workers_are_children_of_the_supervisor(penstock: Command, free_port: int, preload: str) -> None:
    served = Served(penstock, free_port, "--workers", "2", "--preload", preload).ready()
    assert int(served.body()[2]) == served.process.pid
    served.process.send_signal(signal.SIGHUP)
    served.wait_for_line("generation 2 serves")
    assert served.end() == 128 + signal.SIGTERM


def test_a_worker_is_replaced_after_its_requests_and_none_is_lost(penstock: Command, free_port: int) -> None:
    options = ("--workers", "1", "--max-requests", "20", "--max-requests-jitter", "5")
    served = Served(penstock, free_port, *options).ready()
    first = served.body()[0]
    wait_for(lambda: served.body()[0] != first, served.process)
    found = re.findall(r"is replaced: it has served (\d+) requests", served.log.read_text())
    assert int(found[0]) >= 20


def test_a_reload_serves_the_new_code_and_a_broken_one_is_rolled_back(penstock: Command, free_port: int) -> None:
    served = Served(penstock, free_port, "--workers", "2").ready()
    served.wait_for_line("worker 2")
    penstock.write("shop.py", APP.replace('"one"', '"two"'))
    result = served.told("reload", str(served.process.pid))
    assert (result.returncode, result.stdout) == (0, f"supervisor {served.process.pid}: generation 2 serves\n")
    assert served.body()[1] == "two"
    penstock.write("shop.py", "raise RuntimeError('no\\n database')\n" + APP)
    result = served.told("reload", str(served.process.pid))
    assert result.returncode == 1 and "RuntimeError: no database" in result.stderr and result.stderr.count("\n") == 1
    assert served.body()[1] == "two"
    penstock.write("penstock.toml", "[loop]\nspin_us = 'many'\n")
    result = served.told("reload", str(served.process.pid))
    assert result.returncode == 1 and "loop.spin_us" in result.stderr
    assert served.body()[1] == "two"
    assert served.end() == 128 + signal.SIGTERM


def test_the_reloader_keeps_the_old_code_until_the_new_one_starts(penstock: Command, free_port: int) -> None:
    pytest.importorskip("watchfiles")
    served = Served(penstock, free_port, "--reload").ready()
    penstock.write("shop.py", "raise RuntimeError('half written')\n" + APP)
    served.wait_for_line("RuntimeError: half written")
    served.wait_for_line('shop.py", line 1')
    assert served.body()[1] == "one"
    penstock.write("shop.py", APP.replace('"one"', '"two"'))
    wait_for(lambda: served.body()[1] == "two", served.process)
    assert served.end() == 128 + signal.SIGTERM


def test_commands_show_and_change_the_workers(penstock: Command, free_port: int) -> None:
    served = Served(penstock, free_port, "--workers", "1").ready()
    pid = str(served.process.pid)
    assert served.told("scale", "3", pid).returncode == 0
    wait_for(lambda: [row["state"] for row in served.rows()] == ["serving"] * 3, served.process)
    table = served.told("workers", pid).stdout
    assert "generation 1" in table and "MiB" in table
    refused = served.told("scale", "100000", pid)
    assert refused.returncode != 0 and refused.stderr.count("\n") == 1
    assert served.told("stop", pid).returncode == 0
    assert served.process.wait(PATIENCE_S) == 0
    assert list(Path(served.extra["PENSTOCK_RUNTIME_DIR"]).glob("*.sock")) == []


def test_a_new_program_takes_the_listener_and_the_old_one_ends(penstock: Command, free_port: int) -> None:
    served = Served(penstock, free_port, "--workers", "1", "--health-port", "0").ready()
    penstock.write("shop.py", APP.replace('"one"', '"two"'))
    served.process.send_signal(signal.SIGUSR2)
    new = int(served.wait_for_line("a new program starts, pid").split()[-1])
    try:
        # each request is answered, by the old one or by the new one
        wait_for_end = time.monotonic() + PATIENCE_S
        while served.process.poll() is None:
            assert time.monotonic() < wait_for_end
            assert served.body()[1] in ("one", "two")
        assert served.process.returncode == 0
        assert served.body()[1] == "two"
    finally:
        os.kill(new, signal.SIGTERM)
    wait_for_gone([new])


def test_a_new_program_that_cannot_start_leaves_the_old_one_at_work(penstock: Command, free_port: int) -> None:
    served = Served(penstock, free_port, "--workers", "1").ready()
    penstock.write("shop.py", "raise RuntimeError('no database')\n")
    served.process.send_signal(signal.SIGUSR2)
    served.wait_for_line("has not started; this one goes on")
    assert served.body()[1] == "one"
    assert served.end() == 128 + signal.SIGTERM


def wait_for_gone(pids: list[int]) -> float:
    began_s = time.monotonic()
    while not all(map(is_gone, pids)):
        assert time.monotonic() - began_s < PATIENCE_S, pids
        time.sleep(0.01)
    return time.monotonic() - began_s


@pytest.mark.parametrize("path", ["/", "/hang", "/gil"])
def test_no_worker_outlives_its_killed_parent(penstock: Command, free_port: int, path: str) -> None:
    served = Served(penstock, free_port, "--workers", "2").ready()
    served.ask(path)
    pids = served.pids()
    served.process.kill()
    served.process.wait()
    # 2 s are the claim; a busy machine is given more
    assert wait_for_gone(pids) < 10.0
    # the descriptors go with the last thread, a moment after the first one
    wait_until(lambda: can_be_bound(served.address), PATIENCE_S)


def can_be_bound(address: tuple[str, int]) -> bool:
    try:
        socket.create_server(address).close()
    except OSError:
        return False
    return True


def test_a_supervisor_as_process_1_reaps_strangers(penstock: Command, free_port: int) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-pf", "--mount-proc", "true"], capture_output=True).returncode:
        pytest.skip("needs to make a namespace of processes")
    orphan = "import os\nif os.fork() == 0:\n    if os.fork() == 0:\n        os._exit(0)\n    os._exit(0)\n"
    penstock.write("shop.py", orphan + APP)
    log = penstock.folder / "log"
    line = [unshare, "-pf", "--mount-proc", sys.executable, "-m", "penstock", "serve", "shop:app"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*line, "--port", str(free_port), "--workers", "2"],
            cwd=penstock.folder,
            env=environment() | {"PENSTOCK_RUNTIME_DIR": str(penstock.folder / "run")},
            stdout=out,
            stderr=out,
            start_new_session=True,
            text=True,
        )
    penstock.started.append(process)
    wait_for(lambda: answers(("127.0.0.1", free_port)), process)
    [first] = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    wait_for(lambda: not any(map(is_zombie, children_of(first))), process)
    os.kill(first, signal.SIGTERM)
    process.wait(PATIENCE_S)
    assert "Traceback" not in log.read_text()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and is_gone(pid)


def test_readiness_is_false_for_the_drain_delay_while_requests_are_answered(penstock: Command, free_port: int) -> None:
    options = ("--workers", "1", "--health-port", "0", "--drain-delay", "600")
    served = Served(penstock, free_port, *options).ready()
    health = int(re.findall(r"health checks on http://127.0.0.1:(\d+)", served.log.read_text())[0])
    assert get(("127.0.0.1", health), "/readyz").startswith(b"HTTP/1.1 200")
    served.process.send_signal(signal.SIGTERM)
    wait_for(lambda: get(("127.0.0.1", health), "/readyz").startswith(b"HTTP/1.1 503"), served.process)
    assert served.body()[1] == "one"
    served.process.send_signal(signal.SIGQUIT)
    assert served.process.wait(PATIENCE_S) == 128 + signal.SIGTERM


def test_crashes_without_end_end_the_server_with_one_line(penstock: Command, free_port: int) -> None:
    served = Served(penstock, free_port, "--workers", "1", "--max-restarts", "2").ready()
    while served.process.poll() is None:
        if attempt(served.address):
            served.ask("/crash").recv(1)
    assert served.process.returncode == 3
    assert served.says("more than 2 restarts of workers in five minutes: the server ends")


def test_bad_options_of_workers_are_one_line(penstock: Command) -> None:
    penstock.write("shop.py", APP)
    penstock.refuses("serve", "shop:app", "--workers", "few", code=2, says="'few' is not a count")
    penstock.refuses("serve", "shop:app", "--max-age", "10", code=2, says="--max-age needs --workers")
    penstock.refuses("serve", "shop:app", "--preload", "app", code=2, says="--preload needs --workers")
    penstock.refuses("serve", "shop:app", "--workers", "1", "--max-rss", "0", code=2, says="'0' is not a size")
    penstock.refuses("serve", "shop:app", "--workers", "1", "--hang-timeout", "0", code=2, says="'0' is not a time")
    penstock.refuses("serve", "none:app", "--workers", "1", code=2, says="no module named 'none'")
