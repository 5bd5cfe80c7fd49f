"""The deadline of a drain: a thread that ends the process in time, whatever the loop's thread does.

Python runs a signal's handler in the main thread, between two bytecodes. A main thread that is blocked in C code, or
that never comes back to its loop, hears nothing. So the C-level handler also writes the signal's number to a pipe
(`signal.set_wakeup_fd`), and this thread reads it: it starts the clock, it sees a second signal, and it ends the
process by `os._exit`, which waits for no thread, no lock and no clean-up. It needs the GIL to hear of the
first signal: C code that holds it delays all this.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from penstock.tasks.awaits.frames import frame_of_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["Deadline", "Watch", "tell", "tell_as"]

# after the drain's time is over, what was cancelled has so long for its clean-up
GRACE_S = 0.75
# signals that come together are one: GNU timeout sends two, to its child and to the group that the child is in
TOGETHER_S = 0.05
# what holds the GIL at the end keeps it from this thread: then so much later a thread without it ends the process
WITHOUT_GIL_S = 1.0
# the last line waits at most so long for whoever reads stderr
TELL_WITHIN_MS = 100
MOST_BYTES = 2000
MOST_THREADS = 3
# frames of threads that wait for work
IDLE_FILES = (os.sep + "penstock" + os.sep, os.sep + "asyncio" + os.sep, os.sep + "concurrent" + os.sep + "futures")


class Watch:
    """What one run asks of the deadline.

    `is_end(signum)`: does this signal end the run? Called in the deadline's thread. `waited()`: what the drain waits
    for, as text. `relay(numbers)` is given every signal's number, as the loop's own wakeup descriptor would be. With
    `ends_at_second` a second signal ends the process at once. `at_end()` is called before the process is ended.
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
    ) -> None:
        self.drain_s = drain_s
        self.is_end = is_end
        self.waited = waited
        self.relay = relay
        self.ends_at_second = ends_at_second
        self.at_end = at_end


class Deadline:
    """The process's one deadline. Ownership: the pipe and the thread are kept for the rest of the process."""

    _made: Deadline | None = None

    def __init__(self) -> None:
        self._reader, self.wakeup_fd = os.pipe()
        os.set_blocking(self.wakeup_fd, False)
        self._watch: Watch | None = None
        # the signal that began it, and when; whether another came
        self.signum: int | None = None
        self._began_s = self._end_s = 0.0
        self._came_again = False
        # each signal is heard of twice, by the pipe and by the handler, which may run much later: when either first was
        self._first_s: dict[str, float] = {}
        threading.Thread(target=self._run, name="penstock-deadline", daemon=True).start()

    @classmethod
    def get(cls) -> Deadline:
        """Return the process's deadline; made at the first call, from the main thread."""
        if cls._made is None:
            cls._made = cls()
        return cls._made

    @classmethod
    def has_begun(cls) -> bool:
        """Whether a signal has begun the end of the process; also while the main thread is blocked."""
        return cls._made is not None and cls._made.signum is not None

    @classmethod
    def forget_after_fork(cls) -> None:
        """Have a forked child write nothing into its parent's pipe."""
        made, cls._made = cls._made, None
        if made is not None:
            taken = signal.set_wakeup_fd(-1)
            if taken not in (made.wakeup_fd, -1):
                signal.set_wakeup_fd(taken)
            os.close(made.wakeup_fd)
            os.close(made._reader)

    def watch(self, watch: Watch | None) -> int:
        """Serve this run from now on; None: no run is left. Return what `signal.set_wakeup_fd` takes.

        What a signal has begun goes on.
        """
        if watch is not None or self.signum is None:
            self._watch = watch
        return self.wakeup_fd

    def note(self, signum: int) -> None:
        """Hear of a signal from its handler, in the main thread, as well as by the pipe."""
        # nothing here takes a lock: the handler may interrupt any code
        if self._watch is not None:
            self._count(signum, self._watch, "handler")
        with suppress(OSError):
            os.write(self.wakeup_fd, b"\0")

    def _count(self, signum: int, watch: Watch, heard_by: str) -> None:
        now_s = time.monotonic()
        if self.signum is None:
            self._began_s, self._end_s = now_s, now_s + watch.drain_s + GRACE_S
            self.signum = signum
            # here, in whichever thread this is: the next to have the GIL may keep it
            self._end_without_gil()
        if now_s - self._first_s.setdefault(heard_by, now_s) > TOGETHER_S:
            self._came_again = True

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        while True:
            if poll.poll(self._left_ms()):
                with suppress(Exception):
                    self._take(os.read(self._reader, 512))
            watch, signum = self._watch, self.signum
            if signum is None or watch is None:
                continue
            if watch.ends_at_second and self._came_again:
                self._end(watch, signum, "a second signal came")
            if time.monotonic() >= self._end_s:
                self._end(watch, signum, f"{time.monotonic() - self._began_s:.1f} s have passed")

    def _left_ms(self) -> float | None:
        return None if self.signum is None else max(0.0, self._end_s - time.monotonic()) * 1000 + 1

    def _take(self, arrived: bytes) -> None:
        watch = self._watch
        if watch is not None:
            watch.relay(arrived)
        for signum in arrived:
            if signum and watch is not None and watch.is_end(signum):
                self._count(signum, watch, "pipe")

    def _end_without_gil(self) -> None:
        """Have a thread without the GIL end the process, with exit code 1, should this one not get it again."""
        left_s = self._end_s + WITHOUT_GIL_S - time.monotonic()
        with suppress(Exception):
            # here, for it cannot be imported in an isolated subinterpreter
            import faulthandler

            faulthandler.dump_traceback_later(max(left_s, 0.01), exit=True, file=2)

    def _end(self, watch: Watch, signum: int, why: str) -> None:
        with suppress(Exception):
            import faulthandler

            faulthandler.cancel_dump_traceback_later()
        try:
            tell(f"penstock: {signal.Signals(signum).name}: {why}, the process ends; {_waited_for(watch)}")
            watch.at_end()
        finally:
            os._exit(128 + signum)


_form: Callable[[str], str] = str


def tell_as(form: Callable[[str], str]) -> None:
    """Format the runtime's own lines by `form`."""
    global _form
    _form = form


def tell(line: str) -> None:
    """Write one line to stderr, past every lock and buffer; a reader that takes nothing is not waited for."""
    with suppress(Exception):
        line = _form(line)
    with suppress(OSError):
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        if poll.poll(TELL_WITHIN_MS):
            os.write(2, line.encode(errors="backslashreplace")[:MOST_BYTES] + b"\n")


def _waited_for(watch: Watch) -> str:
    named = [text for text in (watch.waited(), *busy_threads()) if text]
    return f"it waited for {', '.join(named)}" if named else "its clean-up was not done"


def busy_threads() -> Iterator[str]:
    """Name the threads that do something, and where: those that wait for work are left out."""
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
