"""Stuck tasks: tasks whose awaited object cannot be completed. In doubt a task is not stuck."""

import asyncio
import contextlib
import functools
import gc
import socket
import sys
import threading
import time
import weakref

import pytest

import penstock
from penstock.tasks.detectors.reachability import References
from penstock.tasks.detectors.stuck import StuckSearch, stuck_tasks
from tests.unit.tasks.graph.conftest import settle

# a budget that no machine exceeds
HELD = {}
GENEROUS_S = 5.0


@pytest.fixture(autouse=True)
def _forget():
    yield
    HELD.clear()


def stuck(*tasks):
    return {found.name for found in stuck_tasks(tasks, GENEROUS_S)}


def stuck_of(loop, start, *coroutines):
    """The indices of the stuck tasks."""
    tasks = [start(coroutine, str(at)) for at, coroutine in enumerate(coroutines)]
    del coroutines
    settle(loop)
    return {int(name) for name in stuck(*tasks) if name.isdecimal()}


class Box:
    """An object with attributes."""


async def lost():
    await asyncio.get_running_loop().create_future()


async def wait_for_event():
    event = asyncio.Event()
    await event.wait()


async def wait_on(event):
    await event.wait()


async def await_first(box):
    await box[0]


async def asleep(*_):
    await asyncio.sleep(600)


async def in_order(first, second):
    async with first:
        await asyncio.sleep(0)
        async with second:
            pass


# stuck tasks


def test_a_future_that_its_maker_lost_keeps_its_task_for_ever(loop, start):
    assert stuck_of(loop, start, lost()) == {0}


def test_an_event_that_only_its_waiter_knows_is_never_set(loop, start):
    assert stuck_of(loop, start, wait_for_event()) == {0}


def test_two_tasks_that_take_two_locks_the_other_way_round_are_stuck(loop, start):
    first, second = asyncio.Lock(), asyncio.Lock()
    coroutines = [in_order(first, second), in_order(second, first)]
    del first, second
    tasks = [start(coroutines.pop(), "a"), start(coroutines.pop(), "b")]
    settle(loop)
    assert stuck(*tasks) == {"a", "b"}


def test_a_consumer_whose_producer_is_gone_is_stuck(loop, start):
    async def produce(queue):
        await queue.put(1)

    async def consume(queue):
        while True:
            await queue.get()

    queue = asyncio.Queue()
    consumer = start(consume(queue), "consumer")
    producer = start(produce(queue))
    loop.run_until_complete(producer)
    del queue, producer
    settle(loop)
    assert stuck(consumer) == {"consumer"}


def test_two_tasks_that_await_each_other_are_stuck_and_the_cycle_is_named(loop, start):
    boxes = [], []
    tasks = [start(await_first(boxes[0]), "one"), start(await_first(boxes[1]), "two")]
    boxes[0].append(tasks[1])
    boxes[1].append(tasks[0])
    settle(loop)
    found = stuck_tasks(tasks[:1], GENEROUS_S)
    assert {each.name for each in found} == {"one", "two"}
    assert all(set(each.cycle) == {"one", "two"} for each in found)
    assert str(found[0]) in {
        f"task {found[0].name!r} awaits itself: one -> two -> one",
        f"task {found[0].name!r} awaits itself: two -> one -> two",
    }


def test_a_gather_a_wait_and_a_group_of_stuck_tasks_are_stuck(loop, start):
    async def gather():
        await asyncio.gather(lost(), wait_for_event())

    async def wait():
        await asyncio.wait([asyncio.ensure_future(lost())])

    async def group():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lost())

    async def shield():
        await asyncio.shield(lost())

    assert stuck_of(loop, start, gather(), wait(), group(), shield()) == {0, 1, 2, 3}


def test_pythons_own_task_class_is_seen_through_as_well(loop, start):
    loop.set_task_factory(lambda loop, coroutine, **how: asyncio.tasks._PyTask(coroutine, loop=loop, **how))

    async def gather():
        await asyncio.gather(lost(), wait_for_event())

    async def timed():
        async with asyncio.timeout(600):
            await lost()

    assert stuck_of(
        loop, start, lost(), asleep(), gather(), wait_on(HELD.setdefault("e", asyncio.Event())), timed()
    ) == {
        0,
        2,
    }


def test_an_object_that_only_stuck_tasks_hold_wakes_no_task(loop, start):
    async def holder(event):
        await lost()
        event.set()

    event = asyncio.Event()
    waits, holds = wait_on(event), holder(event)
    del event
    tasks = [start(waits, "waits"), start(holds, "holds")]
    settle(loop)
    assert stuck(*tasks) == {"waits", "holds"}


def test_a_waiter_is_stuck_whatever_else_its_object_reaches(loop, start):
    class Service:
        def __init__(self):
            self.event = asyncio.Event()
            self.world = HELD["world"]

        async def run(self):
            await self.event.wait()

    HELD["world"] = {at: [object(), {}] for at in range(20_000)}
    # not in the assertion itself, which pytest rewrites so that it keeps what is called
    found = stuck_of(loop, start, Service().run())
    assert found == {0}


def test_a_record_names_the_awaited_object_and_keeps_no_task(loop, start):
    task = start(wait_for_event(), "waiter")
    settle(loop)
    [found] = stuck_tasks([task], GENEROUS_S)
    assert found.task() is task
    assert found.chain.awaited.kind == "event"
    assert str(found) == f"task 'waiter' waits for {found.chain.awaited.text}, which nothing else references"
    assert found.cycle == ()


def test_a_search_leaves_every_count_as_it_was(loop, start):
    task = start(wait_for_event())
    settle(loop)
    future = task._fut_waiter
    before = sys.getrefcount(future), sys.getrefcount(task)
    assert stuck(task) == set()  # `future` is held here
    assert (sys.getrefcount(future), sys.getrefcount(task)) == before
    del future
    assert stuck(task) == {task.get_name()}


# tasks that are not stuck


def test_a_timer_wakes(loop, start):
    async def timed():
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(600, future.set_result, None)
        await future

    async def timed_event():
        event = asyncio.Event()
        asyncio.get_running_loop().call_later(600, lambda: event.set())
        await event.wait()

    assert stuck_of(loop, start, asleep(), timed(), timed_event()) == set()


def test_a_timeout_wakes_the_task_inside_it_however_it_is_wrapped(loop, start):
    @contextlib.asynccontextmanager
    async def limited():
        async with asyncio.timeout(600), contextlib.AsyncExitStack():
            yield

    async def plain():
        async with asyncio.timeout(600):
            await lost()

    async def wrapped():
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(limited())
            await lost()

    async def outside_of_a_group():
        async with asyncio.timeout(600), asyncio.TaskGroup() as tasks:
            tasks.create_task(lost(), name="100")

    async def outside_of_a_gather():
        async with asyncio.timeout(600):
            await asyncio.gather(start(lost(), "101"), asyncio.gather(start(lost(), "102")))

    async def outside_of_a_task():
        async with asyncio.timeout(600):
            await await_first([start(await_first([start(lost(), "103")]), "104")])

    waits = asyncio.wait_for(lost(), 600), asyncio.wait_for(start(lost(), "105"), 600)
    inside = plain(), wrapped(), outside_of_a_group(), outside_of_a_gather(), outside_of_a_task()
    assert stuck_of(loop, start, *waits, *inside) == set()
    settle(loop)
    assert stuck(*asyncio.all_tasks(loop)) == set()


def test_a_timeout_that_has_been_left_wakes_no_task(loop, start):
    async def after():
        async with asyncio.timeout(600):
            await asyncio.sleep(0)
        await lost()

    assert stuck_of(loop, start, after()) == {0}


def test_a_wait_with_a_timeout_may_end_in_the_cancellation_of_its_tasks(loop, start):
    task = start(lost(), "task")
    waiter = start(asyncio.wait([task], timeout=600), "waiter")
    settle(loop)
    assert stuck(task, waiter) == set()
    assert stuck(task) == set()


def test_an_event_in_a_global_may_be_set(loop, start):
    async def own(keep):
        HELD[keep.__name__] = keep(future := asyncio.get_running_loop().create_future())
        await future

    async def shared_dict():
        box = Box()
        box.event = asyncio.Event()
        HELD["vars"] = vars(box)
        await box.event.wait()

    def itself(future):
        return future

    def closure(future):
        return lambda: future.set_result(None)

    def method(future):
        return future.set_result

    def part(future):
        return functools.partial(future.set_result, None)

    def generator(future):
        def resumable():
            future.set_result((yield future))

        made = resumable()
        next(made)
        return made

    def weak(future):
        return weakref.ref(future)

    ways = itself, closure, method, part, generator, weak
    assert stuck_of(loop, start, shared_dict(), *(own(way) for way in ways)) == set()


def test_a_generator_that_borrows_from_its_frame_hides_no_reference(loop, start):
    async def own():
        future = asyncio.get_running_loop().create_future()

        def resumable(future):
            # from 3.14 on the stack's copy of `future` is not counted while this is suspended
            return (future, (yield 1))

        HELD["future"] = future
        made = resumable(future)
        next(made)
        await future
        made.close()

    assert stuck_of(loop, start, own()) == set()


def test_a_socket_that_is_read_may_answer(loop, start):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream_ours, stream_theirs = socket.socketpair()

    async def read():
        await asyncio.get_running_loop().sock_recv(ours, 10)

    async def read_stream():
        reader, writer = await asyncio.open_connection(sock=stream_ours)
        await reader.read(10)
        writer.close()

    async def drain():
        _, writer = await asyncio.open_connection(sock=drained)
        writer.write(bytes(32 << 20))
        try:
            await writer.drain()
        finally:
            writer.transport.abort()

    drained, drains = socket.socketpair()
    with ours, theirs, stream_theirs, drains:
        tasks = [start(read(), "sock_recv"), start(read_stream(), "stream"), start(drain(), "drain")]
        settle(loop, 20)
        gc.collect()
        assert [task.done() for task in tasks] == [False] * 3
        assert stuck(*tasks) == set()
        theirs.send(b"x")
        stream_theirs.send(b"x")
        drains.close()
        loop.run_until_complete(asyncio.wait(tasks))
        assert tasks[2].exception()


def test_a_server_that_serves_may_be_called(loop, start):
    arrived = []

    async def handle(reader, writer):
        arrived.append(asyncio.current_task())
        await reader.read(1)
        writer.close()

    async def serve():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        arrived.append(server.sockets[0].getsockname())
        try:
            await server.serve_forever()
        finally:
            server.close()

    task = start(serve(), "server")
    settle(loop, 20)
    client = socket.create_connection(arrived[0])
    settle(loop, 20)
    assert stuck(task, arrived[1]) == set()
    client.close()
    settle(loop, 20)
    task.cancel()
    settle(loop, 20)


def test_a_thread_or_an_executor_may_answer(loop, start):
    gate, seen = threading.Event(), threading.Event()

    async def offloaded():
        await penstock.to_thread(gate.wait)

    async def executed():
        await asyncio.get_running_loop().run_in_executor(None, gate.wait)

    async def by_thread():
        event = asyncio.Event()
        loop = asyncio.get_running_loop()

        def set_later(event, loop):
            seen.set()
            gate.wait()
            loop.call_soon_threadsafe(event.set)

        thread = threading.Thread(target=set_later, args=(event, loop))
        thread.start()
        await event.wait()
        thread.join()

    tasks = [start(offloaded(), "offloaded"), start(executed(), "executed"), start(by_thread(), "thread")]
    settle(loop)
    assert seen.wait(10)
    assert stuck(*tasks) == set()
    gate.set()
    loop.run_until_complete(asyncio.gather(*tasks))


def test_a_lock_that_a_sleeping_task_has_is_released(loop, start):
    async def hold(lock):
        async with lock:
            await asyncio.sleep(600)

    async def take(lock):
        async with lock:
            pass

    lock = asyncio.Lock()
    coroutines = hold(lock), take(lock), take(lock)
    del lock
    assert stuck_of(loop, start, *coroutines) == set()


def test_an_event_in_a_live_tasks_local_may_be_set(loop, start):
    async def live(*_):
        await asyncio.sleep(600)

    future = loop.create_future()
    coroutines = [await_first([future]), live({"deep": [(future,)]})]
    del future
    tasks = [start(coroutines.pop(), "live"), start(coroutines.pop(), "waits")]
    settle(loop)
    assert stuck(*tasks) == set()
    # nor when the live one is not among the given tasks
    assert stuck(tasks[1]) == set()


def test_a_main_task_that_waits_for_ctrl_c_is_not_stuck(loop, start):
    found = []

    async def main():
        waits = asyncio.Event()
        asyncio.get_running_loop().call_soon(lambda: found.extend(stuck_tasks(asyncio.all_tasks(), GENEROUS_S)))
        asyncio.get_running_loop().call_later(0.01, task[0].cancel)
        await waits.wait()

    task = [loop.create_task(main())]
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task[0])
    assert found == []


def test_tasks_of_a_loop_that_runs_elsewhere_are_left_alone(loop, start):
    task = start(lost(), "lost")
    settle(loop)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    while not loop.is_running():
        time.sleep(0.001)
    try:
        assert stuck(task) == set()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    assert stuck(task) == {"lost"}


def test_tasks_that_are_ready_cancelled_or_done_are_not_stuck(loop, start):
    ready, done, cancelled = start(lost()), start(asyncio.sleep(0)), start(lost())
    settle(loop)
    cancelled.cancel()
    assert stuck(start(lost()), done, cancelled) == set()
    assert stuck(ready) == {ready.get_name()}
    settle(loop)


# the time it takes


def test_a_search_ends_with_its_budget_and_the_next_goes_on_where_it_ended(loop, start, request):
    tasks = [start(asleep({at: [at]})) for at in range(3000)]
    tasks.append(start(lost(), "lost"))
    settle(loop)
    search = StuckSearch(0.01)
    longest_s, found, looks, walked_count = 0.0, [], 0, 0
    # a collection of the whole heap, the tests' own, is not the search's time
    gc.disable()
    request.addfinalizer(gc.enable)
    while not found and looks < 1000:
        begun = time.thread_time()
        found = search.check(tasks)
        longest_s = max(longest_s, time.thread_time() - begun)
        looks += 1
        walked_count += search.walked_count
    assert [each.name for each in found] == ["lost"]
    assert looks > 1
    assert walked_count >= len(tasks)
    assert longest_s < 0.02


def test_no_time_no_finding(loop, start):
    task = start(lost())
    settle(loop)
    assert stuck_tasks([task], 0.0) == []


def test_a_walk_that_ends_early_counts_unseen_objects_as_held():
    # two ways to one box: a short one and one that is longer than the walk
    box, first, long = Box(), Box(), []
    last = long
    for _ in range(50):
        last.append([])
        last = last[0]
    last.append(box)
    first.both = (box, long)
    del last, long
    held = {}
    for most in (10, 100):
        references = References(time.monotonic_ns() + 10**10)
        at = references.number(first)
        references.link(at, [first.both])
        references.walk(at, most)
        held[most] = references.find(box) in references.held_outside()
        number = references.find(box)
        del references
    # `box` is a local here: only without it does the whole walk account for all
    assert held == {10: True, 100: True}
    key = id(box)
    del box
    for most in (10, 100):
        references = References(time.monotonic_ns() + 10**10)
        at = references.number(first)
        references.link(at, [first.both])
        references.walk(at, most)
        assert id(references.nodes[number]) == key
        held[most] = number in references.held_outside()
        del references
    assert held == {10: True, 100: False}
