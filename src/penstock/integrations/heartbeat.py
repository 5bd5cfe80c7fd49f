"""Finds stalls in tests, on any asyncio loop: a thread posts callbacks to the loop and times how long each waits.

Stalls that the loop's own observer finds in the same time are reported too.
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

__all__ = ["HeartbeatThread"]

# heartbeats in the threshold's time: a stall longer than the threshold by a fifth is always found
HEARTBEATS = 5
MIN_INTERVAL_S = 0.002
MAX_FRAMES = 12
# frames of these folders lead to the callback
OWN_DIR = os.path.dirname(__file__) + os.sep
LOOP_DIRS = os.path.dirname(asyncio.__file__) + os.sep, os.path.dirname(os.path.dirname(__file__)) + os.sep


class HeartbeatThread:
    """A thread that records, from `start` to `stop`, each callback that a running loop delays beyond a threshold."""

    def __init__(self, threshold_s: float) -> None:
        self._threshold_s = threshold_s
        self._lock = threading.Lock()
        self._running: dict[int, _LoopHeartbeat] = {}
        self._stalls: list[str] = []
        self._findings: list[str] = []
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start the thread: stalls count from now on."""
        self._thread = threading.Thread(target=self._run, name="penstock-heartbeat", daemon=True)
        with self._lock:
            for heartbeat in self._running.values():
                heartbeat.mark_findings()
        self._thread.start()

    def stop(self) -> list[str]:
        """Stop the thread. Return the stalls as text, none or one."""
        if self._thread is None:
            return []
        self._stopped.set()
        self._thread.join()
        self._thread = None
        with self._lock:
            for heartbeat in self._running.values():
                self._finish(heartbeat)
        if not (self._stalls or self._findings):
            return []
        # the observer's findings repeat the thread's stalls, with more detail: they are not counted again
        times = len(self._stalls) or len(self._findings)
        head = f"a loop was blocked for more than {self._threshold_s:g} s, {times} time{'s' if times > 1 else ''}\n"
        return [head + "".join([*self._stalls, *self._findings])]

    @contextmanager
    def running(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Watch the loop while the block runs it, in this thread."""
        key = id(loop)
        if key in self._running:  # one run_forever calls the other
            yield
            return
        heartbeat = _LoopHeartbeat(loop, self._threshold_s)
        with self._lock:
            self._running[key] = heartbeat
        if self._thread is not None:
            heartbeat.mark_findings()
            # before the first turn, so that a stall in that turn is found too
            heartbeat.post()
        try:
            yield
        finally:
            with self._lock:
                del self._running[key]
                if self._thread is not None:
                    self._finish(heartbeat)

    def _finish(self, heartbeat: _LoopHeartbeat) -> None:
        heartbeat.receive(heartbeat.posted_s)
        self._stalls += heartbeat.stalls
        self._findings += heartbeat.findings()

    def _run(self) -> None:
        interval_s = max(self._threshold_s / HEARTBEATS, MIN_INTERVAL_S)
        while not self._stopped.wait(interval_s):
            with self._lock:
                heartbeats = list(self._running.values())
            for heartbeat in heartbeats:
                heartbeat.check()


class _LoopHeartbeat:
    """The heartbeat of one running loop: at most one posted callback, and the stack while it is late."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threshold_s: float) -> None:
        self._loop = loop
        self._threshold_s = threshold_s
        self._thread_id = threading.get_ident()
        self._thread_name = threading.current_thread().name
        # when the callback was posted; None when none is outstanding
        self.posted_s: float | None = None
        self._stack = ""
        self.stalls: list[str] = []
        self._mark: Any = None

    def mark_findings(self) -> None:
        """Exclude the observer's findings up to now."""
        observer = observer_of(self._loop)
        self._mark = None if observer is None else observer.findings.mark()

    def findings(self) -> list[str]:
        """Return the stalls that the observer has found since the mark, as text."""
        observer = observer_of(self._loop)
        if observer is None or self._mark is None:
            return []
        found: Sequence[Finding] = observer.findings.since(self._mark)
        return [_finding_text(each) for each in found if each.kind == "stall" and self._is_long(each)]

    def _is_long(self, finding: Finding) -> bool:
        lasted_s = finding.evidence.get("lasted_s")
        return lasted_s is None or lasted_s > self._threshold_s

    def post(self) -> None:
        """Post a callback to the loop."""
        self._stack = ""
        self.posted_s = posted_s = time.monotonic()
        try:
            self._loop.call_soon_threadsafe(self.receive, posted_s)
        except RuntimeError:  # the loop was closed meanwhile
            self.posted_s = None

    def check(self) -> None:
        """Post the next callback, or take the stack if the last one is late. Runs in the heartbeat's thread."""
        posted_s = self.posted_s
        if posted_s is None:
            self.post()
        elif not self._stack and time.monotonic() - posted_s > self._threshold_s:
            frame = frame_of_thread(self._thread_id)
            self._stack = "" if frame is None else _stack_from(frame)

    def receive(self, posted_s: float | None) -> None:
        """Record a stall if the callback is late. Runs in the loop's thread, or when the run has ended."""
        if posted_s is None or posted_s != self.posted_s:
            return
        waited_s = time.monotonic() - posted_s
        if waited_s > self._threshold_s:
            stack = self._stack or "    (no stack: the stall ended before the heartbeat's thread ran)\n"
            self.stalls.append(f"  {waited_s:.3f} s in {self._thread_name}, at (most recent call last):\n{stack}")
        self.posted_s = None


def _stack_from(frame: FrameType) -> str:
    """Return the innermost frames, without the test runner's, penstock's and the loop's that lead to the callback."""
    frames = traceback.extract_stack(frame)
    while len(frames) > 1 and any(found.filename.startswith(OWN_DIR) for found in frames):
        del frames[0]
    while len(frames) > 1 and frames[0].filename.startswith(LOOP_DIRS):
        del frames[0]
    return "".join(traceback.format_list(frames[-MAX_FRAMES:]))


def _finding_text(finding: Finding) -> str:
    evidence = [f"    {key}: {_text(value)}\n" for key, value in finding.evidence.items()]
    return f"  found by the loop's observer: {finding.message}\n" + "".join(evidence)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "".join(f"\n      {item}" for item in value)
    return str(value)
