"""A pulse that finds stalls in tests, on any loop: a thread posts a callback, and sees how long it waits for its turn.

Where the loop has an observer of its own, what that has found while the pulse went is told as well.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from penstock.tasks.awaits.frames import frame_of_thread
from penstock.tasks.observers.registry import observer_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from penstock.tasks.finding import Finding

__all__ = ["Pulse"]

# beats in the time that a stall may take: what is held up by a fifth more than that is found for certain
BEATS = 5
# no beats more often than that
SHORTEST_S = 0.002
FRAMES = 12
# where frames are that lead to a callback
OURS = os.path.dirname(__file__) + os.sep
LOOPS = os.path.dirname(asyncio.__file__) + os.sep, os.path.dirname(os.path.dirname(__file__)) + os.sep


class Pulse:
    """Notes each time, from `start` to `stop`, that a running loop kept a callback waiting for more than `over_s`."""

    def __init__(self, over_s: float) -> None:
        self._over_s = over_s
        self._lock = threading.Lock()
        self._running: dict[int, _Beat] = {}
        self._stalls: list[str] = []
        self._findings: list[str] = []
        self._thread: threading.Thread | None = None
        self._is_over = threading.Event()

    def start(self) -> None:
        """From now on stalls count."""
        self._thread = threading.Thread(target=self._go, name="penstock-pulse", daemon=True)
        with self._lock:
            for beat in self._running.values():
                beat.mark()
        self._thread.start()

    def stop(self) -> list[str]:
        """Stalls do not count any more; those there were, as text."""
        if self._thread is None:
            return []
        self._is_over.set()
        self._thread.join()
        self._thread = None
        with self._lock:
            for beat in self._running.values():
                self._end(beat)
        if not (self._stalls or self._findings):
            return []
        # with findings of the loop's own, these say what the pulse says, and more
        times = len(self._stalls) or len(self._findings)
        head = f"a loop was held up for more than {self._over_s:g} s, {times} time{'s' if times > 1 else ''}\n"
        return [head + "".join([*self._stalls, *self._findings])]

    @contextmanager
    def running(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Around a run of the loop, in its thread."""
        key = id(loop)
        if key in self._running:  # one run_forever calls the other
            yield
            return
        beat = _Beat(loop, self._over_s)
        with self._lock:
            self._running[key] = beat
        if self._thread is not None:
            beat.mark()
            # before its first turn: what holds up that turn is seen too
            beat.post()
        try:
            yield
        finally:
            with self._lock:
                del self._running[key]
                if self._thread is not None:
                    self._end(beat)

    def _end(self, beat: _Beat) -> None:
        beat.arrive(beat.posted_s)
        self._stalls += beat.stalls
        self._findings += beat.findings()

    def _go(self) -> None:
        pause_s = max(self._over_s / BEATS, SHORTEST_S)
        while not self._is_over.wait(pause_s):
            with self._lock:
                beats = list(self._running.values())
            for beat in beats:
                beat.look()


class _Beat:
    """One loop while it runs: at most one callback on its way, and the stack that it found the loop's thread at."""

    def __init__(self, loop: asyncio.AbstractEventLoop, over_s: float) -> None:
        self._loop = loop
        self._over_s = over_s
        self._thread_id = threading.get_ident()
        self._thread_name = threading.current_thread().name
        # when the callback that is on its way was posted
        self.posted_s: float | None = None
        self._stack = ""
        self.stalls: list[str] = []
        self._mark: Any = None

    def mark(self) -> None:
        """Remember what the loop's observer has found so far."""
        observer = observer_of(self._loop)
        self._mark = None if observer is None else observer.findings.mark()

    def findings(self) -> list[str]:
        """The stalls that the observer has found since, as text."""
        observer = observer_of(self._loop)
        if observer is None or self._mark is None:
            return []
        found: Sequence[Finding] = observer.findings.since(self._mark)
        return [_told(one) for one in found if one.kind == "stall" and self._is_long(one)]

    def _is_long(self, finding: Finding) -> bool:
        lasted_s = finding.evidence.get("lasted_s")
        return lasted_s is None or lasted_s > self._over_s

    def post(self) -> None:
        """Send a callback to the loop."""
        self._stack = ""
        self.posted_s = posted_s = time.monotonic()
        try:
            self._loop.call_soon_threadsafe(self.arrive, posted_s)
        except RuntimeError:  # closed under us
            self.posted_s = None

    def look(self) -> None:
        """From the pulse's thread: send the next callback, or see what keeps the last one waiting."""
        posted_s = self.posted_s
        if posted_s is None:
            self.post()
        elif not self._stack and time.monotonic() - posted_s > self._over_s:
            frame = frame_of_thread(self._thread_id)
            self._stack = "" if frame is None else _stack_from(frame)

    def arrive(self, posted_s: float | None) -> None:
        """In the loop's thread: the callback has its turn, or the run is over."""
        if posted_s is None or posted_s != self.posted_s:
            return
        waited_s = time.monotonic() - posted_s
        if waited_s > self._over_s:
            stack = self._stack or "    (no stack: it was over before the pulse's thread could look)\n"
            self.stalls.append(f"  {waited_s:.3f} s in {self._thread_name}, at (most recent call last):\n{stack}")
        self.posted_s = None


def _stack_from(frame: FrameType) -> str:
    """The innermost frames, without those that lead to the callback: the test runner's, ours, the loop's."""
    frames = traceback.extract_stack(frame)
    while len(frames) > 1 and any(found.filename.startswith(OURS) for found in frames):
        del frames[0]
    while len(frames) > 1 and frames[0].filename.startswith(LOOPS):
        del frames[0]
    return "".join(traceback.format_list(frames[-FRAMES:]))


def _told(finding: Finding) -> str:
    evidence = [f"    {key}: {_text(value)}\n" for key, value in finding.evidence.items()]
    return f"  found by the loop's observer: {finding.message}\n" + "".join(evidence)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "".join(f"\n      {item}" for item in value)
    return str(value)
