"""The deadline of a drain: a thread that ends the process in time, even if the loop's thread is blocked.

Python runs signal handlers in the main thread, between two bytecodes, so a main thread that is blocked in C code runs
none. The C-level handler also writes the signal's number to a pipe (`signal.set_wakeup_fd`). This thread reads the
pipe: it starts the clock, detects a second signal, and ends the process by `os._exit`, which waits for no thread, no
lock and no clean-up. The thread needs the GIL to notice the first signal: C code that holds the GIL delays it.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["GRACE_S", "TOGETHER_S", "Deadline", "DeadlineOptions", "format_lines_by", "write_line"]

# the time for the clean-up of cancelled tasks, after the drain
GRACE_S = 0.75
# Signals within this time count as one: GNU timeout signals its child and the process group of the child.
TOGETHER_S = 0.05
# C code may hold the GIL at the end. A thread without the GIL then ends the process, so much later.
WITHOUT_GIL_S = 1.0
# the bound of the wait for a reader of stderr
WRITE_WITHIN_MS = 100
MOST_BYTES = 2000
MOST_THREADS = 3
# files of the frames of idle threads
IDLE_FILES = (os.sep + "penstock" + os.sep, os.sep + "asyncio" + os.sep, os.sep + "concurrent" + os.sep + "futures")


class DeadlineOptions:
    """The options of one run.

    `drain_s` is the time of the drain in seconds. `is_end(signum)` returns True for a signal that ends the run; it is
    called in the deadline's thread. `waited()` describes the work that the drain waits for. `relay(numbers)` receives
    the number of every signal, as the loop's wakeup descriptor would. With `ends_at_second` a second signal ends the
    process at once. `at_end()` is called before the process ends. `grace_s()` is the time for the clean-up of cancelled
    tasks after the drain, in seconds; it is read again until the process ends. The drain begins `delay_s` seconds later
    if `is_delayed()` returns True.
    """

    def __init__(
        self,
        drain_s: float,
        is_end: Callable[[int], bool],
        *,
        waited: Callable[[], str] = str,
        relay: Callable[[bytes], object] = bool,
        ends_at_second: bool = True,
        at_end: Callable[[], object] = bool,
        grace_s: Callable[[], float] = lambda: GRACE_S,
        delay_s: float = 0.0,
        is_delayed: Callable[[], bool] = bool,
    ) -> None:
        self.drain_s = drain_s
        self.is_end = is_end
        self.waited = waited
        self.relay = relay
        self.ends_at_second = ends_at_second
        self.at_end = at_end
        self.grace_s = grace_s
        self.delay_s = delay_s
        self.is_delayed = is_delayed


class Deadline:
    """The deadline of the process, at most one. Ownership: it keeps a pipe and a thread until the process ends."""

    _made: Deadline | None = None

    def __init__(self) -> None:
        # For the thread: an import there might wait for the main thread's. The parent of worker processes has neither
        # a deadline nor the loop, which this imports.
        import penstock.tasks.awaits.frames  # noqa: F401

        self._reader, self.wakeup_fd = os.pipe()
        os.set_blocking(self.wakeup_fd, False)
        self._options: DeadlineOptions | None = None
        # the first signal, its time, and whether a second one followed
        self.signum: int | None = None
        self._began_s = self._drained_s = 0.0
        self._came_again = False
        # Each signal arrives twice, through the pipe and through the handler, which may run much later. The first time
        # of either.
        self._first_s: dict[str, float] = {}
        threading.Thread(target=self._run, name="penstock-deadline", daemon=True).start()

    @classmethod
    def get(cls) -> Deadline:
        """Return the deadline of the process; the first call, in the main thread, creates it."""
        if cls._made is None:
            cls._made = cls()
        return cls._made

    @classmethod
    def has_begun(cls) -> bool:
        """Return True after the first signal, even while the main thread is blocked."""
        return cls._made is not None and cls._made.signum is not None

    @classmethod
    def forget_after_fork(cls) -> None:
        """Close the pipe in a forked child: it is the parent's."""
        made, cls._made = cls._made, None
        if made is not None:
            taken = signal.set_wakeup_fd(-1)
            if taken not in (made.wakeup_fd, -1):
                signal.set_wakeup_fd(taken)
            os.close(made.wakeup_fd)
            os.close(made._reader)

    def serve(self, options: DeadlineOptions | None) -> int:
        """Serve a run from now on, or no run for None. Return the descriptor for `signal.set_wakeup_fd`.

        A deadline that a signal has started continues.
        """
        if options is not None or self.signum is None:
            self._options = options
        return self.wakeup_fd

    def note(self, signum: int) -> None:
        """Note a signal from its handler, in the main thread."""
        # no lock is taken here: the handler may interrupt any code
        if self._options is not None:
            self._count(signum, self._options, "handler")
        with suppress(OSError):
            os.write(self.wakeup_fd, b"\0")

    def _count(self, signum: int, options: DeadlineOptions, arrived_by: str) -> None:
        now_s = time.monotonic()
        if self.signum is None:
            self._began_s, self._drained_s = now_s, now_s + options.drain_s
            self.signum = signum
            # in this thread, whichever it is: the next one to get the GIL may keep it
            self._end_without_gil(options)
        if now_s - self._first_s.setdefault(arrived_by, now_s) > TOGETHER_S:
            self._came_again = True

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        while True:
            if poll.poll(self._left_ms()):
                with suppress(Exception):
                    self._take(os.read(self._reader, 512))
            options, signum = self._options, self.signum
            if signum is None or options is None:
                continue
            if options.ends_at_second and self._came_again:
                self._end(options, signum, "second signal")
            if time.monotonic() >= self._end_s(options):
                self._end(options, signum, f"{time.monotonic() - self._began_s:.1f} s have passed")

    def _left_ms(self) -> float | None:
        if self.signum is None or self._options is None:
            return None
        return max(0.0, self._end_s(self._options) - time.monotonic()) * 1000 + 1

    def _end_s(self, options: DeadlineOptions) -> float:
        delay_s = options.delay_s if options.is_delayed() else 0.0
        return self._drained_s + options.grace_s() + delay_s

    def _take(self, arrived: bytes) -> None:
        options = self._options
        if options is not None:
            options.relay(arrived)
        for signum in arrived:
            if signum and options is not None and options.is_end(signum):
                self._count(signum, options, "pipe")

    def _end_without_gil(self, options: DeadlineOptions) -> None:
        """Arm a thread that ends the process with exit code 1 without the GIL, in case this thread does not get it."""
        # the handler, which delays the drain, may run later
        end_s = self._drained_s + options.grace_s() + options.delay_s
        left_s = end_s + WITHOUT_GIL_S - time.monotonic()
        with suppress(Exception):
            # imported here: an isolated subinterpreter cannot import it
            import faulthandler

            faulthandler.dump_traceback_later(max(left_s, 0.01), exit=True, file=2)

    def _end(self, options: DeadlineOptions, signum: int, why: str) -> None:
        with suppress(Exception):
            import faulthandler

            faulthandler.cancel_dump_traceback_later()
        try:
            write_line(f"penstock: {signal.Signals(signum).name}: {why}, the process ends; {_waited_for(options)}")
            options.at_end()
        finally:
            os._exit(128 + signum)


_form: Callable[[str], str] = str


def format_lines_by(form: Callable[[str], str]) -> None:
    """Format the runtime's lines by `form(line)`."""
    global _form
    _form = form


def write_line(line: str) -> None:
    """Write one line to descriptor 2 without locks and buffers. A blocked reader delays it by at most 0.1 s."""
    with suppress(Exception):
        line = _form(line)
    with suppress(OSError):
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        if poll.poll(WRITE_WITHIN_MS):
            os.write(2, line.encode(errors="backslashreplace")[:MOST_BYTES] + b"\n")


def _waited_for(options: DeadlineOptions) -> str:
    named = [text for text in (options.waited(), *busy_threads()) if text]
    return f"it waited for {', '.join(named)}" if named else "its clean-up was not done"


def busy_threads() -> Iterator[str]:
    """Yield the name and the place of each busy thread; idle threads are left out."""
    from penstock.tasks.awaits.frames import frame_of_thread

    found = 0
    for thread in threading.enumerate():
        frame = frame_of_thread(thread.ident or 0)
        if frame is None or thread is threading.current_thread() or _is_idle(frame):
            continue
        found += 1
        if found > MOST_THREADS:
            yield "..."
            return
        yield f"{thread.name} at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def _is_idle(frame: FrameType) -> bool:
    return any(part in frame.f_code.co_filename for part in IDLE_FILES)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Deadline.forget_after_fork)
