"""run_forever, run_until_complete, stop and close: what starts a loop, what ends it, what it refuses."""

import asyncio
import ctypes
import functools
import gc
import signal
import socket
import sys

import pytest


def test_stop_before_the_run_runs_one_turn(loop):
    ran = []
    loop.call_soon(ran.append, "once")
    loop.call_soon(lambda: loop.call_soon(ran.append, "next turn"))
    loop.stop()
    loop.run_forever()
    assert ran == ["once"]
    loop.stop()
    loop.run_forever()
    assert ran == ["once", "next turn"]


def test_stop_lets_the_rest_of_the_turn_run(loop):
    ran = []
    loop.call_soon(loop.stop)
    loop.call_soon(ran.append, "same turn")
    loop.run_forever()
    assert ran == ["same turn"]


def test_stop_is_forgotten_after_the_run(loop):
    loop.stop()
    loop.stop()
    loop.run_forever()
    loop.call_later(0.01, loop.stop)
    loop.run_forever()


def test_run_until_complete_returns_the_result(loop):
    async def answer():
        await asyncio.sleep(0)
        return 42

    assert loop.run_until_complete(answer()) == 42


def test_run_until_complete_raises_what_the_coroutine_raised(loop):
    async def broken():
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        loop.run_until_complete(broken())


def test_run_until_complete_takes_a_future_that_is_done(loop):
    future = loop.create_future()
    future.set_result("done")
    assert loop.run_until_complete(future) == "done"


def test_run_until_complete_refuses_what_cannot_be_awaited(loop):
    with pytest.raises(TypeError):
        loop.run_until_complete(42)


def test_stopping_before_the_future_is_done_is_an_error(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="stopped before Future completed"):
        loop.run_until_complete(future)


def test_a_future_of_another_loop_is_refused(loop, loop_factory):
    other = loop_factory()
    try:
        with pytest.raises(ValueError, match="loop"):
            loop.run_until_complete(other.create_future())
    finally:
        other.close()


def test_a_running_loop_refuses_to_run_until_complete(loop, run):
    async def nested():
        never = loop.create_future()
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_until_complete(never)
        never.cancel()

    run(nested())
    assert not loop.is_running()


def test_a_running_loop_refuses_to_run_forever(loop):
    refused = []

    def nested():
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_forever()
        refused.append(True)
        loop.stop()

    loop.call_soon(nested)
    loop.run_forever()
    assert refused == [True]


async def test_another_loop_refuses_to_run_inside_a_running_one(loop_factory):
    other = loop_factory()
    try:
        with pytest.raises(RuntimeError, match="another loop is running"):
            other.run_forever()
    finally:
        other.close()


def test_the_running_loop_is_known_only_while_it_runs(loop, run):
    async def running():
        return asyncio.get_running_loop(), loop.is_running()

    assert run(running()) == (loop, True)
    assert not loop.is_running()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_a_running_loop_refuses_to_close(loop, run):
    async def close():
        with pytest.raises(RuntimeError, match="running"):
            loop.close()

    run(close())
    assert not loop.is_closed()


def test_a_closed_loop_refuses_work_and_closes_again_quietly(loop):
    loop.close()
    loop.close()
    assert loop.is_closed()
    for refused in (
        lambda: loop.call_soon(int),
        lambda: loop.call_later(1, int),
        lambda: loop.call_at(1, int),
        lambda: loop.run_forever(),
        lambda: loop.run_in_executor(None, int),
        lambda: loop.add_reader(0, int),
        lambda: loop.add_writer(0, int),
    ):
        with pytest.raises(RuntimeError, match="closed"):
            refused()


def test_closing_drops_what_was_scheduled(loop):
    loop.call_soon(pytest.fail, "ran on a closed loop")
    loop.call_later(0, pytest.fail, "ran on a closed loop")
    loop.close()


def test_an_exception_in_a_callback_goes_to_the_handler_and_the_loop_goes_on(loop, turn, problems):
    ran = []
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(ran.append, "after")
    turn()
    assert ran == ["after"]
    (context,) = problems
    assert isinstance(context["exception"], ZeroDivisionError)
    assert "Exception in callback" in context["message"]
    assert isinstance(context["handle"], asyncio.Handle)


def test_an_exception_in_a_timer_goes_to_the_handler(loop, turn, problems):
    loop.call_later(0, lambda: 1 / 0)
    turn()
    assert isinstance(problems[0]["exception"], ZeroDivisionError)


def test_wrong_arguments_for_the_callback_go_to_the_handler(loop, turn, problems):
    loop.call_soon(lambda: None, 1, 2, 3)
    turn()
    assert isinstance(problems[0]["exception"], TypeError)


def test_without_a_handler_the_exception_is_logged(loop, turn, caplog):
    loop.call_soon(lambda: 1 / 0)
    turn()
    assert "Exception in callback" in caplog.text and "ZeroDivisionError" in caplog.text


def test_a_handler_that_raises_is_logged_and_the_loop_goes_on(loop, turn, caplog):
    ran = []
    loop.set_exception_handler(lambda loop, context: 1 / 0)
    loop.call_soon(lambda: {}["missing"])
    loop.call_soon(ran.append, "after")
    turn()
    assert ran == ["after"]
    assert "Unhandled error in exception handler" in caplog.text


def test_the_exception_handler_can_be_read_back(loop):
    def handler(loop, context):
        pass

    assert loop.get_exception_handler() is None
    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    with pytest.raises(TypeError):
        loop.set_exception_handler(42)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_leaves_run_forever_and_the_remaining_handles_run_next_time(loop, turn, problems, error):
    ran = []

    def leave():
        raise error

    loop.call_soon(ran.append, 1)
    loop.call_soon(leave)
    loop.call_soon(ran.append, 2)
    with pytest.raises(error):
        loop.run_forever()
    assert ran == [1]
    assert not loop.is_running()
    turn()
    assert ran == [1, 2]
    assert problems == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_inside_a_task_leaves_run_until_complete(loop, error):
    async def leave():
        raise error

    with pytest.raises(error):
        loop.run_until_complete(leave())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_out_of_the_callers_own_task_is_told_by_nothing_but_itself(loop, turn, problems, error):
    async def leave():
        raise error

    task = loop.create_task(leave())
    with pytest.raises(error):
        loop.run_until_complete(task)
    # as a runner's clean-up does
    turn()
    del task
    gc.collect()
    assert problems == []


def leave_once(reached):
    if not reached:
        reached.append(True)
        raise KeyboardInterrupt


def leave_from_protocol(name, loop, reached):
    class Leaving(asyncio.Protocol):
        pass

    setattr(Leaving, name, lambda *_: leave_once(reached))
    here, there = socket.socketpair()
    here.setblocking(False)
    transport, _ = loop.run_until_complete(loop.create_connection(Leaving, sock=here))
    if name == "data_received":
        there.send(b"x")
        loop.call_later(0.05, there.close)
    else:
        there.close()


def leave_from_reader(loop, reached):
    here, there = socket.socketpair()
    there.send(b"x")
    loop.add_reader(here, lambda: (loop.remove_reader(here), here.close(), there.close(), leave_once(reached)))


def leave_from_writer(loop, reached):
    here, there = socket.socketpair()
    loop.add_writer(here, lambda: (loop.remove_writer(here), here.close(), there.close(), leave_once(reached)))


def leave_from_done_callback(loop, reached):
    future = loop.create_future()
    future.add_done_callback(lambda _: leave_once(reached))
    future.set_result(None)


def leave_from_exception_handler(loop, reached):
    loop.set_exception_handler(lambda *_: leave_once(reached))
    loop.call_soon(lambda: 1 / 0)


def leave_from_task(loop, reached):
    async def main():
        await asyncio.sleep(0)
        leave_once(reached)

    loop.create_task(main()).add_done_callback(lambda task: task.exception())


PLACES = {
    "call_soon": lambda loop, reached: loop.call_soon(leave_once, reached),
    "timer": lambda loop, reached: loop.call_later(0.001, leave_once, reached),
    "post": lambda loop, reached: loop.call_soon_threadsafe(leave_once, reached),
    "task": leave_from_task,
    "done callback": leave_from_done_callback,
    "exception handler": leave_from_exception_handler,
    "reader": leave_from_reader,
    "writer": leave_from_writer,
    **{
        name: functools.partial(leave_from_protocol, name)
        for name in ("data_received", "eof_received", "connection_lost")
    },
}


@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_in_any_callback_leaves_a_loop_that_runs_what_is_left(loop, place):
    reached, ran = [], []
    hooks = sys.get_asyncgen_hooks()
    PLACES[place](loop, reached)
    guard = loop.call_later(20, loop.stop)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    guard.cancel()
    assert (loop.is_running(), asyncio._get_running_loop(), sys.get_asyncgen_hooks()) == (False, None, hooks)
    for number in range(3):
        loop.call_soon(ran.append, number)
    loop.call_later(0.001, ran.append, 3)
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert ran == [0, 1, 2, 3]
    loop.run_until_complete(asyncio.sleep(0.1 if place == "data_received" else 0.01))


def test_ctrl_c_noted_in_the_last_callback_leaves_a_loop_that_runs_again(loop):
    # C's raise: a signal that comes in C code, as the terminal's may, is Python's at the next instruction of Python
    depth = sys.get_coroutine_origin_tracking_depth()
    loop.set_debug(True)
    loop.call_soon(getattr(ctypes.CDLL(None), "raise"), signal.SIGINT)
    loop.call_soon(loop.stop)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
        sum(range(10))
    assert (loop.is_running(), asyncio._get_running_loop()) == (False, None)
    assert sys.get_coroutine_origin_tracking_depth() == depth
    loop.set_debug(False)
    # on asyncio's loop the stop is still to come
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.run_until_complete(asyncio.sleep(0))


def test_asyncio_runner_runs_on_the_loop(loop_factory):
    async def which():
        return type(asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(which()) is loop_factory


def test_run_forever_can_be_resumed_many_times(loop):
    ran = []
    for number in range(200):
        loop.call_soon(ran.append, number)
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert ran == list(range(200))


def test_an_executor_shut_down_by_the_loop_takes_no_more_work(loop, run):
    run(loop.run_in_executor(None, int))
    run(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="shutdown"):
        loop.run_in_executor(None, int)
