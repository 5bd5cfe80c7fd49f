"""Worker processes that cannot start, each with one line, its exit code and no further attempt; and stray signals."""

import signal
import sys
import time

import pytest

from penstock.loop import NATIVE
from tests.e2e.conftest import PATIENCE_S, Command, wait_for
from tests.e2e.test_workers import APP, Served, wait_for_gone

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the supervisor is for Linux")

# each process that imports the application leaves its number here
NOTES = "import os\nwith open('starts', 'a') as notes:\n    notes.write(f'{os.getpid()}\\n')\n"
HANGING_START = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await asyncio.Event().wait()
"""
STARTUP_BOUND = ("--set", "serve.startup_s=0.5")


def failed_start(command: Command, port: int, text: str, *options: str) -> tuple[int, list[str], list[int]]:
    """Serve an application that cannot start. Return the exit code, the errors in the log, and who imported it."""
    served = Served(command, port, "--workers", "2", *options, text=NOTES + text)
    code = served.process.wait(PATIENCE_S)
    errors = [line for line in served.log.read_text().splitlines() if " ERROR " in line]
    assert "Traceback" not in served.log.read_text()
    started = [int(line) for line in (command.folder / "starts").read_text().split()]
    wait_for_gone(started)
    assert list((command.folder / "run").iterdir()) == []
    return code, errors, started


@pytest.mark.parametrize(
    ("text", "options", "code", "says"),
    [
        ("raise RuntimeError('no\\n database')", (), 3, "cannot load shop:app: RuntimeError: no database ("),
        (
            "raise RuntimeError('no\\n database')",
            ("--preload", "app"),
            3,
            "cannot load shop:app: RuntimeError: no database (",
        ),
        ("raise SystemExit(7)", (), 3, "cannot load shop:app: it ends the process by SystemExit(7)"),
        ("def app():\n    raise OSError('no key')", ("--factory",), 3, "cannot load shop:app: OSError: no key ("),
        ("api = None", (), 2, "module 'shop' has no attribute 'app'"),
        ("app = 5", ("--preload", "app"), 2, "shop:app is not an ASGI application but int 5"),
    ],
    ids=["raises", "raises-preloaded", "exits", "factory", "absent", "no-app-preloaded"],
)
def test_an_application_that_cannot_be_loaded_ends_the_server_with_one_line(
    penstock: Command, free_port: int, text: str, options: tuple[str, ...], code: int, says: str
) -> None:
    found, errors, started = failed_start(penstock, free_port, text, *options)
    assert (found, len(errors)) == (code, 1), errors
    assert says in errors[0] and errors[0].endswith(": the server ends")
    # no worker is tried again
    assert len(started) <= (1 if "--preload" in options else 2)


def test_a_preload_that_crashes_ends_the_server_with_its_signal(penstock: Command, free_port: int) -> None:
    code, errors, started = failed_start(penstock, free_port, "os.abort()", "--preload", "app")
    assert (code, len(errors), len(started)) == (3, 1, 1)
    assert "the process that workers are forked from was ended by SIGABRT: the server ends" in errors[0]


def test_a_lifespan_that_hangs_ends_the_server_at_its_bound(penstock: Command, free_port: int) -> None:
    code, errors, started = failed_start(penstock, free_port, HANGING_START, *STARTUP_BOUND)
    assert code == 3 and len(started) <= 2
    assert any("longer than serve.startup_s, 0.5 s" in line for line in errors)
    assert errors[-1].endswith("the server ends") or errors[-2].endswith("the server ends")


@pytest.mark.parametrize("text", [HANGING_START, "import time; time.sleep(600)"], ids=["lifespan", "import"])
def test_a_start_that_hangs_ends_the_server_at_the_workers_bound(penstock: Command, free_port: int, text: str) -> None:
    # long enough for an interpreter's own start on a busy machine
    code, errors, started = failed_start(penstock, free_port, text, "--start-timeout", "5")
    assert code == 3 and len(started) <= 2
    assert any(line.endswith("was killed: it has not started within 5 s: the server ends") for line in errors)


@pytest.mark.parametrize("options", [(), ("--set", "signals.dump=false"), ("--preload", "server")], ids=str)
def test_sigusr1_ends_no_worker(penstock: Command, free_port: int, options: tuple[str, ...]) -> None:
    waiting = "import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\n"
    served = Served(penstock, free_port, "--workers", "1", *options, text=waiting + APP)
    served.wait_for_line("penstock serves")
    # from the first moment of a worker on, before it can write its stack
    until_s = time.monotonic() + 1.0
    while time.monotonic() < until_s:
        served.process.send_signal(signal.SIGUSR1)
        time.sleep(0.05)
    (penstock.folder / "go").touch()
    pid = served.ready().body()[0]
    before = served.log.stat().st_size
    served.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: served.log.stat().st_size > before, served.process)
    assert served.body()[0] == pid and not served.says("is started again")
    assert served.end() == 128 + signal.SIGTERM


@pytest.mark.skipif(not NATIVE, reason="without the native core the kernel kills the workers at once, and files stay")
def test_a_killed_supervisor_leaves_no_file(penstock: Command, free_port: int) -> None:
    path = penstock.folder / "shop.sock"
    options = ("--workers", "2", "--bind", f"127.0.0.1:{free_port}", "--bind", f"unix:{path}")
    served = Served(penstock, free_port, *options).ready()
    wait_for(lambda: [row["state"] for row in served.rows()] == ["serving"] * 2, served.process)
    pids = served.pids()
    served.process.kill()
    served.process.wait()
    wait_for_gone(pids)
    assert not path.exists()
    assert list((penstock.folder / "run").iterdir()) == []


def test_workers_end_without_a_word_of_metrics_where_prometheus_client_is_missing(
    penstock: Command, free_port: int
) -> None:
    penstock.write("prometheus_client.py", "raise ModuleNotFoundError('no module', name='prometheus_client')")
    served = Served(penstock, free_port, "--workers", "1").ready()
    assert served.told("reload", str(served.process.pid)).returncode == 0
    assert served.end() == 128 + signal.SIGTERM
    assert not served.says(" ERROR ")
