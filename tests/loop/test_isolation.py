"""Loops apart: after a fork, in threads, opened and closed in numbers; whatever was taken is given back."""

import asyncio
import gc
import os
import resource
import socket
import sys
import threading
import warnings

import pytest

from penstock.loop import NATIVE
from penstock.loop.servers import connection_count

from .conftest import TIMEOUT_S
from .wire import Recorder, close_server, read_exactly, settle, socket_pair, wired


def in_child(work):
    """Fork; run `work` in the child; its exit status, 0 if `work` did not raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12+ warns of threads that other tests left
        child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def echo_once(loop):
    async with wired() as (transport, protocol, peer):
        peer.send(b"ping")
        await protocol.until_bytes(4)
        transport.write(b"pong")
        assert await read_exactly(peer, 4) == b"pong"


def test_a_forked_child_runs_a_loop_of_its_own(loop, run, loop_factory):
    run(echo_once(loop))

    def work():
        own = loop_factory()
        own.run_until_complete(echo_once(own))
        own.close()

    assert in_child(work) == 0
    run(echo_once(loop))


async def test_a_child_forked_inside_a_running_loop_runs_its_own(loop, loop_factory):
    def work():
        own = loop_factory()
        own.run_until_complete(echo_once(own))
        own.close()

    assert in_child(work) == 0
    await echo_once(loop)


def test_closing_the_inherited_loop_in_the_child_does_not_disturb_the_connections_of_the_parent(loop, run):
    async def connect():
        ours, peer = socket_pair()
        transport, protocol = await loop.connect_accepted_socket(Recorder, ours)
        await settle()
        return transport, protocol, peer

    async def use(transport, protocol, peer):
        peer.send(b"data")
        await protocol.until_bytes(4)
        transport.write(b"answer")
        assert await read_exactly(peer, 6) == b"answer"
        transport.close()
        await protocol.until_event("lost")
        peer.close()

    connected = run(connect())
    assert in_child(loop.close) == 0
    run(use(*connected))


def test_closing_the_inherited_loop_in_the_child_leaves_the_waker_of_the_parent(loop, run, loop_factory):
    if loop_factory is asyncio.SelectorEventLoop or not NATIVE:
        pytest.skip("asyncio's child takes the self-pipe out of the epoll instance that it shares with its parent")
    assert in_child(loop.close) == 0
    timer = threading.Timer(0.01, loop.call_soon_threadsafe, [loop.stop])
    timer.start()
    loop.run_forever()
    timer.join()


def test_asyncio_run_works_in_a_child_of_a_running_loop(loop, run, loop_factory):
    async def main():
        def work():
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(asyncio.sleep(0))

        return in_child(work)

    assert run(main()) == 0


def test_loops_in_threads_serve_at_the_same_time(loop_factory):
    errors = []
    together = threading.Barrier(4)

    def work():
        try:
            own = loop_factory()
            together.wait(TIMEOUT_S)
            for _ in range(20):
                own.run_until_complete(echo_once(own))
            own.close()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_loop_can_be_made_in_one_thread_and_run_in_another(loop_factory):
    loop = loop_factory()
    thread = threading.Thread(target=loop.run_until_complete, args=(echo_once(loop),))
    thread.start()
    thread.join()
    loop.run_until_complete(echo_once(loop))
    loop.close()


def open_fds():
    return len(os.listdir("/proc/self/fd"))


def test_a_closed_loop_gives_its_descriptors_back(loop_factory):
    def use():
        loop = loop_factory()
        loop.run_until_complete(echo_once(loop))
        loop.close()

    use()
    before = open_fds()
    for _ in range(20):
        use()
    gc.collect()
    assert open_fds() == before


def test_a_closed_loop_is_collected(loop_factory):
    import weakref

    loop = loop_factory()
    loop.run_until_complete(echo_once(loop))
    loop.close()
    reference = weakref.ref(loop)
    del loop
    gc.collect()
    assert reference() is None


def test_an_unclosed_loop_warns_when_it_is_collected(loop_factory):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop_factory()
        gc.collect()
    assert any("unclosed event loop" in str(warning.message) for warning in caught)


def resident_bytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def open_and_close(loop, address, count, at_once=100):
    for _ in range(count // at_once):
        clients = [(await loop.create_connection(Recorder, *address))[1] for _ in range(at_once)]
        for client in clients:
            client.transport.write(b"hello")
        for client in clients:
            await client.until_bytes(5)
            client.transport.close()
        for client in clients:
            await client.until_event("lost")


async def all_lost(server):
    """Wait until the server's side of every connection has ended, too."""
    while connection_count(server):
        await asyncio.sleep(0.001)
    await settle(10)


# Without the native loop only mixins are ours: what they keep of each shows in fewer.
TENTHS = 10 if NATIVE else 2


@pytest.mark.large
def test_ten_thousand_connections_leave_nothing_behind(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=200)
        address = server.sockets[0].getsockname()
        await open_and_close(loop, address, 1000)
        await all_lost(server)
        gc.collect()
        before = open_fds(), len(gc.get_objects()), resident_bytes()
        await open_and_close(loop, address, TENTHS * 1000)
        await all_lost(server)
        gc.collect()
        after = open_fds(), len(gc.get_objects()), resident_bytes()
        await close_server(server)
        return before, after

    before, after = loop.run_until_complete(main())
    assert after[0] == before[0], "file descriptors"
    assert after[1] - before[1] < 500, "objects the collector knows"
    assert after[2] - before[2] < 4_000_000, "resident bytes"


@pytest.mark.large
def test_a_hundred_thousand_handles_and_timers_leave_no_memory_behind(loop, turn):
    def burst():
        for _number in range(TENTHS * 5000):
            loop.call_soon(int)
            loop.call_later(3600, int).cancel()
        turn()
        turn()

    for _ in range(3):
        burst()
    gc.collect()
    before = resident_bytes()
    for _ in range(6):
        burst()
    gc.collect()
    assert resident_bytes() - before < 8_000_000


def leave_a_transport_open(loop_factory, warning):
    """Close a loop that has an open transport, and collect both; return the peer's socket."""
    one, other = socket.socketpair()
    one.setblocking(False)
    loop = loop_factory()
    transport, _ = loop.run_until_complete(loop.connect_accepted_socket(asyncio.Protocol, one))
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter(warning, ResourceWarning)
        del transport, one
        gc.collect()
    return other


def test_closing_a_loop_with_open_connections_is_survived(loop_factory):
    leave_a_transport_open(loop_factory, "ignore").close()


def test_where_warnings_are_errors_an_unclosed_transport_leaves_no_descriptor_and_writes_nothing(
    loop_factory, monkeypatch, capfd
):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
    other = leave_a_transport_open(loop_factory, "error")
    assert ResourceWarning in told
    other.settimeout(20)
    assert other.recv(1) == b""
    other.close()
    assert capfd.readouterr().err == ""
