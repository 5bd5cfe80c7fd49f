"""Functions that workers run in the tests, importable by name."""

import contextvars
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

request_id = contextvars.ContextVar("request_id")
unset = contextvars.ContextVar("unset")
started = []
kept = []


def same(item):
    return item


def add(left, right, *, more=0):
    return left + right + more


def size(item):
    return len(item)


def pid():
    return os.getpid()


def describe(item):
    return type(item).__name__, len(item), getattr(item, "readonly", None)


def total(array):
    return int(array.sum())


def overwrite(array):
    array[:] = 7
    return array


def keep(array):
    kept.append(array)
    return len(kept)


def kept_totals():
    return [int(array.sum()) for array in kept]


def let_go():
    kept.clear()


def note_start():
    started.append(os.getpid())


def starts():
    return started


def fail_to_start():
    raise RuntimeError("no license for this machine")


def end_at_once():
    os._exit(3)


def hang():
    time.sleep(60)


def hang_past_one_interrupt():
    """As where the first signal comes just before a system call, which it does not interrupt."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.sigwait({signal.SIGINT})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    time.sleep(60)


def hang_stubbornly():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass


def fail_unless_first(path):
    if os.path.exists(path):
        fail_to_start()
    open(path, "w").close()


def set_context(value):
    request_id.set(value)


def interrupt():
    raise KeyboardInterrupt


def signals_of_a_program():
    """Return the ignored and blocked signals of a program that a job starts, from the kernel."""
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    return {
        line.split()[0]: int(line.split()[1], 16) for line in status.splitlines() if line[:6] in ("SigIgn", "SigBlk")
    }


def signals_of_a_fork():
    """The handlers that a process has which a job forks."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        found = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        os.write(writing, b"%d" % (found == [signal.SIG_DFL, signal.default_int_handler]))
        os._exit(0)
    os.waitpid(child, 0)
    return os.read(reading, 1) == b"1"


def terminate_a_fork_at_once():
    """How a process ends that is sent SIGTERM before it has come to anything."""
    global held_fork
    held_fork, let_go = os.pipe()
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    os.kill(child, signal.SIGTERM)
    os.write(let_go, b"1")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def hold_fork():
    """In a forked process, before anything that a worker does there."""
    if held_fork is not None:
        os.read(held_fork, 1)


held_fork = None
os.register_at_fork(after_in_child=hold_fork)


def terminate_a_program():
    with subprocess.Popen(["sleep", "60"]) as program:
        program.terminate()
        return program.wait(20)


def use_a_pool():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2])


def start_a_program(path):
    """Says which program it has started, and does not end."""
    append(path, subprocess.Popen(["sleep", "600"]).pid)
    hang_stubbornly()


def wait_and_tell(path, gate):
    append(path, os.getpid())
    return wait_for(gate)


def read_context():
    return request_id.get("none"), unset.get("none")


def trace_id():
    from opentelemetry import trace

    return trace.get_current_span().get_span_context().trace_id


class Refused(Exception):
    def __init__(self, left, right):
        super().__init__(f"{left} and {right}")


def make_refused():
    return Refused(1, 2)


def refuse(note):
    problem = ValueError("not that")
    problem.add_note(note)
    raise problem


def refuse_oddly():
    raise Refused(1, 2)


def refuse_with_a_lock():
    raise ValueError(threading.Lock())


def leave():
    sys.exit(4)


def make_a_lock():
    return {"state": [1, threading.Lock()]}


def die(number=signal.SIGKILL):
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)  # a sanitizer has a handler of its own
    os.kill(os.getpid(), number)
    time.sleep(60)


def exit_with(code):
    os._exit(code)


def die_unless(path):
    """Dies the first time: the file it then leaves tells the next attempt."""
    if not os.path.exists(path):
        open(path, "w").close()
        die()
    return "survived"


def append(path, line):
    with open(path, "a") as stream:
        stream.write(f"{line}\n")


def block(path):
    """Says that it runs, then blocks where an exception can reach it."""
    append(path, os.getpid())
    time.sleep(60)


def wait_for_a_second_interrupt(path):
    """Miss the first interrupt, as a job does that is about to make a system call."""
    seen, ours = [], signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    append(path, os.getpid())
    while len(seen) < 2:
        time.sleep(0.01)
    signal.signal(signal.SIGINT, ours)


def block_stubbornly(path):
    """Holds back whatever interrupts it."""
    is_told, end = False, time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if not is_told:
                is_told = True
                append(path, os.getpid())
            time.sleep(60)
        except BaseException:
            append(path, "interrupted")


def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.002)
    return os.getpid()


def grow(count):
    started.append(b"x" * count)
    return os.getpid()


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return os.getpid()


def note_and_spin(path, number, seconds, load):
    append(path, number)
    spin(seconds)
    return number


def niceness():
    return os.nice(0)


def close_everything():
    os.closerange(3, 256)
    time.sleep(60)
