"""The stall watch: a thread that reports the stalls of penstock's native loops while they last.

One thread for each process, the global `stall_watch`'s, exists while a loop is watched. A loop of another kind writes
no heartbeat, so its stalls cannot be seen: `watch` returns False for it, and also where the native code is not built.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from penstock._core.tasks.rows import StallEnd, StallSighting
from penstock.purity import is_pure_requested
from penstock.tasks.detectors.stall_causes import CAUSES, cause_of
from penstock.tasks.detectors.stall_report import running_task, sample, stall_finding, with_whole_length
from penstock.threads import join_wholly, own_number

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from penstock._core.tasks.heartbeat import Heartbeat
    from penstock._core.tasks.watchdog import Watchdog, WatchedLoop
    from penstock.tasks.finding import Finding
    from penstock.tasks.finding_log import FindingLog

__all__ = ["StallWatch", "stall_watch"]

logger = logging.getLogger("penstock.tasks")
stall_logger = logging.getLogger("penstock.tasks.stall")

# How long a fork or the program's end waits for the thread to end: a listener of findings may be running in it.
LONGEST_STOP_S = 1.0
# the longest bound that the watchdog takes: 30 years
LONGEST_S = 1e9


class _LoopWatch:
    """A loop under watch. Held weakly, and its findings too, since their listeners may hold the loop."""

    __slots__ = ("causes", "describe", "exempt_turn", "findings", "loop", "name", "reported", "watched")

    def __init__(
        self,
        loop: ref[asyncio.AbstractEventLoop],
        watched: WatchedLoop,
        findings: ref[FindingLog],
        describe: Callable[[asyncio.Task[Any]], str | None],
        name: str,
        causes: dict[str, int],
    ) -> None:
        self.loop, self.watched, self.findings, self.describe = loop, watched, findings, describe
        self.name, self.causes = name, causes
        # the last finding of each stall that lasts, by whether it is a turn's and when it began
        self.reported: dict[tuple[bool, int], Finding] = {}
        # the turn in which a debugger was last seen, or which the program blocks on purpose
        self.exempt_turn = 0

    def exempt(self, turn: int) -> None:
        """Report no stall of the turn, nor the end of one."""
        self.exempt_turn = turn
        self.reported.clear()

    def task_name(self, handle: object) -> str | None:
        """Return the description of the task that runs, None if no task does."""
        task = running_task(self.loop(), handle) if handle is not None else None
        return None if task is None else self.describe(task)

    def add(self, sight: StallSighting, finding: Finding) -> None:
        """Add the finding to the loop's log, and keep it for the end of the stall."""
        findings = self.findings()
        if findings is None:
            return
        key = sight.is_turn, sight.since_ns
        if not sight.is_over:
            self.reported[key] = finding
        if not findings.add(finding):
            self.reported.pop(key, None)

    def end(self, is_turn: bool, since_ns: int, until_ns: int) -> None:
        """Report the whole length of a stall, once. The watchdog's thread and the loop's thread both call this."""
        reported, findings = self.reported.pop((is_turn, since_ns), None), self.findings()
        if reported is not None and findings is not None:
            findings.replace(reported, with_whole_length(reported, until_ns - since_ns))

    def end_all(self) -> None:
        """Report the end of the stalls whose end the watchdog has not seen. The loop is no longer watched."""
        for is_turn, since_ns in list(self.reported):
            until_ns = self.watched.heartbeat.ended(is_turn, since_ns)
            self.end(is_turn, since_ns, until_ns or time.monotonic_ns())


def _name_of(task: asyncio.Task[Any]) -> str | None:
    return task.get_name()


class StallWatch:
    """The watchdog's Python half: the watched loops, the thread, and a finding for each sighting."""

    def __init__(self) -> None:
        self._watchdog = _new_watchdog()
        self._thread: threading.Thread | None = None
        # Reentrant: a signal handler may fork or run a loop. The thread's own work needs no lock.
        self._lock = threading.RLock()
        self._loops: dict[WatchedLoop, _LoopWatch] = {}
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, WatchedLoop] = WeakKeyDictionary()
        self._causes: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, int]] = WeakKeyDictionary()
        self._ends_at_exit = False
        # called in the loop's thread as a watched loop begins to run
        self.on_run: Callable[[], object] | None = None

    def watch(
        self,
        loop: asyncio.AbstractEventLoop,
        heartbeat: Heartbeat | None,
        stall_s: float,
        findings: FindingLog,
        describe_task: Callable[[asyncio.Task[Any]], str | None] | None = None,
        name: str = "",
        name_calls: bool = False,
    ) -> bool:
        """Report callbacks and turns of `loop` that last `stall_s` seconds to `findings`, then and at ten times that.

        Return whether the loop is watched: only a native loop has a heartbeat, and without one it is not.
        `describe_task` names a task in place of its own name, in the watchdog's thread; it must not hold the loop.
        With `name_calls` an audit hook records the blocking calls of the loop's thread.
        """
        watchdog = self._watchdog
        if watchdog is None or heartbeat is None:
            return False
        self.unwatch(loop)
        watched = watchdog.add(heartbeat, int(min(stall_s, LONGEST_S) * 1e9))
        gone = ref(loop, lambda _, watched=watched: self._remove(watched))  # type: ignore[misc]
        causes = self._causes.setdefault(loop, dict.fromkeys(CAUSES, 0))
        self._loops[watched] = _LoopWatch(gone, watched, ref(findings), describe_task or _name_of, name, causes)
        self._by_loop[loop] = watched
        if name_calls:
            heartbeat.name_calls()
        heartbeat.on_enter = self._ensure_thread
        if watchdog.is_needed():
            self._ensure_thread()
        return True

    def unwatch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop watching the loop; no effect if it is not watched."""
        watched = self._by_loop.pop(loop, None)
        if watched is not None:
            entry = self._loops.get(watched)
            self._remove(watched)
            if entry is not None:
                entry.end_all()

    def _remove(self, watched: WatchedLoop) -> None:
        # also called from a garbage collection, at any point: so it takes no lock
        if self._loops.pop(watched, None) is not None and self._watchdog is not None:
            watched.heartbeat.on_enter = None
            self._watchdog.remove(watched)

    def exempt_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Report no stall of the loop's current turn: no client waits for it yet. Call it in the loop's thread."""
        entry = self._loops.get(self._by_loop.get(loop))  # type: ignore[arg-type]
        if entry is not None:
            entry.exempt_turn = entry.watched.heartbeat.read().turn_number

    def causes(self, loop: asyncio.AbstractEventLoop) -> dict[str, int]:
        """Return the number of stalls of the loop so far, by cause. A stall that is reported again counts once."""
        return dict(self._causes.get(loop) or dict.fromkeys(CAUSES, 0))

    def collections(self) -> tuple[int, float]:
        """Return the count of garbage collections and their seconds, in this process while a loop was watched."""
        if self._watchdog is None:
            return 0, 0.0
        return self._watchdog.collections.count, self._watchdog.collections.total_s

    def recent_collections(self, since_ns: int) -> list[tuple[int, int, int]]:
        """Return the collections that ended after `since_ns`, oldest first, as (start ns, duration ns, generation)."""
        return [] if self._watchdog is None else self._watchdog.collections.recent(since_ns)

    # --- the thread

    def _ensure_thread(self) -> None:
        """Have the thread watch a loop that begins to run. Without a thread the loop runs all the same."""
        if self._watchdog is None:
            return
        try:
            with self._lock:
                self._wake_or_start(self._watchdog)
        except Exception as error:
            logger.warning("stalls are not watched, the thread could not be started: %s", error)
        if self.on_run is not None:
            self.on_run()

    def _wake_or_start(self, watchdog: Watchdog) -> None:
        if self._has_thread():
            watchdog.wake()
            return
        if not self._ends_at_exit:
            self._ends_at_exit = True
            atexit.register(self.close)
        thread = threading.Thread(
            target=self._run, args=(watchdog, own_number()), name="penstock-watchdog", daemon=True
        )
        # pydevd would stop it together with the loop's thread, and it would sample the stack after the breakpoint
        thread.pydev_do_not_trace = thread.is_pydev_daemon_thread = True  # type: ignore[attr-defined]
        # Ctrl-C may interrupt this call while the thread runs, so the thread registers itself.
        thread.start()
        if thread.is_alive() and not self._has_thread():
            self._thread = thread

    def _has_thread(self) -> bool:
        return self._thread is not None

    def _run(self, watchdog: Watchdog, starter: int) -> None:
        if starter == own_number():
            # the program's own kind of threads, such as gevent's: a wait here would stop its thread
            return
        # if two threads were started, one of them watches
        if not watchdog.claim():
            return
        thread = self._thread = threading.current_thread()
        try:
            self._watch(watchdog)
        except Exception:
            logger.exception("the watch for stalls failed; the next loop that runs starts it again")
        finally:
            watchdog.release()
            if self._thread is thread:
                self._thread = None

    def _watch(self, watchdog: Watchdog) -> None:
        while True:
            found = watchdog.wait()
            if found is None:
                if watchdog.is_stopping or self._is_done(watchdog):
                    return
                continue
            try:
                self._report(found)
            except Exception:
                logger.exception("a stall could not be reported")
            del found

    def _is_done(self, watchdog: Watchdog) -> bool:
        # The owner of the lock may be waiting for this thread to stop: return to look at the request again.
        if not self._lock.acquire(timeout=0.05):
            return False
        try:
            if len(watchdog):
                return False
            # before the lock is released: a loop that begins to run then starts a thread that may watch
            watchdog.release()
            self._thread = None
            return True
        finally:
            self._lock.release()

    def close(self) -> None:
        """Stop the thread; it starts again when a watched loop begins to run."""
        with self._lock:
            self._stop_thread()

    def _stop_thread(self) -> None:
        thread, watchdog = self._thread, self._watchdog
        if thread is None or watchdog is None or thread is threading.current_thread():
            return
        watchdog.stop()
        try:
            join_wholly(thread, LONGEST_STOP_S)
        finally:
            watchdog.resume()

    # --- around a fork

    def before_fork(self) -> None:
        """Stop the thread before the process is copied: Python warns of a fork beside threads."""
        self._lock.acquire()
        self._stop_thread()

    def after_fork_in_parent(self) -> None:
        """Start the thread in the next turn of a running loop: Python's warning comes after this call."""
        with suppress(RuntimeError):
            # a child of a signal handler's fork comes here with a new lock
            self._lock.release()
        if self._thread is not None or self._watchdog is None or not self._watchdog.is_needed():
            return
        for entry in list(self._loops.values()):
            loop = entry.loop()
            if loop is not None and loop.is_running():
                try:
                    loop.call_soon_threadsafe(self._ensure_thread)
                except RuntimeError:
                    continue  # closed meanwhile
                return

    def after_fork_in_child(self) -> None:
        """Forget the parent's thread; the child's starts when a loop of its own runs."""
        self._lock = threading.RLock()
        self._thread = None
        if self._watchdog is not None:
            self._watchdog.forked()

    # --- findings

    def _report(self, found: StallEnd | StallSighting) -> None:
        if isinstance(found, StallEnd):
            self._report_end(found)
        else:
            self._report_stall(found)

    def _report_stall(self, sight: StallSighting) -> None:
        entry = None if sight.watched is None else self._loops.get(sight.watched)
        if entry is None:
            return
        seen = sample(sight)
        if seen.in_debugger:
            entry.exempt(sight.turn)
        if sight.turn == entry.exempt_turn:
            stall_logger.debug("a debugger or the start of a service blocks the loop: not reported as a stall")
            return
        cause = cause_of(sight, int(sys.getswitchinterval() * 1e9))
        finding = stall_finding(sight, cause, seen, entry.name, entry.task_name(seen.handle))
        # listeners must not find the handle alive by this frame
        del seen
        if not sight.again:
            entry.causes[cause] += 1
        entry.add(sight, finding)

    def _report_end(self, ended: StallEnd) -> None:
        entry = self._loops.get(ended.watched)
        if entry is not None:
            entry.end(ended.is_turn, ended.since_ns, ended.until_ns)


def _new_watchdog() -> Watchdog | None:
    if is_pure_requested():
        return None
    try:
        from penstock._core.tasks.watchdog import Watchdog
    except ImportError:
        return None  # not built, or a subinterpreter
    return Watchdog()


stall_watch = StallWatch()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=stall_watch.before_fork,
        after_in_parent=stall_watch.after_fork_in_parent,
        after_in_child=stall_watch.after_fork_in_child,
    )
