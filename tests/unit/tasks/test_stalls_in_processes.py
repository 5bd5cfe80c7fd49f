"""Stalls in processes of their own: a stopped process, a fork, a program's end."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.tasks.detectors.stalls import StallWatch

if StallWatch()._watchdog is None:
    pytest.skip("needs the native code", allow_module_level=True)

STALL_S = 0.06
ROOT = Path(__file__).parents[3]

PRELUDE = f"""
import os, sys, threading, time, warnings
from penstock.tasks.detectors.stalls import stall_watch
from tests.unit.tasks.driven import DrivenLoop
loop = DrivenLoop()
assert stall_watch.watch(loop, loop.heartbeat, {STALL_S}, loop.findings)
def stand_still(loop):
    end_s = time.monotonic() + 10
    while not loop.stalls():
        assert time.monotonic() < end_s, "no stall was found"
        time.sleep(0.01)
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


def run_program(text: str) -> str:
    command = [sys.executable, "-W", "error", "-c", PRELUDE + text]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return done.stdout


# A stop is known by two looks, one before it and one after: the loop has the watchdog look, and stops when it has. On a
# busy machine the look may take so long that the turn is almost a stall before the stop: the next turn tries again.
STOPS = """
import signal
from penstock._core.seams import is_seen
watched = stall_watch._by_loop[loop]
LONGEST_LOOK_S = 0.1
TURNS = 100
has_stopped = False
def stop():
    global has_stopped
    if has_stopped:
        return False
    end_s = time.monotonic() + LONGEST_LOOK_S
    stall_watch._watchdog.wake()
    while not is_seen(watched):
        if time.monotonic() >= end_s:
            return False
        time.sleep(0.002)
    has_stopped = time.monotonic() < end_s
    if has_stopped:
        os.kill(os.getpid(), signal.SIGSTOP)
    return has_stopped
"""


def test_a_stopped_process_is_descheduled() -> None:
    program = """
def work():
    if stop():
        assert loop.reported.wait(10)
thread = threading.Thread(target=loop.run, args=([[work]] * TURNS,))
thread.start(); thread.join()
assert has_stopped, "the watchdog never looked in time"
[stall] = loop.stalls()
print(stall.evidence["cause"], stall.evidence["late_s"])
"""
    cause, late_s = run_stopped(STOPS + program).split()
    assert cause == "descheduled"
    assert float(late_s) > 0.4


def test_a_stop_is_reported_once_though_its_turn_is_over() -> None:
    program = """
thread = threading.Thread(target=loop.run, args=([[stop]] * TURNS, lambda: loop.reported.wait(10)))
thread.start(); thread.join()
assert has_stopped, "the watchdog never looked in time"
[stall] = loop.stalls()
print(stall.evidence["cause"])
"""
    assert run_stopped(STOPS + program).split() == ["descheduled"]


STOP_AT_READ = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
int eventfd_read(int fd, unsigned long *value)
{
    int (*real)(int, unsigned long *) = dlsym(RTLD_NEXT, "eventfd_read");
    int result = real(fd, value);
    if (getenv("STOP_NOW")) {
        unsetenv("STOP_NOW");
        kill(getpid(), SIGSTOP);
    }
    return result;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the stop is put in its place by a library that gcc builds")
def test_a_stop_while_the_watchdog_wakes_is_descheduled(tmp_path: Path) -> None:
    library = tmp_path / "stop_at_read.so"
    command = ["gcc", "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=STOP_AT_READ, text=True, check=True)
    program = """
def work():
    os.environ["STOP_NOW"] = "1"
    stall_watch._watchdog.wake()
    assert loop.reported.wait(10)
thread = threading.Thread(target=loop.run, args=([[work]],))
thread.start(); thread.join()
[stall] = loop.stalls()
print(stall.evidence["cause"])
"""
    preloaded = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(library)]))
    assert run_stopped(program, LD_PRELOAD=preloaded).split() == ["descheduled"]


def run_stopped(program: str, **env: str) -> str:
    """Return the output of the program, which stops itself and continues after a second. A stall is 0.6 s."""
    command = [sys.executable, "-c", PRELUDE.replace(f"{STALL_S}", "0.6") + program]
    process = subprocess.Popen(command, env=environment() | env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        time.sleep(1.0)
        process.send_signal(signal.SIGCONT)
        output = process.stdout.read()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    return output


FORK = """
def fork():
    {before}
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
    else:
        try:
            assert [each.name for each in threading.enumerate()] == ["MainThread"]
            own = DrivenLoop()
            assert stall_watch.watch(own, own.heartbeat, 0.06, own.findings)
            own.run([[lambda: stand_still(own)]])
            assert len(own.stalls()) == 1, own.stalls()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
"""


def test_a_fork_meets_no_thread_of_ours_and_both_sides_are_watched_after_it() -> None:
    # Python 3.12 and later warn of a fork beside threads, which `-W error` makes an error
    run_program(
        FORK.format(before="assert stall_watch._thread is not None")
        + """
loop.run([[fork], [lambda: stand_still(loop)]])
# the turn that forked is not looked at any more, though it waits for the child: the next one is
# (a busy machine may add a stall of the watchdog's own, which has no site)
assert {each.site.function for each in loop.stalls() if each.site} <= {"stand_still"}, loop.stalls()
assert stall_watch._thread is not None and stall_watch._thread.is_alive()
"""
    )


def test_a_fork_while_no_loop_runs_starts_no_thread() -> None:
    run_program(
        FORK.format(before="")
        + """
loop.run([[lambda: None]])
fork()
assert stall_watch._thread is None
loop.run([[lambda: stand_still(loop)]])
assert len(loop.stalls()) == 1
"""
    )


def test_a_program_ends_with_its_loops_still_watched() -> None:
    run_program("loop.run([[lambda: time.sleep(0.1)]]); assert stall_watch._thread.is_alive()")
