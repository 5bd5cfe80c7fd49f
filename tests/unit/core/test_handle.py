"""Handles: arguments, references, identity."""

import asyncio
import gc
import os
import sys
import weakref

import pytest

from penstock._core.events.handle import Handle


class Thing:
    def __call__(self, *args: object) -> None:
        pass


@pytest.mark.parametrize("count", range(7))
def test_every_number_of_arguments_arrives(loop, count: int) -> None:
    seen = []
    loop.call_soon(lambda *args: seen.append(args), *range(count))
    loop.stop()
    loop.run_forever()
    assert seen == [tuple(range(count))]


@pytest.mark.parametrize("count", range(7))
def test_cancel_drops_callback_and_arguments(loop, count: int) -> None:
    things = [Thing() for _ in range(count + 1)]
    dead = [weakref.ref(thing) for thing in things]
    handle = loop.call_soon(*things)
    things.clear()
    handle.cancel()
    gc.collect()
    assert handle.cancelled()
    assert [ref() for ref in dead] == [None] * (count + 1)


def test_a_handle_is_asyncios_and_can_be_weakly_held(loop) -> None:
    handle = loop.call_soon(print)
    assert isinstance(handle, asyncio.Handle)
    assert weakref.ref(handle)() is handle
    assert "print" in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle)


def test_ten_thousand_callbacks_give_their_references_back(loop) -> None:
    callback, argument = Thing(), object()
    start = sys.getrefcount(callback), sys.getrefcount(argument)
    for _ in range(10_000):
        loop.call_soon(callback, argument)
        loop.call_later(3600, callback, argument).cancel()
    loop.stop()
    loop.run_forever()
    assert (sys.getrefcount(callback), sys.getrefcount(argument)) == start


def test_connections_give_their_descriptors_back(loop) -> None:
    async def connect(count: int) -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        for _ in range(count):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await reader.read()
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(connect(5))
    start = len(os.listdir("/proc/self/fd"))
    loop.run_until_complete(connect(200))
    assert len(os.listdir("/proc/self/fd")) == start


def spare_handles() -> int:
    """The handles that exist; of a loop at rest, those of the pool."""
    return sum(type(thing) is Handle for thing in gc.get_objects())


def test_the_handles_of_a_burst_are_kept_for_the_next_and_given_back_wait_by_wait(loop) -> None:
    gc.unfreeze()
    for _ in range(20_000):
        loop.call_soon(int)
    loop.run_until_complete(asyncio.sleep(0))
    burst = spare_handles()
    assert burst >= 20_000
    waits = 0
    while spare_handles() > 5000:  # which passes all objects of the process
        for _ in range(10):
            loop.run_until_complete(asyncio.sleep(1e-3))
        waits += 10
    assert 10 < waits < 300
