"""Edge cases that stress runs found: a destructor that runs code, a faster peer, a dropped loop."""

import asyncio
import contextvars
import gc
import socket
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from penstock.loop import EventLoop

from .wire import Recorder

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def test_a_destructor_that_sets_a_timer_while_timers_fire_loses_none(loop: asyncio.AbstractEventLoop) -> None:
    fired: list[str] = []
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")

    class SetsTimer:
        def __del__(self) -> None:
            loop.call_at(0, fired.append, "set by the destructor")

    def cancelled_timer_that_owns(value: object) -> None:
        context = contextvars.Context()
        context.run(variable.set, value)
        loop.call_at(loop.time() - 2, fired.append, "cancelled", context=context).cancel()

    loop.call_at(loop.time() - 3, fired.append, "first")
    cancelled_timer_that_owns(SetsTimer())
    loop.call_at(loop.time() - 1, fired.append, "last")
    gc.collect()
    loop.call_later(0, loop.stop)
    loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert sorted(fired) == ["first", "last", "set by the destructor"]


def test_a_loop_dropped_unclosed_is_collected(loop_factory: LoopFactory) -> None:
    # handles come from a pool: one that an earlier test has used is frozen with that test's survivors
    gc.unfreeze()
    loop = loop_factory()
    loop.call_later(1000, print)
    loop.call_soon(print)
    loop.call_soon_threadsafe(print)
    gone = weakref.ref(loop)
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        gc.collect()
    # the recorded warning held it
    gc.collect()
    assert gone() is None


def test_a_peer_gone_before_the_half_close_does_not_end_the_loop(loop: asyncio.AbstractEventLoop) -> None:
    loop.set_exception_handler(lambda *_: None)  # asyncio's transport reports the failed shutdown there

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            ours = socket.create_connection(listening.getsockname())
            theirs, _ = listening.accept()
        ours.setblocking(False)
        transport, _ = await loop.create_connection(Recorder, sock=ours)
        transport.pause_reading()
        while not transport.get_write_buffer_size():
            transport.write(bytes(30_000))
            await asyncio.sleep(0)
        transport.write_eof()
        theirs.settimeout(0.02)
        with pytest.raises(TimeoutError):
            while theirs.recv(1 << 20):
                pass
        theirs.close()
        for _ in range(10):
            await asyncio.sleep(0)
        transport.abort()
        await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_a_wrong_item_in_writelines_is_an_error_and_the_stream_goes_on(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        with pytest.raises(TypeError):
            transport.writelines([b"a", 1])  # type: ignore[list-item]
        transport.write(b"b")
        await asyncio.sleep(0)
        received = theirs.recv(100)
        theirs.close()
        transport.close()
        await protocol.until_event("lost")
        return received

    if sys.version_info >= (3, 15) and not isinstance(loop, EventLoop):
        pytest.skip("3.15's own transport keeps what stood before the wrong item and never sends again")
    assert loop.run_until_complete(main()) == b"b"


def test_a_buffered_protocol_may_resize_its_buffer_at_eof(loop: asyncio.AbstractEventLoop) -> None:
    class Shrinks(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(100)
            self.lost = loop.create_future()

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def eof_received(self) -> None:
            del self.buffer[50:]

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(exc)

    async def main() -> tuple[object, int]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        _, protocol = await loop.create_connection(Shrinks, sock=ours)
        theirs.close()
        return await protocol.lost, len(protocol.buffer)

    assert loop.run_until_complete(main()) == (None, 50)
