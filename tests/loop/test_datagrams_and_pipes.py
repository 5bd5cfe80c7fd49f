"""Datagrams, subprocesses and pipes in short, as programs use them."""

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest

from .wire import Recorder, pattern, settle


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self):
        self.inner = Recorder()
        self.received = []
        self.errors = []

    def connection_made(self, transport):
        self.inner.connection_made(transport)

    def datagram_received(self, data, addr):
        self.received.append((data, addr))
        self.inner.wake()

    def error_received(self, exc):
        self.errors.append(exc)
        self.inner.wake()

    def connection_lost(self, exc):
        self.inner.connection_lost(exc)

    async def until_count(self, count):
        await self.inner.until(lambda: len(self.received) >= count)


async def endpoint(loop, **kwargs):
    return await loop.create_datagram_endpoint(Datagrams, **kwargs)


async def test_datagrams_go_and_come_back(loop):
    server, served = await endpoint(loop, local_addr=("127.0.0.1", 0))
    address = server.get_extra_info("sockname")
    client, protocol = await endpoint(loop, remote_addr=address)
    for number in range(50):
        client.sendto(b"%d" % number)
    await served.until_count(50)
    assert [data for data, _ in served.received] == [b"%d" % number for number in range(50)]
    server.sendto(b"answer", served.received[0][1])
    await protocol.until_count(1)
    assert protocol.received == [(b"answer", address)]
    for transport, each in ((server, served), (client, protocol)):
        transport.close()
        await each.inner.until_event("lost")


async def test_an_empty_and_a_large_datagram_arrive(loop):
    server, served = await endpoint(loop, local_addr=("127.0.0.1", 0))
    client, protocol = await endpoint(loop, remote_addr=server.get_extra_info("sockname"))
    client.sendto(pattern(60_000))
    await served.until_count(1)
    assert served.received[0][0] == pattern(60_000)
    server.abort()
    client.abort()
    await served.inner.until_event("lost")
    await protocol.inner.until_event("lost")


def test_a_datagram_to_nobody_is_an_error_received(loop, run):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()

    async def main():
        client, protocol = await endpoint(loop, remote_addr=address)
        client.sendto(b"anyone?")
        await protocol.inner.until(lambda: bool(protocol.errors))
        assert isinstance(protocol.errors[0], ConnectionRefusedError)
        client.close()
        await protocol.inner.until_event("lost")

    run(main())


async def test_a_unix_datagram_endpoint_works(loop, tmp_path):
    path = str(tmp_path / "datagrams")

    server, served = await endpoint(loop, local_addr=path, family=socket.AF_UNIX)
    client, _ = await endpoint(loop, remote_addr=path, family=socket.AF_UNIX)
    client.sendto(b"hello")
    await served.until_count(1)
    assert served.received[0][0] == b"hello"
    server.close()
    client.close()
    await settle()


async def test_a_subprocess_talks_through_its_pipes():
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data[::-1]); sys.exit(7)",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    out, _ = await child.communicate(pattern(300_000))
    assert out == pattern(300_000)[::-1]
    assert child.returncode == 7


async def test_a_shell_command_runs():
    child = await asyncio.create_subprocess_shell("echo out; echo err >&2", stdout=-1, stderr=-1)
    assert await child.communicate() == (b"out\n", b"err\n")
    assert await child.wait() == 0


async def test_a_subprocess_can_be_ended_by_a_signal():
    child = await asyncio.create_subprocess_exec("sleep", "60")
    child.terminate()
    assert await child.wait() == -signal.SIGTERM


async def test_many_subprocesses_at_once_all_end():
    children = await asyncio.gather(*(asyncio.create_subprocess_shell(f"exit {code}") for code in range(8)))
    assert await asyncio.gather(*(child.wait() for child in children)) == list(range(8))


async def test_a_missing_program_raises():
    with pytest.raises(FileNotFoundError):
        await asyncio.create_subprocess_exec("/no/such/program")


@pytest.mark.parametrize("size", [1, 65_536, 1_000_003])
async def test_a_pipe_carries_every_byte(loop, size):
    read_end, write_end = os.pipe()
    reader = os.fdopen(read_end, "rb", 0)
    writer = os.fdopen(write_end, "wb", 0)
    _, receiver = await loop.connect_read_pipe(Recorder, reader)
    transport, sender = await loop.connect_write_pipe(Recorder, writer)
    transport.write(pattern(size))
    transport.close()
    await receiver.until_event("lost")
    await sender.until_event("lost")
    assert receiver.data == pattern(size)


async def test_a_paused_pipe_delivers_after_resume(loop):
    read_end, write_end = os.pipe()
    transport, receiver = await loop.connect_read_pipe(Recorder, os.fdopen(read_end, "rb", 0))
    transport.pause_reading()
    os.write(write_end, b"data")
    await settle(10)
    assert receiver.data == b""
    transport.resume_reading()
    await receiver.until_bytes(4)
    os.close(write_end)
    await receiver.until_event("lost")


async def test_a_write_pipe_notices_that_its_reader_is_gone(loop):
    read_end, write_end = os.pipe()
    transport, sender = await loop.connect_write_pipe(Recorder, os.fdopen(write_end, "wb", 0))
    os.close(read_end)
    await sender.until_event("lost")
    assert transport.is_closing()
