"""The object at the end of an await chain, by kind."""

import asyncio
import math
import socket
import time

import pytest

import penstock
from penstock.pressure import CapacityLimiter, Channel, Gate, Queue, Semaphore
from penstock.tasks.awaits.awaited import register_awaited
from penstock.tasks.awaits.chain import await_chain
from tests.unit.tasks.graph.conftest import settle


def awaited(loop, start, coroutine):
    task = start(coroutine)
    settle(loop)
    return await_chain(task).awaited


async def held_lock(lock):
    await lock.acquire()
    async with lock:
        pass


def test_a_lock_is_named_with_its_state(loop, start):
    lock = asyncio.Lock()
    found = awaited(loop, start, held_lock(lock))
    assert (found.kind, found.text) == ("lock", f"lock {id(lock):#x} (held)")


def test_a_queue_is_named_from_either_end(loop, start):
    queue = asyncio.Queue(3)
    assert awaited(loop, start, queue.get()).text == f"queue {id(queue):#x} (empty, maxsize 3)"
    full = asyncio.Queue(1)
    full.put_nowait(1)
    assert awaited(loop, start, full.put(2)).text == f"queue {id(full):#x} (full, maxsize 1)"
    assert awaited(loop, start, full.join()).text == f"queue {id(full):#x} (join, 1 unfinished)"
    assert awaited(loop, start, full.join()).kind == "queue"


def test_semaphore_event_and_condition_have_their_own_kinds(loop, start):
    condition = asyncio.Condition()

    async def notified():
        async with condition:
            await condition.wait_for(lambda: False)

    assert awaited(loop, start, asyncio.Semaphore(0).acquire()).kind == "semaphore"
    assert awaited(loop, start, asyncio.Event().wait()).kind == "event"
    assert awaited(loop, start, notified()).kind == "condition"


def test_penstocks_own_primitives_describe_themselves(loop, start):
    semaphore, limiter, queue, channel = Semaphore(0), CapacityLimiter(0), Queue(1), Channel(1)
    queue.put_nowait(1)
    channel.try_send(1)

    async def inside(awaitable):
        async with awaitable:
            pass

    async def each():
        async for _ in Channel(1):
            pass

    for coroutine, kind, state in (
        (semaphore.acquire(), "semaphore", "0 left"),
        (inside(semaphore), "semaphore", "0 left"),
        (inside(limiter), "limiter", "0/0 borrowed"),
        (limiter.acquire_on_behalf_of("me"), "limiter", "0/0 borrowed"),
        (queue.put(2), "queue", "full, maxsize 1"),
        (Queue(1).get(), "queue", "empty, maxsize 1"),
        (queue.join(), "queue", "join, 1 unfinished"),
        (channel.send(2), "channel", "send, paused"),
        (Channel(1).receive(), "channel", "receive, empty"),
        (each(), "channel", "receive, empty"),
    ):
        found = awaited(loop, start, coroutine)
        assert (found.kind, found.text.partition(" (")[2]) == (kind, state + ")")


def test_a_condition_that_has_been_notified_waits_for_its_lock(loop, start):
    condition = asyncio.Condition()

    async def wait():
        async with condition:
            await condition.wait()

    async def notify_and_keep():
        async with condition:
            condition.notify_all()
            await asyncio.Event().wait()

    waiter = start(wait())
    settle(loop)
    start(notify_and_keep())
    settle(loop)
    assert await_chain(waiter).awaited.kind == "lock"


def test_a_barrier_counts_its_waiters(loop, start):
    barrier = asyncio.Barrier(3)
    found = awaited(loop, start, barrier.wait())
    assert found.kind == "barrier"
    assert "1 of 3" in found.text


def test_a_sleep_says_how_long(loop, start):
    assert awaited(loop, start, asyncio.sleep(600)).text == "sleep of 600 s"


def test_a_task_is_named(loop, start):
    other = start(asyncio.sleep(600), "the other")

    async def wait():
        await other

    found = awaited(loop, start, wait())
    assert (found.kind, found.text) == ("task", "task 'the other'")


def test_a_future_is_a_future(loop, start):
    future = loop.create_future()

    async def wait():
        await future

    found = awaited(loop, start, wait())
    assert (found.kind, found.text) == ("future", f"future {id(future):#x} (pending)")


def test_a_gather_a_wait_and_a_group_list_their_tasks(loop, start):
    first, second = start(asyncio.sleep(600), "first"), start(asyncio.sleep(600), "second")

    async def gather():
        await asyncio.gather(first, second)

    async def group():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(600), name="child")

    found = awaited(loop, start, gather())
    assert (found.kind, found.text) == ("gather", "gather of 2 (0 done): task 'first', task 'second'")
    found = awaited(loop, start, asyncio.wait([first]))
    assert (found.kind, found.text) == ("gather", "wait for 1 (0 done): task 'first'")
    found = awaited(loop, start, group())
    assert (found.kind, found.text) == ("gather", "TaskGroup of 1 (0 done): task 'child'")


def test_a_stream_that_is_read_says_so(loop, start):
    ours, theirs = socket.socketpair()

    async def read():
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            await reader.readexactly(3)
        finally:
            writer.close()

    found = awaited(loop, start, read())
    assert found.kind == "stream"
    assert "read, 0 bytes" in found.text
    theirs.close()
    settle(loop, 20)


def test_a_drain_is_a_stream(loop, start):
    ours, theirs = socket.socketpair()

    async def write():
        _, writer = await asyncio.open_connection(sock=ours)
        try:
            writer.write(bytes(32 << 20))
            await writer.drain()
        finally:
            writer.transport.abort()

    found = awaited(loop, start, write())
    assert found.kind == "stream"
    assert "drain" in found.text
    theirs.close()
    settle(loop, 20)


def test_an_executors_job_is_named(loop, start):
    async def call():
        await penstock.offload(time.sleep, 0.2)

    task = start(call())
    settle(loop)
    found = await_chain(task).awaited
    assert found.kind == "job"
    assert "sleep" in found.text
    loop.run_until_complete(task)


def test_a_gate_is_named(loop, start):
    gate = penstock.Gate(1, max_wait_s=60, name="db")

    async def pass_through():
        async with gate:
            await asyncio.sleep(0)

    async def occupy():
        await gate.enter()

    loop.run_until_complete(occupy())
    task = start(pass_through())
    settle(loop)
    found = await_chain(task).awaited
    assert (found.kind, found.text) == ("gate", "gate 'db' (1 of 1 in flight, 1 queued)")
    gate.leave()
    loop.run_until_complete(task)


def test_a_registered_function_is_described_by_its_own_text(loop, start):
    class Gate:
        async def enter(self):
            await asyncio.get_running_loop().create_future()

    register_awaited(Gate.enter, "gate", lambda gate: f"gate {type(gate).__name__}")
    found = awaited(loop, start, Gate().enter())
    assert (found.kind, found.text) == ("gate", "gate Gate")


def test_a_function_registered_throughout_describes_all_awaits_inside_it(loop, start):
    async def listening(door, event):
        await foreign(event)

    async def foreign(event):
        await event.wait()

    assert awaited(loop, start, foreign(asyncio.Event())).kind == "event"
    register_awaited(listening, "gate", lambda door: f"gate {door}", throughout=True)
    found = awaited(loop, start, listening("door", asyncio.Event()))
    assert (found.kind, found.text) == ("gate", "gate door")


@pytest.mark.parametrize("enter", ["bare", "entry", "enter"])
def test_a_task_that_waits_at_a_gate_says_which(loop, start, enter):
    gate = Gate(1, max_wait_s=math.inf, name="door")

    async def inside():
        async with gate:
            await asyncio.get_running_loop().create_future()

    async def waiting():
        if enter == "bare":
            async with gate:
                pass
        elif enter == "entry":
            async with gate.entry():
                pass
        else:
            await gate.enter()

    awaited(loop, start, inside())
    found = awaited(loop, start, waiting())
    assert (found.kind, found.text) == ("gate", "gate 'door' (1 of 1 in flight, 1 queued)")


def test_a_task_that_waits_for_nothing_is_ready_running_or_ended(loop, start):
    async def look():
        return await_chain(asyncio.current_task()).awaited.text

    task = start(look())
    assert await_chain(task).awaited.text == "ready"
    assert loop.run_until_complete(task) == "running"
    assert (await_chain(task).awaited.kind, await_chain(task).awaited.text) == ("nothing", "ended")


def test_the_chain_goes_through_generators_and_asynchronous_ones(loop, start):
    event = asyncio.Event()

    async def items():
        await event.wait()
        yield 1

    class Wrapped:
        def __await__(self):
            yield from each().__await__()

    async def each():
        async for _ in items():
            pass

    async def outer():
        await Wrapped()

    task = start(outer())
    settle(loop)
    found = await_chain(task)
    names = [frame.function.rpartition(".")[2] for frame in found.frames]
    assert names == ["outer", "__await__", "each", "items", "wait"]
    assert found.awaited.kind == "event"
    assert found.frames[0].file == __file__
    assert found.frames[0].line > 0
