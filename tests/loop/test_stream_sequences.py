"""Random sequences of writes and ends, over TCP, Unix and TLS: every byte arrives, in order, and the end after them."""

import asyncio
import os
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.loop import NATIVE, EventLoop

from .wire import Recorder, socket_pair, wired

SIZES = st.one_of(st.integers(0, 300), st.integers(0, 90_000))
# A write of one buffer of a kind, several at once, or a turn of the loop between two writes.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["bytes", "bytearray", "view", "cast", "strided"]), SIZES),
        st.tuples(st.just("lines"), st.lists(SIZES, max_size=5)),
        st.tuples(st.just("turn"), st.just(0)),
    ),
    max_size=12,
)
TIMEOUT_S = 20.0


def buffer(kind, size, is_ours):
    """A buffer to write, and the bytes that it stands for."""
    data = os.urandom(size)
    if kind in ("bytes", "lines"):
        return data, data
    if kind == "bytearray":
        return bytearray(data), data
    if kind == "cast" and is_ours:
        # asyncio counts its items for bytes when the kernel does not take it whole
        data = data[: size // 4 * 4]
        return memoryview(data).cast("I"), data
    if kind == "strided" and is_ours:
        # asyncio ends the connection
        return memoryview(data)[::3], data[::3]
    return memoryview(data), data


async def write_steps(writer, steps, is_ours):
    """Everything that was written."""
    written = []
    for kind, sizes in steps:
        if kind == "turn":
            await asyncio.sleep(0)
        elif kind == "lines":
            pairs = [buffer(kind, size, is_ours) for size in sizes]
            writer.writelines([each for each, _ in pairs])
            written.extend(data for _, data in pairs)
        else:
            given_buffer, data = buffer(kind, sizes, is_ours)
            writer.write(given_buffer)
            written.append(data)
            if is_ours and isinstance(given_buffer, bytearray):
                given_buffer[:] = bytes(len(given_buffer))  # free again; asyncio from 3.12 on keeps it
    return b"".join(written)


async def exchange(kind, steps, end, contexts, is_ours):
    ours, theirs = socket_pair("unix" if kind == "unix" else "tcp")
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    loop = asyncio.get_running_loop()
    server_side = client_side = {}
    if kind == "tls":
        server_side, client_side = {"ssl": contexts[0]}, {"ssl": contexts[1], "server_hostname": "localhost"}
    reader = asyncio.StreamReader()
    accepted = loop.connect_accepted_socket(lambda: asyncio.StreamReaderProtocol(reader), theirs, **server_side)
    (_, writer), (transport, _) = await asyncio.gather(asyncio.open_connection(sock=ours, **client_side), accepted)
    reading = asyncio.ensure_future(reader.read())
    written = await write_steps(writer, steps, is_ours)
    getattr(writer, "close" if end == "close" else "write_eof")()
    received = await reading
    assert reader.at_eof()
    transport.close()
    writer.close()
    return received, written


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
@settings(derandomize=True, max_examples=15, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, end=st.sampled_from(["close", "write_eof"]))
def test_every_byte_of_a_random_sequence_arrives_before_its_end(loop_factory, contexts, kind, steps, end):
    if kind == "tls" and end == "write_eof":
        end = "close"  # TLS has no half-close
    # with TLS asyncio's code takes the buffers
    is_ours = NATIVE and loop_factory is EventLoop and kind != "tls"
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        received, written = runner.run(asyncio.wait_for(exchange(kind, steps, end, contexts, is_ours), TIMEOUT_S))
    assert received == written


async def test_the_end_of_a_stream_follows_its_last_bytes(family):
    """Bytes and a FIN that come together are two events, in this order; no byte of a later turn overtakes it."""

    async with wired(Recorder(keep_open=True), family) as (_, protocol, peer):
        for size in (1, 70_000):
            peer.setblocking(True)
            await asyncio.to_thread(peer.sendall, bytes(size))
        peer.shutdown(socket.SHUT_WR)
        await protocol.until_event("eof")
        assert (len(protocol.data), protocol.events) == (70_001, ["made", "data", "eof"])
