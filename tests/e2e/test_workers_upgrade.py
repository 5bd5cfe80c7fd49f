"""A new program that takes the listeners over: neither program's violent end takes them from the other."""

import os
import re
import signal
import sys

import pytest

from tests.e2e.conftest import Command, environment, get, wait_for
from tests.e2e.test_workers import APP, Served, children_of, wait_for_gone

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the supervisor is for Linux")
# the second worker of the new program starts once the file is gone
GATED = """
import os, time
while os.path.exists("gate") and "worker=2" in open("/proc/self/cmdline").read():
    time.sleep(0.01)
"""
HANG = '    if path == "/hang":'
SLOW = APP.replace(HANG, f'    if path == "/slow":\n        await asyncio.sleep(600)\n{HANG}')


def upgraded(served: Served) -> int:
    served.process.send_signal(signal.SIGUSR2)
    return int(served.wait_for_line("a new program starts, pid").split()[-1])


def test_a_new_program_that_is_killed_leaves_the_listener_to_the_old_one(penstock: Command, free_port: int) -> None:
    served = Served(penstock, free_port, "--workers", "2", text=GATED + APP).ready()
    served.wait_for_line("worker 2")
    (penstock.folder / "gate").touch()
    new = upgraded(served)
    # its first worker listens, its second one does not
    wait_for(lambda: served.log.read_text().count("worker 1 ") == 2, served.process)
    workers = children_of(new)
    os.kill(new, signal.SIGKILL)
    wait_for_gone(workers)
    served.wait_for_line("has not started; this one goes on")
    assert served.body()[2] == str(served.process.pid)
    assert served.end() == 128 + signal.SIGTERM


def test_an_old_program_that_is_killed_in_its_drain_leaves_the_listener_to_the_new_one(
    penstock: Command, free_port: int
) -> None:
    served = Served(penstock, free_port, "--workers", "1", "--drain", "600", text=SLOW).ready()
    served.ask("/slow")
    wait_for(lambda: served.rows()[0]["requests"] == 1, served.process)
    new = upgraded(served)
    try:
        served.wait_for_line("serves; this one ends")
        wait_for(lambda: [row["state"] for row in served.rows()] == ["draining"], served.process)
        workers = served.pids()
        served.process.kill()
        served.process.wait()
        wait_for_gone([pid for pid in workers if pid != new])
        assert served.body()[2] == str(new)
    finally:
        os.kill(new, signal.SIGTERM)
        wait_for_gone([new])


def test_health_checks_never_hear_of_the_old_programs_drain(penstock: Command, free_port: int) -> None:
    options = ("--workers", "1", "--drain", "600", "--drain-delay", "600", "--health-port", "0")
    served = Served(penstock, free_port, *options, text=SLOW).ready()
    health = "127.0.0.1", int(re.findall(r"health checks on http://127.0.0.1:(\d+)", served.log.read_text())[0])
    served.ask("/slow")
    wait_for(lambda: served.rows()[0]["requests"] == 1, served.process)
    new = upgraded(served)
    try:
        served.wait_for_line("serves; this one ends")
        # without the delay, since nothing is refused
        wait_for(lambda: [row["state"] for row in served.rows()] == ["draining"], served.process)
        for _ in range(20):
            assert get(health, "/readyz").startswith(b"HTTP/1.1 200")
    finally:
        served.end(signal.SIGQUIT)
        os.kill(new, signal.SIGQUIT)
        wait_for_gone([new])


def test_a_new_program_that_hangs_before_it_begins_is_bounded(penstock: Command, free_port: int) -> None:
    served = Served(
        penstock, free_port, "--workers", "1", "--start-timeout", "5", PYTHONPATH=hung_path(penstock)
    ).ready()
    (penstock.folder / "gate").touch()
    new = upgraded(served)
    served.process.send_signal(signal.SIGUSR2)
    served.wait_for_line(f"a new program starts already, pid {new}")
    served.wait_for_line("does not start: it is killed")
    served.wait_for_line("has not started; this one goes on")
    (penstock.folder / "gate").unlink()
    assert served.body()[1] == "one"
    assert served.end() == 128 + signal.SIGTERM


def hung_path(penstock: Command) -> str:
    """A module path whose `sitecustomize` waits for a file to be gone."""
    penstock.write("hung/sitecustomize.py", 'import os, time\nwhile os.path.exists("gate"):\n    time.sleep(0.01)\n')
    return os.pathsep.join((str(penstock.folder / "hung"), environment()["PYTHONPATH"]))
