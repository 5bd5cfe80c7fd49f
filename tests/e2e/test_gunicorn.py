"""gunicorn with penstock's worker class: real masters and workers, real requests, signals, and an end."""

import os
import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE_S, answers, environment, get, wait_for
from tests.e2e.serveload import Clients
from tests.support.waiting import wait_until

pytest.importorskip("uvicorn")
pytest.importorskip("gunicorn")

APP = """
import asyncio, os, time, penstock
print("imported in", os.getpid(), flush=True)
VERSION = 1
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                print("stopped in", os.getpid(), flush=True)
                return
    if scope["path"] == "/block":
        print("blocks", flush=True)
        time.sleep(1000)
    if scope["path"] == "/slow":
        print("slow begins", flush=True)
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    text = b"%d %d %s %s" % (VERSION, os.getpid(), loop.encode(), scope["scheme"].encode())
    if scope["path"] == "/":
        text = b"done"
    await asyncio.sleep(0.002)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})
"""


class Gunicorn:
    """gunicorn in a folder of its own, with one line of its output after the other."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.address = folder, ("127.0.0.1", port)
        (folder / "shop.py").write_text(APP)
        self.process: subprocess.Popen[str]

    def start(self, *options: str, **extra: str) -> None:
        command = [sys.executable, "-m", "gunicorn", "-k", "penstock.integrations.gunicorn.PenstockWorker"]
        command += ["-b", "{}:{}".format(*self.address), "--worker-tmp-dir", str(self.folder), *options, "shop:app"]
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                # where gunicorn puts its control socket
                env=environment() | {"HOME": str(self.folder)} | extra,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait_for(self, condition: Callable[[], object]) -> None:
        wait_for(lambda: bool(condition()), self.process)

    def serve(self, *options: str, **extra: str) -> None:
        """Start, and wait until each worker serves."""
        self.start(*options, **extra)
        count = int(options[options.index("-w") + 1]) if "-w" in options else 1
        self.wait_for(lambda: self.log.count("penstock serves in worker") >= count)

    def call(self, path: str = "/who") -> list[str]:
        """Return the version, the worker, the loop and the scheme that a request has met."""
        return get(self.address, path).decode().rpartition("\r\n")[2].split()

    def begin_slow(self) -> tuple[threading.Thread, list[list[str]]]:
        """Begin a request that waits for `let_go`."""
        found: list[list[str]] = []
        thread = threading.Thread(target=lambda: found.append(self.call("/slow")))
        thread.start()
        self.wait_for(lambda: "slow begins" in self.log)
        return thread, found

    def let_go(self) -> None:
        (self.folder / "go").touch()

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [*map(int, children)]

    def end(self, signum: int = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def gunicorn(tmp_path: Path, free_port: int) -> Iterator[Gunicorn]:
    made = Gunicorn(tmp_path, free_port)
    yield made
    with suppress(ProcessLookupError):
        os.killpg(made.process.pid, signal.SIGKILL)
    made.process.wait()


def test_two_workers_serve_on_penstocks_loop_on_several_sockets_and_end_in_order(gunicorn: Gunicorn) -> None:
    path = str(gunicorn.folder / "shop.sock")
    gunicorn.serve("-w", "2", "-b", f"unix:{path}", "--access-logfile", "-", "--access-logformat", "%(s)s %(U)s %(B)s")
    workers = {int(gunicorn.call()[1]) for _ in range(5)}
    assert workers <= set(gunicorn.workers())
    assert gunicorn.call()[2:4] == ["penstock", "http"]
    assert b"200 OK" in get(path, "/by-a-file")
    # no parent has the application
    assert {int(pid) for pid in re.findall(r"imported in (\d+)", gunicorn.log)} == set(gunicorn.workers())
    assert gunicorn.end() == 0
    assert re.search(r"^200 /by-a-file \d+$", gunicorn.log, re.MULTILINE)
    assert gunicorn.log.count("stopped in") == 2
    assert "Application startup complete" in gunicorn.log
    assert not os.path.exists(path)


def test_penstocks_config_holds_in_the_workers(gunicorn: Gunicorn) -> None:
    gunicorn.serve(PENSTOCK_PRESSURE_LIMIT="1", PENSTOCK_PRESSURE_MAX_WAIT_S="0")
    thread, found = gunicorn.begin_slow()
    assert b" 503 " in get(gunicorn.address)
    gunicorn.let_go()
    thread.join()
    assert found[0][0] == "1"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_under_load_loses_no_request(gunicorn: Gunicorn, workers: str) -> None:
    gunicorn.serve("-w", workers)
    clients = Clients(gunicorn.address, 8)
    clients.wait_until_busy()
    code = gunicorn.end()
    clients.join()
    assert (clients.lost, code) == ([], 0)


def test_a_reload_under_load_loses_no_request_and_brings_the_new_application(gunicorn: Gunicorn) -> None:
    gunicorn.serve("-w", "2")
    clients = Clients(gunicorn.address, 8)
    clients.wait_until_busy()
    old = set(gunicorn.workers())
    (gunicorn.folder / "shop.py").write_text(APP.replace("VERSION = 1", "VERSION = 2"))
    gunicorn.process.send_signal(signal.SIGHUP)
    gunicorn.wait_for(lambda: len(gunicorn.workers()) == 2 and not old & set(gunicorn.workers()))
    assert gunicorn.call()[0] == "2"
    gunicorn.end()
    clients.join()
    assert clients.lost == []


def test_workers_are_replaced_after_the_most_requests_and_none_is_lost(gunicorn: Gunicorn) -> None:
    gunicorn.serve("-w", "2", "--max-requests", "50", "--max-requests-jitter", "10")
    with ThreadPoolExecutor(4) as threads:
        answered = list(threads.map(lambda _: get(gunicorn.address), range(400)))
    assert all(answer.endswith(b"done") for answer in answered)
    assert "Maximum request limit of 5" in gunicorn.log


def test_a_drain_answers_a_request_in_progress_though_the_signal_comes_twice(gunicorn: Gunicorn) -> None:
    gunicorn.serve()
    thread, found = gunicorn.begin_slow()
    [worker] = gunicorn.workers()
    for _ in range(2):
        os.kill(worker, signal.SIGTERM)
        gunicorn.wait_for(lambda: "Shutting down" in gunicorn.log)
    gunicorn.let_go()
    thread.join()
    assert int(found[0][1]) == worker
    # the master has started another
    gunicorn.wait_for(lambda: gunicorn.workers() not in ([], [worker]) and answers(gunicorn.address))


def test_a_quit_ends_at_once_with_a_request_in_progress(gunicorn: Gunicorn) -> None:
    gunicorn.serve("--graceful-timeout", "1000")
    slow = threading.Thread(target=lambda: suppressed(lambda: gunicorn.call("/slow")))
    slow.start()
    gunicorn.wait_for(lambda: "slow begins" in gunicorn.log)
    assert gunicorn.end(signal.SIGQUIT) == 0
    slow.join()


def suppressed(call: Callable[[], object]) -> None:
    with suppress(OSError):
        call()


def test_a_blocked_loop_is_found_shown_and_replaced_within_its_timeout(gunicorn: Gunicorn) -> None:
    (gunicorn.folder / "hooks.py").write_text("def worker_abort(worker):\n    print('aborted', flush=True)\n")
    gunicorn.serve("-c", "hooks.py", "--timeout", "2")
    [worker] = gunicorn.workers()
    blocking = threading.Thread(target=lambda: suppressed(lambda: gunicorn.call("/block")))
    blocking.start()
    gunicorn.wait_for(lambda: "aborted" in gunicorn.log)
    blocking.join()
    gunicorn.wait_for(lambda: gunicorn.workers() not in ([], [worker]) and answers(gunicorn.address))
    assert "WORKER TIMEOUT" in gunicorn.log
    assert re.search(r'shop.py", line \d+, in app\n +time.sleep\(1000\)', gunicorn.log)


def test_a_worker_that_only_waits_is_not_taken_for_blocked(gunicorn: Gunicorn) -> None:
    gunicorn.serve("--timeout", "1")
    [worker] = gunicorn.workers()
    thread, found = gunicorn.begin_slow()
    first_s = _last_notice(worker)
    # several times the bound
    gunicorn.wait_for(lambda: _last_notice(worker) > first_s + 3)
    gunicorn.let_go()
    thread.join()
    assert int(found[0][1]) == worker


def _last_notice(worker: int) -> float:
    """Return the time of a worker's last notice: that of a file which has no name any more."""
    files = [each for each in Path(f"/proc/{worker}/fd").iterdir() if "wgunicorn" in os.readlink(each)]
    return max(os.stat(each).st_mtime for each in files)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_tls_is_gunicorns(gunicorn: Gunicorn, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    gunicorn.serve("--certfile", cert, "--keyfile", key)
    context = ssl.create_default_context(cafile=cert)
    answer = get(gunicorn.address, "/who", wrap=lambda sock: context.wrap_socket(sock, server_hostname="localhost"))
    assert answer.endswith(b"penstock https")


def test_workers_end_with_a_master_that_was_killed(gunicorn: Gunicorn) -> None:
    gunicorn.serve("-w", "2")
    workers = gunicorn.workers()
    os.kill(gunicorn.process.pid, signal.SIGKILL)
    gunicorn.process.wait()
    wait_until(lambda: all(map(is_gone, workers)))
    assert gunicorn.log.count("stopped in") == 2


def test_a_preloaded_application_is_imported_once_in_the_master(gunicorn: Gunicorn) -> None:
    gunicorn.serve("-w", "2", "--preload")
    assert gunicorn.call()[2] == "penstock"
    assert re.findall(r"imported in (\d+)", gunicorn.log) == [str(gunicorn.process.pid)]
    assert gunicorn.end() == 0


def test_an_application_that_fails_to_start_ends_the_master_with_gunicorns_code(gunicorn: Gunicorn) -> None:
    (gunicorn.folder / "shop.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    gunicorn.start()
    assert gunicorn.process.wait(PATIENCE_S) == 3
    assert "no database" in gunicorn.log
