"""Unix signal handlers: run by the loop, while it is blocked or busy, in the main thread."""

import asyncio
import os
import signal
import threading

import pytest

from .conftest import TIMEOUT_S

pytestmark = pytest.mark.skipif(os.name != "posix", reason="unix signals")


def kill_from_a_thread_once(blocked, number):
    def work():
        assert blocked.wait(TIMEOUT_S)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_signal_wakes_a_blocked_loop(loop):
    blocked = threading.Event()
    loop.add_signal_handler(signal.SIGUSR2, loop.stop)
    thread = kill_from_a_thread_once(blocked, signal.SIGUSR2)
    loop.call_soon(blocked.set)
    loop.run_forever()
    thread.join()
    assert loop.remove_signal_handler(signal.SIGUSR2)


def test_a_signal_reaches_a_loop_that_never_blocks(loop):
    got = []

    def spin():
        if not got:
            loop.call_soon(spin)
        else:
            loop.stop()

    loop.add_signal_handler(signal.SIGUSR2, got.append, "signal")
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR2)
    loop.call_soon(spin)
    loop.run_forever()
    assert got == ["signal"]
    loop.remove_signal_handler(signal.SIGUSR2)


def test_a_handler_gets_its_arguments(loop):
    got = []
    loop.add_signal_handler(signal.SIGUSR2, lambda *args: (got.append(args), loop.stop()), 1, 2)
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR2)
    loop.run_forever()
    assert got == [(1, 2)]
    loop.remove_signal_handler(signal.SIGUSR2)


def test_a_second_handler_replaces_the_first(loop):
    got = []
    loop.add_signal_handler(signal.SIGUSR2, got.append, "first")
    loop.add_signal_handler(signal.SIGUSR2, lambda: (got.append("second"), loop.stop()))
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR2)
    loop.run_forever()
    assert got == ["second"]
    loop.remove_signal_handler(signal.SIGUSR2)


def test_removing_gives_the_default_back_and_tells_if_there_was_one(loop):
    loop.add_signal_handler(signal.SIGUSR2, int)
    assert loop.remove_signal_handler(signal.SIGUSR2) is True
    assert loop.remove_signal_handler(signal.SIGUSR2) is False
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


def test_closing_the_loop_removes_its_handlers(loop):
    loop.add_signal_handler(signal.SIGUSR2, int)
    loop.close()
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_two_signals_both_arrive(loop):
    got = []

    def note(name):
        got.append(name)
        if len(got) == 2:
            loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, note, "one")
    loop.add_signal_handler(signal.SIGUSR2, note, "two")
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR2)
    loop.run_forever()
    assert sorted(got) == ["one", "two"]
    loop.remove_signal_handler(signal.SIGUSR1)
    loop.remove_signal_handler(signal.SIGUSR2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_signal_that_cannot_be_caught_is_refused(loop, number):
    with pytest.raises(RuntimeError, match="cannot be caught"):
        loop.add_signal_handler(number, int)


@pytest.mark.parametrize("number", [0, 10_000, -1])
def test_a_number_that_is_no_signal_is_refused(loop, number):
    with pytest.raises(ValueError):
        loop.add_signal_handler(number, int)
    with pytest.raises(TypeError):
        loop.add_signal_handler("SIGINT", int)


def test_a_coroutine_function_is_no_signal_handler(loop):
    async def handler():
        """Never run."""

    with pytest.raises(TypeError, match="coroutines"):
        loop.add_signal_handler(signal.SIGUSR2, handler)


def test_another_thread_may_not_add_a_handler(loop):
    errors = []

    def work():
        try:
            loop.add_signal_handler(signal.SIGUSR2, int)
        except (RuntimeError, ValueError) as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(errors) == 1


def test_a_handler_that_raises_is_reported_and_the_loop_goes_on(loop, problems):
    def broken():
        loop.call_soon(loop.stop)
        raise LookupError("handler")

    loop.add_signal_handler(signal.SIGUSR2, broken)
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR2)
    loop.run_forever()
    assert isinstance(problems[0]["exception"], LookupError)
    loop.remove_signal_handler(signal.SIGUSR2)


def kill_until(done, number):
    """Again and again: a signal without a wakeup fd may come just before the poll, and be seen only after it."""

    def work():
        while not done.wait(0.01):
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_keyboard_interrupt_ends_a_blocked_loop(loop):
    done = threading.Event()

    def interrupt_once(number, frame):
        if not done.is_set():
            done.set()
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, interrupt_once)
    try:
        thread = kill_until(done, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert not loop.is_running()


def test_asyncio_runner_cancels_the_main_task_on_interrupt(loop_factory):
    seen = []

    async def main():
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(TIMEOUT_S)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt), asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert seen == ["cancelled"]


def test_a_python_level_handler_runs_while_the_loop_is_blocked(loop):
    done = threading.Event()

    def handler(number, frame):
        done.set()
        loop.call_soon_threadsafe(loop.stop)

    previous = signal.signal(signal.SIGUSR2, handler)
    try:
        thread = kill_until(done, signal.SIGUSR2)
        loop.run_forever()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR2, previous)
