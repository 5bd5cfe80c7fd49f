"""Debug mode: what asyncio checks and logs in it, penstock checks and logs too."""

import asyncio
import logging
import threading

import pytest


@pytest.fixture
def debug_loop(loop):
    loop.set_debug(True)
    return loop


def test_debug_can_be_switched(loop):
    loop.set_debug(True)
    assert loop.get_debug() is True
    loop.set_debug(False)
    assert loop.get_debug() is False


def test_a_slow_callback_is_logged(debug_loop, turn, caplog):
    debug_loop.slow_callback_duration = 0.0

    def the_slow_one():
        total = 0
        for number in range(10_000):
            total += number

    debug_loop.call_soon(the_slow_one)
    with caplog.at_level(logging.WARNING, "asyncio"):
        turn()
    assert "Executing" in caplog.text and "the_slow_one" in caplog.text and "seconds" in caplog.text


def test_a_slow_task_step_is_logged_with_the_task(debug_loop, caplog):
    async def the_slow_step():
        sum(range(10_000))

    debug_loop.slow_callback_duration = 0.0
    with caplog.at_level(logging.WARNING, "asyncio"):
        debug_loop.run_until_complete(the_slow_step())
    assert "the_slow_step" in caplog.text


def test_a_fast_callback_is_not_logged(debug_loop, turn, caplog):
    debug_loop.slow_callback_duration = 60.0
    debug_loop.call_soon(int)
    turn()
    assert "Executing" not in caplog.text


def test_without_debug_nothing_slow_is_logged(loop, turn, caplog):
    loop.slow_callback_duration = 0.0
    loop.call_soon(sum, range(10_000))
    turn()
    assert "Executing" not in caplog.text


def test_a_call_from_a_wrong_thread_is_refused(debug_loop, run):
    refused = []

    def schedule():
        for schedule_wrongly in (
            lambda: debug_loop.call_soon(int),
            lambda: debug_loop.call_later(1, int),
            lambda: debug_loop.call_at(1, int),
        ):
            with pytest.raises(RuntimeError, match="Non-thread-safe"):
                schedule_wrongly()
            refused.append(1)

    async def main():
        thread = threading.Thread(target=schedule)
        thread.start()
        thread.join()

    run(main())
    assert refused == [1, 1, 1]


def test_a_threadsafe_call_from_another_thread_is_fine(debug_loop):
    thread = threading.Thread(target=debug_loop.call_soon_threadsafe, args=(debug_loop.stop,))
    debug_loop.call_soon(thread.start)
    debug_loop.run_forever()
    thread.join()


async def a_coroutine():
    """Never run."""


@pytest.mark.parametrize("name", ["call_soon", "call_soon_threadsafe"])
def test_a_coroutine_function_is_no_callback(debug_loop, name):
    with pytest.raises(TypeError, match="coroutines cannot be used"):
        getattr(debug_loop, name)(a_coroutine)


def test_a_coroutine_object_is_no_callback(debug_loop):
    coroutine = a_coroutine()
    with pytest.raises(TypeError, match="coroutines cannot be used"):
        debug_loop.call_soon(coroutine)
    with pytest.raises(TypeError, match="coroutines cannot be used"):
        debug_loop.call_later(1, coroutine)
    coroutine.close()


@pytest.mark.parametrize("thing", [None, 42, "text"])
def test_what_cannot_be_called_is_no_callback(debug_loop, thing):
    with pytest.raises(TypeError, match="callable"):
        debug_loop.call_soon(thing)
    with pytest.raises(TypeError, match="callable"):
        debug_loop.call_at(1, thing)


def test_the_repr_of_a_handle_tells_where_it_was_made(debug_loop):
    handle = debug_loop.call_soon(int)
    timer = debug_loop.call_later(60, int)
    assert "created at" in repr(handle) and __file__ in repr(handle)
    assert "created at" in repr(timer) and __file__ in repr(timer)
    timer.cancel()


def test_a_cancelled_handle_still_tells_what_it_was(debug_loop):
    def the_callback():
        pass

    handle = debug_loop.call_soon(the_callback)
    handle.cancel()
    assert "cancelled" in repr(handle) and "the_callback" in repr(handle)


def test_a_failing_callback_tells_where_it_was_made(debug_loop, turn, problems):
    debug_loop.call_soon(lambda: 1 / 0)
    turn()
    frames = problems[0]["source_traceback"]
    assert any(frame.filename == __file__ for frame in frames)


def test_tracking_of_coroutine_origins_follows_debug(loop, run):
    import sys

    async def depth():
        return sys.get_coroutine_origin_tracking_depth()

    loop.set_debug(True)
    assert run(depth()) > 0
    loop.set_debug(False)
    assert run(depth()) == 0
    assert sys.get_coroutine_origin_tracking_depth() == 0


def test_servers_and_connections_work_in_debug_mode(debug_loop, run):
    async def main():
        async def upper(reader, writer):
            writer.write((await reader.readline()).upper())
            writer.close()

        server = await asyncio.start_server(upper, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return answer

    assert run(main()) == b"HELLO\n"
