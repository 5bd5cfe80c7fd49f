"""The feed of asyncio's StreamReader runs no Python code."""

import asyncio
import socket
import sys

import pytest


@pytest.mark.parametrize("size", [1000, 200_000])
async def test_data_reaches_a_reader_without_a_python_frame(size):
    ours, peer = socket.socketpair()
    called = []

    def profile(frame, event, _):
        if event == "call":
            called.append(frame.f_code.co_name)

    reader, writer = await asyncio.open_connection(sock=ours)
    peer.setblocking(True)
    reading = asyncio.ensure_future(reader.readexactly(2 * size))
    sending = asyncio.ensure_future(asyncio.to_thread(peer.sendall, bytes(2 * size)))
    sys.setprofile(profile)
    try:
        await reading
    finally:
        sys.setprofile(None)
    await sending
    assert "readexactly" in called
    assert {"data_received", "_stream_reader", "feed_data", "_wakeup_waiter"}.isdisjoint(called)
    writer.close()
    peer.close()


def test_a_loop_makes_the_futures_of_asyncio(loop, monkeypatch):
    class Other(asyncio.Future):
        pass

    assert type(loop.create_future()) is asyncio.Future
    assert loop.create_future().get_loop() is loop
    monkeypatch.setattr("asyncio.futures.Future", Other)
    assert type(loop.create_future()) is Other
    loop.close()
    assert loop.create_future().get_loop() is loop
