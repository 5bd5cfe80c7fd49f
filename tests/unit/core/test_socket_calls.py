"""Socket calls: what a cancelled one leaves, and what a registration that is kept costs and lets go."""

import asyncio
import gc
import os
import re
import socket
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from penstock._core.net.watch import Watch
from penstock.loop.native import native_core
from tests.support.waiting import turns

EDGE, OUT = 1 << 31, 4


@pytest.fixture
def pair():
    one, other = socket.socketpair()
    for sock in (one, other):
        sock.setblocking(False)
    yield one, other
    one.close()
    other.close()


def registered(number):
    """The interests that epoll sets of this process have in a descriptor's number."""
    found = []
    for entry in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = entry.read_text().splitlines()
        except OSError:
            continue
        interests = [re.match(r"tfd:\s+(\d+) events:\s+(\w+)", line) for line in lines]
        found += [int(match[2], 16) for match in interests if match and int(match[1]) == number]
    return found


async def received(loop, one, other):
    """Have a call wait, and end."""
    receiving = asyncio.ensure_future(loop.sock_recv(one, 10))
    await turns()
    other.send(b"x")
    assert await receiving == b"x"


async def cancelled_when_ready(loop, call, make_ready):
    """Cancel a call in the turn in which its future is done and its coroutine has not run."""
    task = asyncio.ensure_future(call)
    await turns()
    make_ready()
    waiter = task._fut_waiter
    while not waiter.done():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_sock_recv_cancelled_when_data_is_there_loses_no_bytes(loop, run, pair):
    one, other = pair
    await cancelled_when_ready(loop, loop.sock_recv(one, 10), lambda: other.send(b"data"))
    assert await loop.sock_recv(one, 10) == b"data"


async def test_a_sock_accept_cancelled_when_a_client_is_there_loses_no_connection(loop, run):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        await cancelled_when_ready(loop, loop.sock_accept(listener), lambda: client.connect(listener.getsockname()))
        accepted, address = await loop.sock_accept(listener)
        accepted.close()
        assert address == client.getsockname()


async def test_a_call_that_ended_leaves_an_edge_triggered_registration_and_no_watch(loop, run, pair):
    one, other = pair
    await received(loop, one, other)
    (interest,) = registered(one.fileno())
    assert interest & EDGE
    assert one.fileno() not in native_core(loop).sources()
    assert one.fileno() not in loop._selector.get_map()
    assert loop.remove_reader(one) is False


async def test_a_second_call_uses_the_registration_of_the_first(loop, run, pair):
    one, other = pair
    await received(loop, one, other)
    before = native_core(loop).source_at(one.fileno())
    await received(loop, one, other)
    assert native_core(loop).source_at(one.fileno()) is before


async def test_a_reader_that_is_added_is_level_triggered(loop, run, pair):
    one, other = pair
    await received(loop, one, other)
    called = asyncio.Event()
    other.send(b"x")
    await turns()
    loop.add_reader(one, called.set)
    for _ in range(3):
        called.clear()
        await called.wait()
    assert not any(interest & EDGE for interest in registered(one.fileno()))
    loop.remove_reader(one)
    assert registered(one.fileno()) == []


async def test_a_kept_registration_keeps_no_socket_alive(loop, run, pair):
    one, other = pair
    twin = one.dup()
    await received(loop, twin, other)
    alive = weakref.ref(twin)
    twin.close()
    del twin
    gc.collect()
    assert alive() is None


async def test_a_cancelled_call_is_released(loop, run, pair):
    one, other = pair
    task = asyncio.ensure_future(loop.sock_recv(one, 10))
    await turns()
    watch = native_core(loop).source_at(one.fileno())
    assert isinstance(watch, Watch) and watch.reader is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert watch.reader is None
    other.send(b"x")
    await turns()
    assert await loop.sock_recv(one, 1) == b"x"


async def test_a_duplicate_of_a_closed_socket_does_not_wake_the_loop_for_ever(loop, run, pair):
    one, other = pair
    number = one.fileno()
    twin = one.dup()
    await received(loop, one, other)
    one.close()
    assert registered(number)
    for _ in range(2000):
        other.send(b"x")
        await asyncio.sleep(0.0001)
        twin.recv(1)
        if not registered(number):
            break
    assert not registered(number)
    await received(loop, twin, other)
    twin.close()


async def test_room_to_write_that_nothing_waits_for_is_no_longer_reported(loop, run, pair):
    one, other = pair
    sending = asyncio.ensure_future(loop.sock_sendall(one, b"x" * 3_000_000))
    left = 3_000_000
    while left:
        left -= len(await loop.sock_recv(other, 65536))
    await sending
    await turns()
    # each byte that the peer reads makes room, and is reported until the loop has seen that nothing waits for it
    while any(interest & OUT for interest in registered(one.fileno())):
        await loop.sock_sendall(one, b"x")
        await loop.sock_recv(other, 1)
        await turns()


async def test_a_call_woken_without_data_waits_on(loop, run, pair):
    one, other = pair
    twin = one.dup()
    twin.setblocking(False)
    receiving = asyncio.ensure_future(loop.sock_recv(one, 10))
    await turns()
    for _ in range(3):
        other.send(b"x")
        twin.recv(1)
        await turns()
    assert not receiving.done()
    other.send(b"data")
    assert await receiving == b"data"
    twin.close()


async def test_a_call_is_not_resumed_before_its_event(loop, run, pair):
    one, _ = pair
    call = loop.sock_recv(one, 10)
    call.send(None)
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        call.send(None)
    assert loop.remove_reader(one) is False


async def test_a_closed_coroutine_leaves_the_socket(loop, run, pair):
    one, _ = pair
    call = loop.sock_recv(one, 10)
    call.send(None)
    assert one.fileno() in native_core(loop).sources()
    call.close()
    assert one.fileno() not in native_core(loop).sources()


def test_an_accepted_descriptor_is_closed_if_its_socket_cannot_be_made(loop, run):
    code = """
import asyncio, os, socket, sys, penstock
armed = []
sys.addaudithook(lambda event, _: armed and event == "socket.__new__" and 1 / 0)
loop = penstock.new_event_loop()
listener = socket.create_server(("127.0.0.1", 0))
listener.setblocking(False)
client = socket.create_connection(listener.getsockname())
loop.run_until_complete(asyncio.sleep(0))
before = len(os.listdir("/proc/self/fd"))
armed.append(1)
try:
    loop.run_until_complete(loop.sock_accept(listener))
except ZeroDivisionError:
    print(len(os.listdir("/proc/self/fd")) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "0"


async def test_a_socket_that_is_used_otherwise_wakes_the_loop_no_more(loop, run, pair):
    one, other = pair
    await received(loop, one, other)
    assert registered(one.fileno())
    for _ in range(20):
        other.send(b"x")
        await asyncio.sleep(0.001)  # a wait of the loop, which sees the event
        one.recv(10)
    assert not registered(one.fileno())
    await received(loop, one, other)
