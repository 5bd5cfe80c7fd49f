"""The attach server beside forks, signal handlers, and threads that do not start: it is never in a program's way."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from penstock.loop import NATIVE
from penstock.monitor.client import AttachedProcess
from tests.support.attached import running
from tests.support.waiting import wait_until

native_only = pytest.mark.skipif(not NATIVE, reason="the signal and the native thread are the native server's")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # pytest's own is too long for the path of a socket
    made = Path(mkdtemp(prefix="attach", dir="/tmp"))
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", str(made))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def run(program: str, *options: str) -> tuple[str, str]:
    """Run a program to its end; return what it wrote."""
    command = [sys.executable, *options, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout, result.stderr


UNTIL_SERVED = """
import asyncio, os, signal, sys, threading, time, penstock

async def served():
    while not os.path.exists(f"{os.environ['PENSTOCK_RUNTIME_DIR']}/{os.getpid()}-attach.sock"):
        await asyncio.sleep(0.01)
"""

NO_THREADS = """
import asyncio, os, threading

real = threading.Thread.start

def start(self):
    if self.name.startswith("penstock-attach"):
        raise RuntimeError("can't start new thread")
    real(self)

threading.Thread.start = start
import penstock

penstock.run(asyncio.sleep(0))
child = os.fork()
if not child:
    os._exit(0)
os.waitpid(child, 0)
penstock.run(asyncio.sleep(0))
print("ran")
"""


def test_a_loop_runs_and_forks_where_no_thread_can_start(folder: Path) -> None:
    assert run(NO_THREADS) == ("ran\n", "")


OTHER_THREADS = """
import threading

class AtOnce(threading.Thread):
    def start(self):
        self.run()

    def join(self, timeout=None):
        pass

threading.Thread = AtOnce
import asyncio, penstock

penstock.run(asyncio.sleep(0.4))
print("ran")
"""


def test_threads_that_run_in_their_starter_do_not_stop_it(folder: Path) -> None:
    assert run(OTHER_THREADS) == ("ran\n", "")


OWN_SIGNAL = (
    UNTIL_SERVED
    + """
async def main():
    await served()
    signal.signal(signal.SIGRTMIN + 6, lambda number, frame: os.write(1, b"handled\\n"))
    child = os.fork()
    os.kill(os.getpid(), signal.SIGRTMIN + 6)
    if not child:
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

penstock.run(main())
"""
)


@native_only
def test_a_programs_own_handler_of_the_stack_signal_stays_after_a_fork(folder: Path) -> None:
    output, errors = run(OWN_SIGNAL)
    assert (sorted(output.split()), errors) == (["7", "handled", "handled"], "")


FORKS = (
    UNTIL_SERVED
    + """
async def main():
    await served()
    for _ in range(40):
        for _ in range(2):
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
        # the threads are back
        while sum(thread.name.startswith("penstock") for thread in threading.enumerate()) < int(sys.argv[1]):
            await asyncio.sleep(0)

penstock.run(main())
"""
)


@pytest.mark.parametrize("attach", ["0", "1"])
def test_no_fork_warns_of_threads_that_are_penstocks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, attach: str
) -> None:
    monkeypatch.setenv("PENSTOCK_MONITOR_ATTACH", attach)
    program = FORKS if attach == "1" else FORKS.replace("await served()", "await asyncio.sleep(0)", 1)
    threads = {("1", True): 3, ("0", True): 1}.get((attach, NATIVE), 0)
    assert run(program.replace("int(sys.argv[1])", str(threads)), "-W", "always") == ("", "")


NESTED = (
    UNTIL_SERVED
    + """
import penstock.runtime.attach.service as service

real = service.join_wholly

def join(thread, within_s):
    # as a handler of a signal that arrives now
    service.join_wholly = real
    real(thread, within_s)
    child = os.fork()
    if child:
        os.waitpid(child, 0)

async def main():
    await served()
    service.join_wholly = join
    child = os.fork()
    if not child or os.getpid() != parent:
        os._exit(0)
    os.waitpid(child, 0)
    while sum(thread.name.startswith("penstock-attach") for thread in threading.enumerate()) < 1:
        await asyncio.sleep(0.01)
    print("served again")

parent = os.getpid()
penstock.run(main())
"""
)


@native_only
def test_a_fork_within_a_fork_leaves_the_service_running(folder: Path) -> None:
    assert run(NESTED) == ("served again\n", "")


FORKS_WHILE_ASKED = """
import asyncio, os, sys, time, penstock

async def leaf():
    await asyncio.Event().wait()

async def main():
    tasks = [asyncio.create_task(leaf()) for _ in range(20_000)]
    print("ready", flush=True)
    longest_s = 0.0
    await asyncio.to_thread(sys.stdin.readline)
    for _ in range(10):
        await asyncio.sleep(0.05)
        since_s = time.monotonic()
        child = os.fork()
        if not child:
            os._exit(0)
        longest_s = max(longest_s, time.monotonic() - since_s)
        os.waitpid(child, 0)
    print(longest_s, flush=True)
    await asyncio.to_thread(sys.stdin.readline)

penstock.run(main())
"""


@native_only
def test_a_fork_does_not_wait_for_a_long_answer(folder: Path) -> None:
    with running(FORKS_WHILE_ASKED, folder) as process, AttachedProcess(process.pid, within_s=60) as attached:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        asker = subprocess.Popen([sys.executable, "-c", ASKER, str(process.pid)], stderr=subprocess.DEVNULL)
        try:
            process.stdin.write("\n")
            process.stdin.flush()
            # an answer takes longer than a second here; a fork that waited for it would too
            assert float(process.stdout.readline()) < 0.9
        finally:
            asker.kill()
            asker.wait()
        # the question that a fork interrupted is answered after it
        assert attached.ask("graph")["ok"]


ASKER = """
import sys
from penstock.monitor.client import AttachedProcess

while True:
    with AttachedProcess(int(sys.argv[1]), within_s=60) as attached:
        attached.ask("graph", patience_ms=10_000)
"""


def test_the_files_of_processes_that_are_gone_do_not_pile_up(folder: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for ending in ("-attach.sock", "-attach.sock.new"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(folder / f"{process.pid}{ending}"))
            sock.listen()
    other = folder / "999999999-attach.sock"
    other.touch()
    with running("import asyncio, penstock; penstock.run(asyncio.sleep(60))", folder) as served:
        own = f"{served.pid}-attach.sock"
        wait_until(lambda: {path.name for path in folder.iterdir()} == {own, other.name})


REUSES_DESCRIPTORS = """
import os, sys, time, penstock
from penstock.runtime.attach.service import attach_service

loop = penstock.new_event_loop()
while not os.path.exists(f"{os.environ['PENSTOCK_RUNTIME_DIR']}/{os.getpid()}-attach.sock"):
    time.sleep(0.01)
os.closerange(3, 4096)
files = [open(f"{os.environ['PENSTOCK_RUNTIME_DIR']}/{number}", "w+b", buffering=0) for number in range(20)]
for file in files:
    file.write(b"0123456789")
    file.seek(0)
child = os.fork()
if not child:
    os._exit(0)
os.waitpid(child, 0)
attach_service.ensure_thread()
attach_service.close()
for file in files:
    assert file.tell() == 0 and file.read(30) == b"0123456789", file.name
os._exit(0)
"""


@native_only
def test_descriptors_that_the_program_closed_and_got_again_are_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the watch for stalls has descriptors of its own
    monkeypatch.setenv("PENSTOCK_TASKS_STALL_S", "none")
    output, _ = run(REUSES_DESCRIPTORS)
    assert output == ""
