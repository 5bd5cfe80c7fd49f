"""The stacks of a worker, taken while C code holds the GIL, with many threads, and again and again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from penstock.runtime.supervisor.health.stack_dump import MAX_STACK_BYTES, STACK_SIGNAL, StackFile, install_stack_dump
from tests.support.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="real-time signals and memory files are Linux's")

# the worker's main thread holds the GIL for ever, in C code that no signal interrupts: a mutex is locked twice
WORKER = """
import ctypes, sys, threading
from penstock.runtime.supervisor.health.stack_dump import install_stack_dump
install_stack_dump(int(sys.argv[1]))
def rest(depth):
    rest(depth - 1) if depth else threading.Event().wait()
for _ in range(int(sys.argv[2])):
    threading.Thread(target=rest, args=(10,), daemon=True).start()
def hold_the_gil():
    libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(256)
    libc.pthread_mutex_lock(mutex)
    print("held", flush=True)
    libc.pthread_mutex_lock(mutex)
hold_the_gil()
"""


@pytest.fixture
def stack() -> Iterator[StackFile]:
    with closing(StackFile.create()) as made:
        yield made


@contextmanager
def blocked(stack: StackFile, threads: int = 0) -> Iterator[int]:
    """The process id of a worker that holds its GIL."""
    command = [sys.executable, "-c", WORKER, str(stack.fd), str(threads)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[stack.fd]) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"held\n"
            yield worker.pid
            assert worker.poll() is None
        finally:
            worker.kill()


def taken(stack: StackFile, pid: int) -> str:
    """Ask, and wait for the main thread's outermost frame, which is written last."""
    stack.ask(pid)
    wait_until(lambda: stack.take().endswith("in <module>\n"), PATIENCE_S, told=stack.take)
    return stack.take()


def test_stacks_are_taken_while_c_code_holds_the_gil(stack: StackFile) -> None:
    with blocked(stack) as pid:
        assert "in hold_the_gil" in taken(stack, pid)


def test_each_text_is_of_the_last_time_it_was_asked_for(stack: StackFile) -> None:
    with blocked(stack) as pid:
        for _ in range(20):
            assert taken(stack, pid).count("in hold_the_gil") == 1
        assert os.fstat(stack.fd).st_size < MAX_STACK_BYTES


def test_the_main_thread_is_told_beside_many_others_and_the_text_stays_short(stack: StackFile) -> None:
    with blocked(stack, threads=40) as pid:
        text = taken(stack, pid)
        assert os.fstat(stack.fd).st_size > MAX_STACK_BYTES
        assert len(text.encode()) <= MAX_STACK_BYTES
        assert "in hold_the_gil" in text
        # no thread is shown in part
        assert text.startswith(("Thread 0x", "Current thread 0x"))


def test_nothing_is_taken_before_it_was_asked_for(stack: StackFile) -> None:
    assert stack.take() == ""


def test_a_process_that_has_ended_has_no_stack(stack: StackFile) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    stack.ask(ended.pid)
    assert stack.take() == ""


def test_a_file_can_be_closed_twice_and_has_no_text_then() -> None:
    stack = StackFile.create()
    stack.close()
    stack.close()
    assert stack.take() == ""


def test_the_signal_is_a_real_time_one() -> None:
    assert signal.SIGRTMIN < STACK_SIGNAL < signal.SIGRTMAX


def test_a_bad_descriptor_is_an_error_of_the_caller() -> None:
    with pytest.raises((OSError, ValueError)):
        install_stack_dump(-1)
