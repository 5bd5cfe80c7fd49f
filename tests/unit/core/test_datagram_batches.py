"""Batches of datagrams: how many a turn brings, what waits for a callback's end, and what ends that wait earlier."""

import asyncio
import contextvars
import gc
import shutil
import signal
import socket
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

import penstock
from penstock._core.limits.budget import Budget
from tests.loop.test_datagrams import LOST, Endpoint, drained, opened, pattern

BATCH = 64
TOO_LARGE = 70_000


@pytest.fixture
def peer():
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        yield sock


def arrived(peer):
    return [data for data, _ in drained(peer)]


def test_a_turn_delivers_a_batch_and_lets_others_run_between_batches(loop, run, peer):
    turns = []

    async def main():
        endpoint = await opened(then=lambda transport, data: turns.append(counted[0]))
        sock = endpoint.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        counted = [0]

        def count():
            counted[0] += 1
            if len(turns) < 3 * BATCH:
                loop.call_soon(count)

        for number in range(3 * BATCH):
            peer.sendto(b"%d" % number, sock.getsockname())
        loop.call_soon(count)
        await endpoint.until_count(3 * BATCH)
        await endpoint.close()

    run(main())
    assert sorted(turns.count(turn) for turn in set(turns)) == [BATCH, BATCH, BATCH]


def test_large_datagrams_are_asked_for_in_smaller_batches(loop, run, peer):
    sizes = []

    async def main():
        loop._native_core.configure(
            poll_every_turns=64,
            poll_every_us=100,
            spin_us=0,
            timer_slack_us=500,
            read_budget_bytes=100_000,
            accept_batch=128,
        )
        endpoint = await opened(then=lambda transport, data: sizes.append(len(data)))
        sock = endpoint.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        for _ in range(2):
            for _ in range(6):
                peer.sendto(pattern(30_000), sock.getsockname())
            await endpoint.until_count(6)
        await endpoint.close()

    run(main())
    assert set(sizes) == {30_000}


def test_the_first_datagram_of_a_callback_leaves_at_once_and_the_others_at_its_end(loop, run, peer):
    seen = []

    async def main():
        endpoint = await opened(peer)
        for number in range(4):
            endpoint.transport.sendto(b"%d" % number)
        seen.append(arrived(peer))
        await asyncio.sleep(0)
        seen.append(arrived(peer))
        endpoint.transport.sendto(b"4")
        seen.append(arrived(peer))
        await endpoint.close()

    run(main())
    assert seen == [[b"0"], [b"1", b"2", b"3"], [b"4"]]


def test_large_datagrams_and_a_full_batch_do_not_wait(loop, run, peer):
    async def main():
        endpoint = await opened(peer)
        for size in (1, 2, 20_000):
            endpoint.transport.sendto(bytes(size))
        assert [len(data) for data in arrived(peer)] == [1, 2, 20_000]
        await asyncio.sleep(0)
        for _ in range(BATCH + 2):
            endpoint.transport.sendto(b"data")
        assert len(arrived(peer)) == BATCH + 1
        await endpoint.close()

    run(main())
    assert len(arrived(peer)) == 1


@pytest.mark.parametrize(
    "look",
    [
        lambda transport: transport.get_write_buffer_size(),
        lambda transport: transport.get_extra_info("socket"),
        lambda transport: transport.set_write_buffer_limits(),
        lambda transport: transport.close(),
        lambda transport: transport.abort(),
    ],
)
def test_what_could_show_lose_or_overtake_a_waiting_datagram_sends_it_before(loop, run, peer, look):
    async def main():
        endpoint = await opened(peer)
        for number in range(3):
            endpoint.transport.sendto(b"%d" % number)
        look(endpoint.transport)
        assert arrived(peer) == [b"0", b"1", b"2"]
        endpoint.transport.close()
        await endpoint.until_event(LOST)

    run(main())


def test_an_error_of_a_waiting_datagram_is_received_and_the_others_are_sent(loop, run, tmp_path):
    """Each in the context of the endpoint, when the callback has ended."""
    variable = contextvars.ContextVar("variable", default="")
    contexts = []

    async def main():
        variable.set("endpoint")
        _, endpoint = await loop.create_datagram_endpoint(
            Endpoint, local_addr=str(tmp_path / "own"), family=socket.AF_UNIX
        )
        variable.set("sender")
        endpoint.error_received = lambda exc: contexts.append((type(exc), variable.get()))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.bind(str(tmp_path / "peer"))
            peer.setblocking(False)
            for number, name in enumerate(["peer", "nothing", "peer", "nothing", "peer"]):
                endpoint.transport.sendto(b"%d" % number, str(tmp_path / name))
            assert contexts == []
            await asyncio.sleep(0)
            assert arrived(peer) == [b"0", b"2", b"4"]
        await endpoint.close()

    run(main())
    assert contexts == [(FileNotFoundError, "endpoint")] * 2


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_an_exception_of_error_received_at_a_callbacks_end_loses_no_datagram(loop, run, tmp_path, kind):
    problems, received = [], []
    loop.set_exception_handler(lambda _, context: problems.append(context["message"]))
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    peer.bind(str(tmp_path / "peer"))
    peer.setblocking(False)

    def fail(exc):
        raise kind

    async def main():
        _, endpoint = await loop.create_datagram_endpoint(
            Endpoint, local_addr=str(tmp_path / "own"), family=socket.AF_UNIX
        )
        endpoint.error_received = fail
        for name in ["peer", "nothing", "peer"]:
            endpoint.transport.sendto(b"data", str(tmp_path / name))
        return endpoint

    with peer:
        if kind is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                run(main())
        else:
            run(main())
            assert problems == ["protocol.error_received() failed"]
        while len(received) < 2:
            loop.run_until_complete(asyncio.sleep(0))
            received += arrived(peer)
        for source in loop._native_core.sources().values():
            if isinstance(source, asyncio.DatagramTransport):
                source.close()
        loop.run_until_complete(asyncio.sleep(0))
    assert received == [b"data", b"data"]


def test_an_error_received_at_a_callbacks_end_may_abort_and_what_was_sent_leaves(loop, run, tmp_path):
    async def main():
        _, endpoint = await loop.create_datagram_endpoint(
            Endpoint, local_addr=str(tmp_path / "own"), family=socket.AF_UNIX
        )
        endpoint.error_received = lambda exc: endpoint.transport.abort()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.bind(str(tmp_path / "peer"))
            peer.setblocking(False)
            for name in ["peer", "nothing", "peer"]:
                endpoint.transport.sendto(b"data", str(tmp_path / name))
            await endpoint.until_event(LOST)
            assert arrived(peer) == [b"data", b"data"]  # as on asyncio, where they have left before

    run(main())


def test_a_signal_handlers_datagrams_leave_before_the_loop_sleeps(loop, run, peer):
    async def main():
        endpoint = await opened(peer)

        def send(*args):
            for number in range(3):
                endpoint.transport.sendto(b"%d" % number)

        former = signal.signal(signal.SIGALRM, send)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            for _ in range(3):
                await loop.sock_recv(peer, 10)
        finally:
            signal.signal(signal.SIGALRM, former)
        await endpoint.close()

    run(main())


def test_waiting_datagrams_count_in_the_budget_of_bytes(loop, run, tmp_path):
    budget = Budget()
    loop._native_core.limit_connections(budget, None)

    async def main():
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        peer.bind(str(tmp_path / "peer"))
        peer.setblocking(False)
        _, endpoint = await loop.create_datagram_endpoint(
            Endpoint, remote_addr=str(tmp_path / "peer"), family=socket.AF_UNIX
        )
        with peer:
            while endpoint.transport.get_write_buffer_size() < 5000:
                endpoint.transport.sendto(bytes(1000))
            assert budget.total == endpoint.transport.get_write_buffer_size()
            budget.set_marks(1000)
            endpoint.transport.sendto(bytes(1000))
            await endpoint.until_event("pause")
            while endpoint.transport.get_write_buffer_size():
                arrived(peer)
                await asyncio.sleep(0)
            await endpoint.until_event("resume")
            assert budget.total == 0
            while endpoint.transport.get_write_buffer_size() < 2000:
                endpoint.transport.sendto(bytes(100))
            endpoint.transport.abort()
            await endpoint.until_event(LOST)
            assert budget.total == 0

    run(main())


def test_the_kernel_splits_and_joins_datagrams(loop, run, peer):
    async def main():
        sender = await opened(peer)
        assert penstock.segment_datagrams(sender.transport, 1200)
        sender.transport.sendto(pattern(5000))
        assert arrived(peer) == [pattern(5000)[at : at + 1200] for at in range(0, 5000, 1200)]
        receiver = await opened()
        assert penstock.segment_datagrams(receiver.transport, 1000)
        other = await opened(local_addr=None, remote_addr=receiver.transport.get_extra_info("sockname"))
        assert penstock.segment_datagrams(other.transport, 1200)
        other.transport.sendto(pattern(5000))
        await receiver.until_count(5)
        address = other.transport.get_extra_info("sockname")
        assert receiver.received == [(pattern(5000)[at : at + 1200], address) for at in range(0, 5000, 1200)]
        assert penstock.segment_datagrams(sender.transport, 0)
        sender.transport.sendto(pattern(5000))
        assert arrived(peer) == [pattern(5000)]
        for endpoint in (sender, receiver, other):
            await endpoint.close()

    run(main())


def test_joined_datagrams_that_must_wait_are_held_one_by_one(loop, run, peer):
    async def main():
        receiver = await opened(then=lambda transport, data: transport.pause_reading())
        assert penstock.segment_datagrams(receiver.transport, 1000)
        sender = await opened(local_addr=None, remote_addr=receiver.transport.get_extra_info("sockname"))
        assert penstock.segment_datagrams(sender.transport, 1000)
        for _ in range(2):
            sender.transport.sendto(pattern(3500))
        for count in range(1, 9):
            await receiver.until_count(count)
            assert len(receiver.received) == count
            receiver.transport.resume_reading()
        pieces = [pattern(3500)[at : at + 1000] for at in range(0, 3500, 1000)]
        assert [data for data, _ in receiver.received] == 2 * pieces
        await sender.close()
        await receiver.close()

    run(main())


def test_what_cannot_split_datagrams_says_so(loop, run, peer, tmp_path):
    async def main():
        endpoint = await opened(peer)
        assert not penstock.segment_datagrams(endpoint.transport, 70_000)
        assert not penstock.segment_datagrams(endpoint.transport, -1)
        await endpoint.close()
        assert not penstock.segment_datagrams(endpoint.transport, 1000)
        _, unix = await loop.create_datagram_endpoint(Endpoint, local_addr=str(tmp_path / "own"), family=socket.AF_UNIX)
        assert not penstock.segment_datagrams(unix.transport, 1000)
        await unix.close()

    run(main())


def test_an_audit_hook_sees_each_datagram(tmp_path):
    program = tmp_path / "audited.py"
    program.write_text("""
import asyncio, socket, sys, penstock
seen = []
sys.addaudithook(lambda event, args: seen.append(args) if event == "socket.sendto" else None)
async def main():
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    for _ in range(3):
        transport.sendto(b"data", transport.get_extra_info("sockname"))
    assert [type(sock) for sock, _ in seen] == [socket.socket] * 3
    assert [name for _, name in seen] == [transport.get_extra_info("sockname")] * 3
    transport.close()
penstock.run(main())
""")
    subprocess.run([sys.executable, str(program)], check=True, timeout=60)


def test_an_endpoint_leaves_nothing_behind(loop, run, peer):
    gone = []

    async def main():
        endpoint = await opened(peer, then=lambda transport, data: transport.sendto(data))
        peer.sendto(b"data", endpoint.transport.get_extra_info("sockname"))
        await endpoint.until_count(1)
        gone.append(weakref.ref(endpoint.transport))
        await endpoint.close()

    run(main())
    gc.collect()
    assert gone[0]() is None


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace counts the system calls")
def test_an_echo_in_bursts_takes_a_fifth_of_a_system_call_for_each_datagram(tmp_path):
    program = tmp_path / "echo.py"
    program.write_text("""
import asyncio, socket, sys, penstock
class Echo(asyncio.DatagramProtocol):
    count = 0
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)
        self.count += 1
        if self.count == 1280:
            done.set_result(None)
async def main():
    global done
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    print(transport.get_extra_info("sockname")[1], flush=True)
    await done
    transport.close()
penstock.run(main())
""")
    counts = tmp_path / "counts"
    command = ["strace", "-f", "-o", str(counts), "-e", "trace=network,epoll_wait,epoll_pwait2,epoll_ctl"]
    with subprocess.Popen([*command, sys.executable, str(program)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        address = "127.0.0.1", int(server.stdout.readline() or 0)
        if not address[1]:
            pytest.skip("strace may not trace here")
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(60)
            client.connect(address)
            for _ in range(20):
                for _ in range(BATCH):
                    client.send(bytes(1024))
                for _ in range(BATCH):
                    client.recv(2048)
        assert server.wait(60) == 0
    names = ("recvmmsg(", "sendmmsg(", "sendto(", "epoll_")
    lines = [line for line in Path(counts).read_text().splitlines() if any(name in line for name in names)]
    # the calls that start the loop are among them; on a busy machine a burst may come in several parts
    assert len(lines) < 1280 * 0.2 + 40
