"""The writer of a health page: a blocked loop, a held GIL and a stopped process are seen by a supervisor."""

import asyncio
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

import penstock
from penstock.loop import NATIVE
from penstock.runtime.supervisor.health.hang_watch import HangWatch
from penstock.runtime.supervisor.health.page import SERVING, HealthPage, HealthReading
from penstock.runtime.supervisor.health.writer import HealthWriter
from tests.support.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stopped processes are Linux's here")
RUNS = {"penstock": penstock.run, "asyncio": asyncio.run}

# serves on a loop, and does in a callback what its argument says
WORKER = """
import asyncio, ctypes, sys, time
import penstock
from penstock.runtime.supervisor.health.page import SERVING, HealthPage
from penstock.runtime.supervisor.health.writer import HealthWriter
page = HealthPage(int(sys.argv[1]))
writer = HealthWriter(page, -1)
writer.start()
def sleep():
    time.sleep(1000)
def hold_the_gil():
    libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(256)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
async def main():
    loop = asyncio.get_running_loop()
    writer.follow(loop)
    page.set_state(SERVING)
    if sys.argv[3] != "serve":
        # first a while of good health
        loop.call_later(0.5, globals()[sys.argv[3]])
    while True:
        await asyncio.sleep(0.001)
{"penstock": penstock.run, "asyncio": asyncio.run}[sys.argv[2]](main())
"""


@pytest.fixture
def page() -> Iterator[HealthPage]:
    with closing(HealthPage.create()) as made:
        yield made


@contextmanager
def worker(page: HealthPage, loop: str, act: str) -> Iterator[int]:
    """The process id of a worker that serves."""
    command = [sys.executable, "-c", WORKER, str(page.fd), loop, act]
    with subprocess.Popen(command, pass_fds=[page.fd]) as process:
        try:
            wait_until(lambda: page.read().state == SERVING and page.read().written_ns)
            yield process.pid
        finally:
            process.kill()


def wait_for_hang(page: HealthPage, least_s: float = 1.5) -> HealthReading:
    """Check as a supervisor does, until the worker has hung for so long."""
    watch = HangWatch()
    wait_until(lambda: watch.check(page.read(), time.monotonic_ns()) >= least_s, every_s=0.05, told=str(page.read()))
    return page.read()


@pytest.mark.parametrize("loop", RUNS)
@pytest.mark.parametrize("act", ["sleep", "hold_the_gil"])
def test_a_callback_that_does_not_end_is_seen_as_a_hang(page: HealthPage, loop: str, act: str) -> None:
    with worker(page, loop, act):
        seen = wait_for_hang(page)
        assert seen.callback_since_ns or act == "hold_the_gil"


@pytest.mark.skipif(not NATIVE, reason="pings need the GIL")
def test_the_native_loops_page_is_written_while_c_code_holds_the_gil(page: HealthPage) -> None:
    with worker(page, "penstock", "hold_the_gil"):
        seen = wait_for_hang(page)
        assert seen.callback_since_ns
        wait_until(lambda: page.read().written_ns > seen.written_ns)
        assert page.read().callback_since_ns == seen.callback_since_ns


@pytest.mark.parametrize("loop", RUNS)
def test_a_stopped_process_is_seen_as_a_hang_and_then_as_well_again(page: HealthPage, loop: str) -> None:
    with worker(page, loop, "serve") as pid:
        os.kill(pid, signal.SIGSTOP)
        stopped = wait_for_hang(page)
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: page.read().written_ns > stopped.written_ns)
        watch = HangWatch()
        wait_until(lambda: watch.check(page.read(), time.monotonic_ns()) == 0)


@pytest.mark.parametrize("loop", RUNS)
def test_a_writer_that_is_stopped_leaves_no_thread_and_writes_no_more(page: HealthPage, loop: str) -> None:
    before = threading.active_count()
    writer = HealthWriter(page, -1)
    writer.start()

    async def main() -> None:
        writer.follow(asyncio.get_running_loop())
        await asyncio.to_thread(wait_until, lambda: page.read().written_ns)

    try:
        RUNS[loop](main())
    finally:
        writer.stop()
    wait_until(lambda: threading.active_count() == before, PATIENCE_S)
    written_ns = page.read().written_ns
    assert 0 < written_ns <= time.monotonic_ns()


@pytest.mark.skipif(not NATIVE, reason="only the native core kills a worker without the GIL")
@pytest.mark.parametrize("loop", RUNS)
def test_the_lifeline_is_watched_on_any_loop(page: HealthPage, loop: str) -> None:
    reader, writing_end = os.pipe()
    program = WORKER.replace("HealthWriter(page, -1)", f"HealthWriter(page, {reader})")
    command = [sys.executable, "-c", program, str(page.fd), loop, "hold_the_gil"]
    with subprocess.Popen(command, pass_fds=[page.fd, reader]) as process:
        os.close(reader)
        try:
            wait_for_hang(page)
            os.close(writing_end)
            assert process.wait(PATIENCE_S) == -signal.SIGKILL
        finally:
            process.kill()


def test_a_page_needs_no_writer_to_be_closed() -> None:
    page = HealthPage.create()
    writer = HealthWriter(page, -1)
    assert isinstance(page.memory, mmap.mmap)
    writer.stop()
    page.close()
