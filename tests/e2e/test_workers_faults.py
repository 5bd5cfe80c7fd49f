"""Faults around worker processes: commands and signals while one starts, a killed parent, a changed level."""

import os
import signal
import sys
import time

import pytest

from penstock.runtime.supervisor.control_client import ask
from tests.e2e.conftest import PATIENCE_S, Command, wait_for
from tests.e2e.test_workers import APP, Served, children_of, wait_for_gone

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the supervisor is for Linux")
GATE = """
import os, time
open(f"importing-{os.getpid()}", "w").close()
while os.path.exists("gate"):
    time.sleep(0.01)
"""
LEVEL = """
    if path == "/quiet":
        import penstock.tasks
        penstock.tasks.set_level("off")
"""


def test_stacks_that_are_asked_for_while_a_worker_starts_do_not_end_it(
    penstock: Command, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(penstock, free_port, "--workers", "1").ready()
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", served.extra["PENSTOCK_RUNTIME_DIR"])
    os.kill(served.pids()[0], signal.SIGKILL)
    # from the first moment of its successor, before python has begun there, until it serves
    while not served.says("worker 1") or served.log.read_text().count(" serves, after") < 2:
        answer = ask(served.process.pid, "stacks", within_s=PATIENCE_S)
        assert answer["ok"]
    assert served.log.read_text().count("is started again") == 1, served.log.read_text()


@pytest.mark.parametrize("preload", ["none", "app"])
def test_no_starting_process_outlives_its_killed_parent(penstock: Command, free_port: int, preload: str) -> None:
    penstock.write("gate", "")
    served = Served(penstock, free_port, "--workers", "1", "--preload", preload, text=GATE + APP)
    wait_for(lambda: bool([*penstock.folder.glob("importing-*")]), served.process)
    pids = children_of(served.process.pid)
    served.process.kill()
    served.process.wait()
    assert pids and wait_for_gone(pids) < 10.0


def test_telemetry_that_is_turned_off_at_run_time_is_no_hang(penstock: Command, free_port: int) -> None:
    text = APP.replace('    if path == "/hang":', LEVEL.lstrip("\n") + '    if path == "/hang":')
    served = Served(penstock, free_port, "--workers", "1", "--hang-timeout", "1", text=text).ready()
    pid = served.body("/quiet")[0]
    for _ in range(300):
        assert served.body()[0] == pid, served.log.read_text()

        time.sleep(0.02)
    served.ask("/hang")
    served.wait_for_line("is killed: its loop has been blocked for")
