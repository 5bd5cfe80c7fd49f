"""Programs of asyncio's documentation: they do the same on the virtual loop, under every seed."""

import asyncio
import functools
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from penstock.testing import VirtualLoop
from tests.support.loops import Factory, run_on

LOOPS: dict[str, Factory] = {
    "asyncio": asyncio.SelectorEventLoop,
    "virtual": VirtualLoop,
    **{f"seed {seed}": lambda seed=seed: VirtualLoop(seed) for seed in range(4)},  # type: ignore[misc]
}
MEGABYTE = bytes(range(256)) * 4096


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    return functools.partial(run_on, LOOPS[request.param])


Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_gather_keeps_the_order_of_its_arguments(run: Run) -> None:
    async def answer(number: int) -> int:
        await asyncio.sleep(0.01 / (number + 1))
        return number

    async def main() -> list[int]:
        return await asyncio.gather(*(answer(number) for number in range(10)))

    assert run(main()) == list(range(10))


def test_wait_for_and_timeouts_end_what_takes_too_long(run: Run) -> None:
    async def main() -> list[str]:
        seen = []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(60), 0.01)
        try:
            async with asyncio.timeout(0.01):
                try:
                    await asyncio.sleep(60)
                finally:
                    seen.append("inner")
        except TimeoutError:
            seen.append("outer")
        assert await asyncio.wait_for(asyncio.sleep(0.001, "done"), 60) == "done"
        return seen

    assert run(main()) == ["inner", "outer"]


def test_a_task_group_cancels_the_rest_when_one_fails(run: Run) -> None:
    async def main() -> int:
        cancelled = 0

        async def sleeper() -> None:
            nonlocal cancelled
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled += 1
                raise

        async def failing() -> None:
            await asyncio.sleep(0.01)
            raise ValueError

        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                for _ in range(5):
                    group.create_task(sleeper())
                group.create_task(failing())
        return cancelled

    assert run(main()) == 5


def test_a_lock_lets_one_in_and_a_queue_loses_nothing(run: Run) -> None:
    async def main() -> list[int]:
        lock, queue, inside = asyncio.Lock(), asyncio.Queue[int](3), 0
        got: list[int] = []

        async def producer(base: int) -> None:
            for item in range(20):
                await queue.put(base + item)

        async def consumer() -> None:
            nonlocal inside
            while True:
                item = await queue.get()
                async with lock:
                    inside += 1
                    assert inside == 1
                    await asyncio.sleep(0)
                    inside -= 1
                    got.append(item)
                queue.task_done()

        consumers = [asyncio.create_task(consumer()) for _ in range(3)]
        await asyncio.gather(*(producer(base) for base in (0, 100, 200)))
        await queue.join()
        for task in consumers:
            task.cancel()
        await asyncio.gather(*consumers, return_exceptions=True)
        return got

    assert sorted(run(main())) == [base + item for base in (0, 100, 200) for item in range(20)]


def test_conditions_events_barriers_and_semaphores_wake_whom_they_should(run: Run) -> None:
    async def main() -> int:
        condition, event, semaphore = asyncio.Condition(), asyncio.Event(), asyncio.Semaphore(2)
        barrier, woken = asyncio.Barrier(6), 0

        async def worker() -> None:
            nonlocal woken
            async with semaphore:
                await asyncio.sleep(0.001)
            await barrier.wait()
            async with condition:
                await condition.wait_for(event.is_set)
                woken += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(worker())
            await barrier.wait()
            event.set()
            async with condition:
                condition.notify_all()
        return woken

    assert run(main()) == 5


def test_generators_are_closed_and_context_is_kept(run: Run) -> None:
    closed = []

    async def numbers() -> Any:
        try:
            for number in range(100):
                await asyncio.sleep(0)
                yield number
        finally:
            closed.append(True)

    async def main() -> int:
        async for number in numbers():
            if number == 3:
                break
        return number

    assert run(main()) == 3
    assert closed == [True]


async def test_streams_echo_a_megabyte_both_ways() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert writer.get_extra_info("peername") == ("127.0.0.1", port)

    async def send() -> None:
        for at in range(0, len(MEGABYTE), 10_000):
            writer.write(MEGABYTE[at : at + 10_000])
            await writer.drain()
        writer.write_eof()

    _, received = await asyncio.gather(send(), reader.read())
    assert received == MEGABYTE
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


def test_a_protocol_lives_its_life_in_asyncios_order(run: Run) -> None:
    events: list[str] = []

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            events.append("made")
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            events.append(data.decode())
            self.transport.write(b"answer")

        def eof_received(self) -> bool:
            events.append("eof")
            return False

        def connection_lost(self, exc: Exception | None) -> None:
            events.append(f"lost {exc}")

    async def main() -> bytes:
        server = await asyncio.get_running_loop().create_server(Server, "localhost", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(b"question")
        answer = await reader.readexactly(6)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return answer

    assert run(main()) == b"answer"
    assert events == ["made", "question", "eof", "lost None"]


def test_a_writer_is_paused_by_a_reader_that_pauses_and_goes_on_when_it_reads(run: Run) -> None:
    class Slow(asyncio.Protocol):
        received = 0

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport
            transport.pause_reading()
            accepted.set_result(self)

        def data_received(self, data: bytes) -> None:
            self.received += len(data)

        def connection_lost(self, exc: Exception | None) -> None:
            gone.set_result(self.received)

    async def main() -> tuple[int, int]:
        nonlocal accepted, gone
        loop = asyncio.get_running_loop()
        accepted, gone = loop.create_future(), loop.create_future()
        server = await loop.create_server(Slow, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        sent = 0
        with pytest.raises(TimeoutError):
            while True:
                writer.write(MEGABYTE)
                sent += len(MEGABYTE)
                await asyncio.wait_for(writer.drain(), 0.05)
        slow = await accepted
        assert slow.received == 0
        slow.transport.resume_reading()
        await writer.drain()
        writer.close()
        received = await gone
        server.close()
        await server.wait_closed()
        return sent, received

    accepted: Any = None
    gone: Any = None
    sent, received = run(main())
    assert sent == received


def test_sendfile_sends_a_file(run: Run) -> None:
    async def main() -> bytes:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with tempfile.TemporaryFile() as file:
                file.write(MEGABYTE[:300_000])
                file.seek(0)
                await asyncio.get_running_loop().sendfile(writer.transport, file)
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        received = await reader.read()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return received

    assert run(main()) == MEGABYTE[:300_000]


def test_serve_forever_ends_by_cancellation_and_closes(run: Run) -> None:
    async def main() -> bool:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        task = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0.001)
        assert server.is_serving()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return server.is_serving() or bool(server.sockets)

    assert run(main()) is False


def test_debug_mode_works(run: Run) -> None:
    async def main() -> str:
        asyncio.get_running_loop().set_debug(True)
        return await asyncio.wait_for(asyncio.to_thread(str, 5), 1)

    assert run(main()) == "5"
