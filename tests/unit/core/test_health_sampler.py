"""The sampler of a worker: the supervisor sees the loop's words while the GIL is held, and no worker outlives it."""

import asyncio
import ctypes
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import penstock
from penstock.integrations.health.liveness import HEARTBEAT_LEVEL
from penstock.loop import NATIVE
from penstock.loop.native import native_core
from tests.support.waiting import PATIENCE_S, wait_until

health = pytest.importorskip("penstock._core.workers.health")

# maps the page, and prints each time that the sampler writes, until its standard input ends
WATCHER = """
import mmap, select, struct, sys
page, seen = mmap.mmap(int(sys.argv[1]), 4096), 0
print("watching", flush=True)
while not select.select([sys.stdin], [], [], 0.005)[0]:
    written_ns = struct.unpack_from("q", page, 8)[0]
    if written_ns != seen:
        seen = written_ns
        print(seen, flush=True)
"""
# begins to sample, and then holds the GIL until it is killed
ORPHAN = """
import ctypes, mmap, os, sys, threading
from penstock._core.workers.health import HealthSampler
sampler = HealthSampler(mmap.mmap(-1, 4096), None, int(sys.argv[1]))
threading.Thread(target=sampler.run, daemon=True).start()
os.write(1, b"ready")
ctypes.PyDLL(None).usleep(100_000_000)
"""
ENDS_WHILE_IT_SAMPLES = """
import mmap, struct, threading, time
from penstock._core.tasks.heartbeat import Heartbeat
from penstock._core.workers.health import HealthSampler
page = mmap.mmap(-1, 4096)
sampler = HealthSampler(page, Heartbeat(), -1)
threading.Thread(target=sampler.run, daemon=True).start()
while not struct.unpack_from("q", page, 8)[0]:
    time.sleep(0.001)
"""


@pytest.fixture
def page() -> Iterator[mmap.mmap]:
    yield mmap.mmap(-1, 4096)


def words(page: mmap.mmap) -> tuple[int, ...]:
    """The page: state, written_ns, turn_since_ns, callback_since_ns, turn_number, and three of others."""
    return struct.unpack_from("8q", page)


@contextmanager
def sampling(page: Any, heartbeat: Any = None, lifeline_fd: int = -1) -> Iterator[Any]:
    sampler = health.HealthSampler(page, heartbeat, lifeline_fd)
    thread = threading.Thread(target=sampler.run, daemon=True)
    thread.start()
    try:
        yield sampler
    finally:
        sampler.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def after_a_sample(page: mmap.mmap) -> tuple[int, ...]:
    """The page once two samples have begun and ended: the second is wholly of now."""
    for _ in range(2):
        before = words(page)[1]
        wait_until(lambda before=before: words(page)[1] != before)
    return words(page)


def own_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_the_page_is_written_while_c_code_holds_the_gil() -> None:
    fd = os.memfd_create("page")
    os.ftruncate(fd, 4096)
    page = mmap.mmap(fd, 4096)
    command = [sys.executable, "-c", WATCHER, str(fd)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[fd], text=True) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "watching\n"
        with sampling(page):
            after_a_sample(page)
            begin_ns = time.monotonic_ns()
            ctypes.PyDLL(None).usleep(700_000)
            end_ns = time.monotonic_ns()
        seen = [int(line) for line in watcher.communicate("")[0].splitlines()]
    os.close(fd)
    assert any(begin_ns < written_ns < end_ns for written_ns in seen), (begin_ns, end_ns, seen)


def test_a_blocked_callback_shows_when_it_began(page: mmap.mmap) -> None:
    from penstock._core.tasks.heartbeat import Heartbeat

    heartbeat = Heartbeat()
    with sampling(page, heartbeat):
        assert after_a_sample(page)[2:5] == (0, 0, 0)
        heartbeat.begin_turn()
        heartbeat.begin_callback(print)
        row = heartbeat.read()
        assert after_a_sample(page)[2:5] == (row.turn_since_ns, row.callback_since_ns, 1)
        heartbeat.end_callback()
        heartbeat.end_turn()
        assert after_a_sample(page)[2:5] == (0, 0, 1)


@pytest.mark.skipif(not NATIVE, reason="the native loop alone has a heartbeat")
def test_a_native_loops_blocked_callback_is_seen(page: mmap.mmap) -> None:
    shown = []

    def block(begin_ns: int) -> None:
        # the loop is blocked until the page shows it, in place of main's own step
        wait_until(lambda: words(page)[3] > begin_ns)
        shown.append((words(page), time.monotonic_ns()))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        core: Any = native_core(loop)
        assert core.probe.level >= HEARTBEAT_LEVEL
        begin_ns = time.monotonic_ns()
        with sampling(page, core.probe.heartbeat):
            loop.call_soon(block, begin_ns)
            await asyncio.to_thread(wait_until, lambda: shown)
        (_, written_ns, turn_since_ns, callback_since_ns, *_), end_ns = shown[0]
        assert begin_ns <= turn_since_ns <= callback_since_ns <= written_ns <= end_ns

    penstock.run(main())


def test_words_that_are_the_supervisors_are_left_alone(page: mmap.mmap) -> None:
    struct.pack_into("8q", page, 0, 2, 0, 0, 0, 0, 5, 6, 7)
    with sampling(page):
        seen = after_a_sample(page)
    assert (seen[0], *seen[5:]) == (2, 5, 6, 7)


def test_without_a_heartbeat_only_the_time_is_written(page: mmap.mmap) -> None:
    struct.pack_into("3q", page, 16, 11, 12, 13)
    with sampling(page):
        assert after_a_sample(page)[2:5] == (11, 12, 13)


def test_a_heartbeat_can_be_followed_while_it_samples(page: mmap.mmap) -> None:
    from penstock._core.tasks.heartbeat import Heartbeat

    with sampling(page) as sampler:
        for number in range(1, 4):
            heartbeat = Heartbeat()
            heartbeat.write(100 + number, 200 + number, number, 0, 0)
            sampler.follow(heartbeat)
            del heartbeat
            assert after_a_sample(page)[2:5] == (100 + number, 200 + number, number)
        sampler.follow(None)
        assert after_a_sample(page)[2:4] == (0, 0)


def test_heartbeats_come_and_go_by_the_thousand_while_it_samples(page: mmap.mmap) -> None:
    from penstock._core.tasks.heartbeat import Heartbeat

    with sampling(page) as sampler:
        for _ in range(2000):
            sampler.follow(Heartbeat())
            sampler.follow(None)


def test_many_starts_and_stops_leave_no_descriptor_and_no_thread(page: mmap.mmap) -> None:
    reader, writer = os.pipe()
    before, threads = own_descriptors(), threading.active_count()
    for _ in range(200):
        with sampling(page, None, reader):
            pass
    assert (own_descriptors(), threading.active_count()) == (before, threads)
    os.close(reader)
    os.close(writer)


def test_a_stop_before_the_run_ends_it_at_once(page: mmap.mmap) -> None:
    sampler = health.HealthSampler(page, None, -1)
    sampler.stop()
    sampler.run()
    sampler.run()


def test_only_one_thread_samples(page: mmap.mmap) -> None:
    with sampling(page) as sampler:
        after_a_sample(page)
        with pytest.raises(RuntimeError, match="runs already"):
            sampler.run()


def test_a_forked_child_neither_writes_nor_stops_it() -> None:
    page = mmap.mmap(-1, 4096)
    with sampling(page) as sampler:
        after_a_sample(page)
        child = os.fork()
        if child == 0:
            sampler.stop()
            sampler.run()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        after_a_sample(page)


def test_the_interpreter_ends_while_it_samples() -> None:
    command = [sys.executable, "-c", ENDS_WHILE_IT_SAMPLES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", ["pipe", "socket", "pidfd"])
def test_a_worker_whose_main_thread_holds_the_gil_is_killed_after_the_supervisor(kind: str) -> None:
    with lifeline(kind) as (fd, hang_up):
        command = [sys.executable, "-c", ORPHAN, str(fd)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[fd]) as worker:
            assert worker.stdout is not None
            assert worker.stdout.read(5) == b"ready"
            began_s = time.monotonic()
            hang_up()
            assert worker.wait(PATIENCE_S) == -signal.SIGKILL
            assert time.monotonic() - began_s >= 1.15


@contextmanager
def lifeline(kind: str) -> Iterator[tuple[int, Any]]:
    """A descriptor for the worker, and a call that hangs it up."""
    if kind == "pipe":
        reader, writer = os.pipe()
        yield reader, lambda: os.close(writer)
        os.close(reader)
    elif kind == "socket":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # a message is no hang-up
        ours.send(b"order")
        yield theirs.fileno(), ours.close
        theirs.close()
    else:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as parent:
            pidfd = os.pidfd_open(parent.pid)
            yield pidfd, lambda: (parent.kill(), parent.wait())
            os.close(pidfd)


def test_a_lifeline_that_holds_kills_nobody(page: mmap.mmap) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, sampling(page, None, theirs.fileno()):
        ours.send(b"order")
        first_ns = words(page)[1]
        wait_until(lambda: words(page)[1] - first_ns > 2_000_000_000)


def test_a_page_that_is_too_small_or_read_only_is_refused() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        health.HealthSampler(bytearray(56), None, -1)
    with pytest.raises(BufferError):
        health.HealthSampler(bytes(64), None, -1)
    with pytest.raises(OSError, match="descriptor"):
        health.HealthSampler(bytearray(64), None, 1 << 20)
