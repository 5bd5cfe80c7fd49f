"""call_soon_threadsafe: order, waking a blocked loop, loops in several threads."""

import asyncio
import threading

import pytest

from .conftest import TIMEOUT_S


def in_thread(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_blocked_loop_is_woken(loop):
    blocked = threading.Event()

    def wake():
        assert blocked.wait(TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)

    thread = in_thread(wake)
    loop.call_soon(blocked.set)
    loop.run_forever()
    thread.join()


def test_calls_of_one_thread_run_in_their_order(loop):
    order = []

    def work():
        for number in range(5000):
            loop.call_soon_threadsafe(order.append, number)
        loop.call_soon_threadsafe(loop.stop)

    thread = in_thread(work)
    loop.run_forever()
    thread.join()
    assert order == list(range(5000))


def test_calls_of_many_threads_all_run_each_in_its_order(loop):
    threads, calls = 8, 1000
    order = []
    finished = threading.Barrier(threads, action=lambda: loop.call_soon_threadsafe(loop.stop))

    def work(name):
        for number in range(calls):
            loop.call_soon_threadsafe(order.append, (name, number))
        finished.wait(TIMEOUT_S)

    workers = [in_thread(lambda name=name: work(name)) for name in range(threads)]
    loop.run_forever()
    for worker in workers:
        worker.join()
    for name in range(threads):
        assert [number for who, number in order if who == name] == list(range(calls))


def test_calls_from_the_loops_own_thread_keep_their_place_among_call_soon(loop, turn):
    order = []
    loop.call_soon(order.append, 1)
    loop.call_soon_threadsafe(order.append, 2)
    loop.call_soon(order.append, 3)
    loop.call_soon_threadsafe(order.append, 4)
    turn()
    turn()
    assert sorted(order) == [1, 2, 3, 4]
    assert order.index(1) < order.index(3) and order.index(2) < order.index(4)


def test_a_call_made_before_the_loop_runs_is_kept(loop, turn):
    ran = []
    thread = in_thread(lambda: loop.call_soon_threadsafe(ran.append, "kept"))
    thread.join()
    turn()
    turn()
    assert ran == ["kept"]


def test_a_threadsafe_call_can_be_cancelled(loop, turn):
    ran = []
    handle = loop.call_soon_threadsafe(ran.append, "never")
    assert isinstance(handle, asyncio.Handle)
    handle.cancel()
    turn()
    turn()
    assert ran == []


@pytest.mark.parametrize("count", range(6))
def test_a_threadsafe_call_passes_its_arguments(loop, turn, count):
    got = []
    loop.call_soon_threadsafe(lambda *args: got.append(args), *range(count))
    turn()
    turn()
    assert got == [tuple(range(count))]


def test_a_threadsafe_call_on_a_closed_loop_is_refused(loop):
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon_threadsafe(int)


def test_a_threadsafe_call_wakes_a_loop_that_waits_for_a_far_timer(loop):
    blocked = threading.Event()
    loop.call_later(3600, int).cancel()
    far = loop.call_later(3600, loop.stop)

    def wake():
        assert blocked.wait(TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)

    thread = in_thread(wake)
    loop.call_soon(blocked.set)
    began = loop.time()
    loop.run_forever()
    thread.join()
    far.cancel()
    assert loop.time() - began < TIMEOUT_S


def test_ping_pong_with_a_thread_loses_no_wake_up(loop):
    rounds = 500
    ping = threading.Semaphore(0)
    seen = []

    def pong(number):
        seen.append(number)
        ping.release()

    def work():
        for number in range(rounds):
            loop.call_soon_threadsafe(pong, number)
            assert ping.acquire(timeout=TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)

    thread = in_thread(work)
    loop.run_forever()
    thread.join()
    assert seen == list(range(rounds))


def test_run_coroutine_threadsafe_gives_the_result_to_the_thread(loop):
    async def answer():
        await asyncio.sleep(0)
        return 42

    answers = []

    def work():
        answers.append(asyncio.run_coroutine_threadsafe(answer(), loop).result(TIMEOUT_S))
        loop.call_soon_threadsafe(loop.stop)

    thread = in_thread(work)
    loop.run_forever()
    thread.join()
    assert answers == [42]


async def test_run_in_executor_returns_and_raises(loop):
    assert await loop.run_in_executor(None, sum, [1, 2, 3]) == 6
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(None, lambda: 1 / 0)


def test_two_loops_in_two_threads_call_each_other(loop_factory):
    loops = [loop_factory(), loop_factory()]
    threads = [in_thread(each.run_forever) for each in loops]

    async def where():
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    async def ask(other):
        return [await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(where(), other)) for _ in range(100)]

    asked = [asyncio.run_coroutine_threadsafe(ask(other), each) for each, other in zip(loops, loops[::-1], strict=True)]
    answers = [future.result(TIMEOUT_S) for future in asked]
    for each, thread in zip(loops, threads, strict=True):
        each.call_soon_threadsafe(each.stop)
        thread.join()
        each.close()
    assert answers == [[loops[1]] * 100, [loops[0]] * 100]
