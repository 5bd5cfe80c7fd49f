"""Workers end with their supervisor, whatever they do then: import, ignore signals, or hold the GIL."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.loop import NATIVE
from tests.support.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's end is Linux's")

# starts the worker, which inherits the pipe, and waits to be killed
SUPERVISOR = """
import os, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], stdout=1)
worker.wait()
"""
# the worker's first steps, as the supervisor's child module takes them
TIE = """
import os, sys
from penstock.runtime.supervisor.worker.parent_tie import lifeline, tie_to_parent
tie_to_parent(int(sys.argv[1]))
fd = lifeline(int(sys.argv[1]))
"""
SAMPLE = """
from penstock.loop import NATIVE
if NATIVE:
    import mmap, threading
    from penstock._core.workers.health import HealthSampler
    sampler = HealthSampler(mmap.mmap(-1, 4096), None, fd)
    threading.Thread(target=sampler.run, daemon=True).start()
"""
READY = """
print(os.getpid(), flush=True)
"""
# C code that holds the GIL for ever and that no signal interrupts: a mutex is locked twice
BLOCK = """
libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(256)
libc.pthread_mutex_lock(mutex)
libc.pthread_mutex_lock(mutex)
"""
BUSY = {
    "imports": TIE + READY + "import time; time.sleep(100)",
    "samples": TIE + SAMPLE + READY + "import time; time.sleep(100)",
    "ignores": TIE
    + SAMPLE
    + "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    + READY
    + "time.sleep(100)",
    "blocks": TIE + SAMPLE + "import ctypes, signal; signal.signal(signal.SIGTERM, lambda *_: None)" + READY + BLOCK,
}


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that nothing has reaped yet has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


@pytest.mark.parametrize("busy", BUSY)
def test_a_worker_ends_when_its_supervisor_is_killed(busy: str) -> None:
    command = [sys.executable, "-c", SUPERVISOR, BUSY[busy]]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        worker = int(supervisor.stdout.readline())
        supervisor.kill()
        try:
            wait_until(lambda: is_gone(worker), told=f"a worker that {busy} has survived its supervisor")
        except AssertionError:
            os.kill(worker, signal.SIGKILL)
            raise


def test_a_worker_whose_supervisor_has_ended_ends_before_it_begins() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    done = run_worker(TIE + READY, ended.pid)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_worker_whose_supervisor_is_not_reaped_ends_before_it_begins() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        wait_until(lambda: is_gone(ended.pid))
        done = run_worker(TIE + READY, ended.pid)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_worker_of_a_template_has_the_lifeline_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as supervisor:
        done = run_worker(TIE + SIGNAL_IS + "print(fd >= 0)", supervisor.pid)
        supervisor.communicate(b"\n")
    assert done.stdout == "0\nTrue\n"


# reads the signal of the parent's end
SIGNAL_IS = """
import ctypes
signum = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(signum), 0, 0, 0)
print(signum.value)
"""


def test_the_signal_begins_a_drain_where_the_core_ends_what_blocks() -> None:
    done = run_worker(TIE + SIGNAL_IS, os.getpid())
    assert int(done.stdout) == (signal.SIGTERM if NATIVE else signal.SIGKILL)


def run_worker(program: str, supervisor_pid: int) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", program, str(supervisor_pid)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=3 * PATIENCE_S, check=False)
