"""The poller where its sources, the kernel or the descriptors fail it; and the sizes of what the loop keeps."""

import asyncio
import errno
import fcntl
import importlib
import os
import resource
import socket
import subprocess
import sys
from typing import Any

import pytest

from penstock._core.overload.lag import Lag
from penstock.loop.native import native_core

# seams.pyx, which has no types for Python
seams: Any = importlib.import_module("penstock._core.seams")
HOUR_S, HOUR_NS = 3600, 3600 * 10**9


@pytest.fixture
def pairs():
    made = [socket.socketpair() for _ in range(5)]
    yield made
    for pair in made:
        for sock in pair:
            sock.close()


@pytest.mark.parametrize("raising", [{0}, {2}, {4}, {0, 1, 3}, {0, 1, 2, 3, 4}], ids=str)
def test_an_exception_under_the_poll_drops_no_event_of_the_others_and_not_its_own(loop, pairs, raising):
    errors = {number: KeyboardInterrupt(number) for number in raising}
    sources = [
        seams.Raiser(loop, here.fileno(), errors.get(number), int(number in raising))
        for number, (here, _) in enumerate(pairs)
    ]
    for _, there in pairs:
        there.send(b"x")
    loop.call_soon(loop.stop)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert [source.told for source in sources] == [int(number not in raising) for number in range(5)]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert [source.told for source in sources] == [1] * 5
    for source in sources:
        source.leave(loop)


def test_a_number_that_is_no_descriptor_makes_no_table(loop):
    before = seams.sizes(loop)
    for number in (20_000_000, 2**31 - 1):
        with pytest.raises(OSError, match="Bad file descriptor"):
            loop.add_reader(number, int)
    assert seams.sizes(loop) == before


def test_the_table_fits_its_descriptors_again_once_the_highest_have_left(loop):
    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 4000)
    here, there = socket.socketpair()
    high = fcntl.fcntl(here, fcntl.F_DUPFD, most - 100)
    loop.add_reader(high, int)
    grown = seams.sizes(loop)[2]
    assert grown > high
    loop.remove_reader(high)
    for _ in range(grown):
        loop.add_reader(there, int)
        loop.remove_reader(there)
    assert seams.sizes(loop)[2] <= max(64, 4 * there.fileno())
    os.close(high)
    here.close()
    there.close()


def test_the_memory_of_a_burst_of_handles_and_timers_is_given_back(loop, run):
    async def burst(count):
        for _ in range(count):
            loop.call_soon(int)
            loop.call_later(0.001, int)
        kept = [loop.call_later(HOUR_S, int) for _ in range(100)]
        for handle in [loop.call_later(HOUR_S, int) for _ in range(count)]:
            handle.cancel()
        await asyncio.sleep(0.02)
        await asyncio.sleep(0.02)
        return kept

    kept = run(burst(50_000))
    ready, timers, _ = seams.sizes(loop)
    assert ready <= 8192
    assert 100 <= timers <= 2048
    for handle in kept:
        handle.cancel()


def test_a_reader_never_runs_for_what_an_earlier_call_has_read_though_the_loop_is_behind(loop, run):
    native_core(loop).watch_lag(Lag(high_ns=1, low_ns=1, for_ns=HOUR_NS, defer_ns=1))
    read, write = os.pipe()
    os.set_blocking(read, False)
    calls = []

    async def compute():
        end_s = loop.time() + 0.002
        while loop.time() < end_s:
            pass

    async def main():
        loop.add_reader(read, lambda: calls.append(os.read(read, 1)))
        for count in range(1, 21):
            os.write(write, b"x")
            # turns that take longer than the loop waits before it looks, in their middle, which client has come
            while len(calls) < count:
                await asyncio.gather(*(compute() for _ in range(4)))
        loop.remove_reader(read)

    problems = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    run(main())
    os.close(read)
    os.close(write)
    assert not problems
    assert calls == [b"x"] * 20


REFUSING = """
import ctypes, struct, sys, time
# Berkeley packet filter: load the call's number, return the error for epoll_pwait2, allow the others
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 441), (0x06, 0, 0, 0x00050000 | int(sys.argv[1])), (0x06, 0, 0, 0x7FFF0000)]
code = b"".join(struct.pack("HBBI", *step) for step in steps)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2
program = ctypes.byref(Program(len(steps), code))
if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(SECCOMP, FILTER, program, 0, 0):
    sys.exit("no seccomp filter here")
from penstock.loop import EventLoop
loop = EventLoop()
for delay_s in (0.3, 0.01):
    loop.call_later(delay_s, loop.stop)
    began_s, cpu_s = time.monotonic(), time.process_time()
    loop.run_forever()
    assert time.monotonic() - began_s >= delay_s, "a timer fired early"
    assert time.process_time() - cpu_s < 0.15, "the loop does not sleep"
"""


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS, errno.EACCES, errno.EINVAL], ids=errno.errorcode.get)
def test_a_filter_that_refuses_epoll_pwait2_costs_its_nanoseconds_alone(error):
    command = [sys.executable, "-c", REFUSING, str(error)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "no seccomp filter" in told.stderr:
        pytest.skip(told.stderr)
    assert told.returncode == 0, told.stderr


def test_a_loop_whose_own_descriptors_are_closed_behind_its_back_raises_and_does_not_spin():
    program = """
import asyncio, os, penstock
async def main():
    os.closerange(3, 256)
    await asyncio.sleep(0.05)
penstock.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "OSError: [Errno 9] Bad file descriptor" in done.stderr


def test_a_watched_descriptor_that_is_closed_behind_the_loops_back_leaves_the_others_watched(loop, pairs):
    (one, _), (other, there) = pairs[:2]
    heard = []
    loop.add_reader(one, heard.append, "closed")
    loop.add_reader(other, lambda: (heard.append(other.recv(1)), loop.stop()))
    number = one.detach()
    os.closerange(number, number + 1)
    there.send(b"x")
    loop.run_forever()
    assert heard == [b"x"]
    assert loop.remove_reader(other) is True
    assert loop.remove_reader(number) is True
    # its number is another's now: that one is watched as if nothing had been there
    again, peer = socket.socketpair()
    if number not in (again.fileno(), peer.fileno()):
        os.dup2(again.fileno(), number)
        again.close()
        again = socket.socket(fileno=number)
    ours, theirs = (again, peer) if again.fileno() == number else (peer, again)
    loop.add_reader(number, lambda: (heard.append(ours.recv(1)), loop.stop()))
    theirs.send(b"y")
    loop.run_forever()
    assert heard == [b"x", b"y"]
    assert loop.remove_reader(number) is True
    again.close()
    peer.close()
