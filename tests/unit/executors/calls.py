"""What the tests have workers run: importable by name, as a job must be."""

import contextvars
import os
import signal
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


def read_context():
    return request_id.get("none"), unset.get("none")


def trace_id():
    from opentelemetry import trace

    return trace.get_current_span().get_span_context().trace_id


class Refused(Exception):
    def __init__(self, left, right):
        super().__init__(f"{left} and {right}")


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


def block_stubbornly(path):
    """Holds back whatever interrupts it."""
    append(path, os.getpid())
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
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
