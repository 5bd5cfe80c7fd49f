"""Stalls of penstock's native loops, caught while they last: a finding with the stack, the task and the cause.

One thread a process, `stall_watch`'s, is there while a loop is watched. A loop that is not penstock's own writes no
heartbeat, so nothing here sees it stall: `watch` says so by False, as it does where the native code is not built.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
import time
from dataclasses import replace
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from penstock.purity import is_native_disabled
from penstock.tasks.awaits.frames import frame_lines, frame_of_thread, outward, short_repr, user_site
from penstock.tasks.detectors.debuggers import is_stepped, stands_in_debugger
from penstock.tasks.detectors.stall_causes import CAUSES, Ended, Sighting, cause_of, figures_of
from penstock.tasks.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from penstock._core.tasks.heartbeat import Heartbeat
    from penstock._core.tasks.watchdog import Watchdog, WatchedLoop
    from penstock.tasks.finding import Site
    from penstock.tasks.finding_log import FindingLog

__all__ = ["StallWatch", "stall_watch"]

logger = logging.getLogger("penstock.tasks")
stall_logger = logging.getLogger("penstock.tasks.stall")

# How long a fork or the program's end waits for the thread to end; a listener of findings may be at work in it.
LONGEST_STOP_S = 1.0
# a stall that long is none
LONGEST_S = 1e9
# frames that are looked through for the program's own code
MOST_DEPTH = 200


class _Entry:
    """A loop under watch. Held weakly, and its findings too, since their listeners may hold the loop."""

    __slots__ = ("causes", "describe", "excused_turn", "findings", "loop", "name", "told", "watched")

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
        # the last finding of a stall that lasts; by whether it is a turn, and since when
        self.told: dict[tuple[bool, int], Finding] = {}
        # the turn that a debugger was last seen in, or that the program keeps on purpose
        self.excused_turn = 0


def _name_of(task: asyncio.Task[Any]) -> str | None:
    return task.get_name()


class StallWatch:
    """The watchdog's Python half: who is watched, the thread, and findings made of what it sees."""

    def __init__(self) -> None:
        self._watchdog = _new_watchdog()
        self._thread: threading.Thread | None = None
        # Taken again by a signal's handler that forks or runs a loop. What the thread itself does needs none.
        self._lock = threading.RLock()
        self._entries: dict[WatchedLoop, _Entry] = {}
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, WatchedLoop] = WeakKeyDictionary()
        self._causes: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, int]] = WeakKeyDictionary()
        self._ends_at_exit = False

    def watch(
        self,
        loop: asyncio.AbstractEventLoop,
        heartbeat: Heartbeat | None,
        stall_s: float,
        findings: FindingLog,
        describe_task: Callable[[asyncio.Task[Any]], str | None] | None = None,
        name: str = "",
    ) -> bool:
        """Report callbacks and turns of `loop` that last `stall_s` or longer to `findings`, once then, once at ten
        times that. Whether it is watched: not without heartbeat, which only a native loop has.

        `describe_task` names a task in place of its own name, in the watchdog's thread; it must not hold the loop.
        """
        watchdog = self._watchdog
        if watchdog is None or heartbeat is None:
            return False
        self.unwatch(loop)
        watched = watchdog.add(heartbeat, int(min(stall_s, LONGEST_S) * 1e9))
        gone = ref(loop, lambda _, watched=watched: self._drop(watched))  # type: ignore[misc]
        causes = self._causes.setdefault(loop, dict.fromkeys(CAUSES, 0))
        self._entries[watched] = _Entry(gone, watched, ref(findings), describe_task or _name_of, name, causes)
        self._by_loop[loop] = watched
        heartbeat.on_enter = self._see_to_thread
        if watchdog.is_needed():
            self._see_to_thread()
        return True

    def unwatch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch the loop no more; one that is not watched is left alone."""
        watched = self._by_loop.pop(loop, None)
        if watched is not None:
            entry = self._entries.get(watched)
            self._drop(watched)
            if entry is not None:
                _tell_ends(entry)

    def _drop(self, watched: WatchedLoop) -> None:
        # also called by a garbage collection, wherever it comes: so without the lock
        if self._entries.pop(watched, None) is not None and self._watchdog is not None:
            watched.heartbeat.on_enter = None
            self._watchdog.remove(watched)

    def excuse_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Report no stall of the turn that the loop is in: nothing waits for it yet. Call it in the loop's thread."""
        entry = self._entries.get(self._by_loop.get(loop))  # type: ignore[arg-type]
        if entry is not None:
            entry.excused_turn = entry.watched.heartbeat.look()[2]

    def causes(self, loop: asyncio.AbstractEventLoop) -> dict[str, int]:
        """Cause -> how many stalls the loop has had so far, those told of again counted once."""
        return dict(self._causes.get(loop) or dict.fromkeys(CAUSES, 0))

    def collections(self) -> tuple[int, float]:
        """(garbage collections, the seconds they took together) in this process while a loop was watched."""
        if self._watchdog is None:
            return 0, 0.0
        return self._watchdog.collections.count, self._watchdog.collections.total_s

    def recent_collections(self, since_ns: int) -> list[tuple[int, int, int]]:
        """(when it began, how long it took, generation) of those not over before, oldest first; nanoseconds."""
        return [] if self._watchdog is None else self._watchdog.collections.recent(since_ns)

    # the thread

    def _see_to_thread(self) -> None:
        """A loop begins to run: the thread is there, and looks at it. That it cannot be had is no reason not to run."""
        if self._watchdog is None:
            return
        try:
            with self._lock:
                self._wake_or_start(self._watchdog)
        except Exception as error:
            logger.warning("no thread to watch for stalls: %s", error)

    def _wake_or_start(self, watchdog: Watchdog) -> None:
        if self._has_thread():
            watchdog.wake()
            return
        if not self._ends_at_exit:
            self._ends_at_exit = True
            atexit.register(self.close)
        thread = threading.Thread(target=self._run, args=(watchdog,), name="penstock-watchdog", daemon=True)
        # pydevd would stop it with the loop's thread, and it would look at a stack of afterwards
        thread.pydev_do_not_trace = thread.is_pydev_daemon_thread = True  # type: ignore[attr-defined]
        # Ctrl-C may come out of this while the thread runs: so it makes itself known, and is not made known from here
        thread.start()
        if thread.is_alive() and not self._has_thread():
            self._thread = thread

    def _has_thread(self) -> bool:
        return self._thread is not None

    def _run(self, watchdog: Watchdog) -> None:
        # of two that were started, one watches
        if not watchdog.claim():
            return
        thread = self._thread = threading.current_thread()
        try:
            self._watch(watchdog)
        except Exception:
            logger.exception("the watch for stalls failed; it begins anew with the next loop that runs")
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
                self._tell(found)
            except Exception:
                logger.exception("a stall could not be reported")
            del found

    def _is_done(self, watchdog: Watchdog) -> bool:
        # Whoever has the lock may be waiting for this very thread to stop: look again what is asked of it.
        if not self._lock.acquire(timeout=0.05):
            return False
        try:
            if len(watchdog):
                return False
            # before the lock is: a loop that begins to run now starts a thread that may watch
            watchdog.release()
            self._thread = None
            return True
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the thread; it comes back when a loop that is watched begins to run."""
        with self._lock:
            self._stop_thread()

    def _stop_thread(self) -> None:
        thread, watchdog = self._thread, self._watchdog
        if thread is None or watchdog is None or thread is threading.current_thread():
            return
        watchdog.stop()
        try:
            thread.join(LONGEST_STOP_S)
        finally:
            watchdog.resume()

    # around a fork

    def before_fork(self) -> None:
        """No thread of ours may be there when the process is copied: Python warns of forks beside threads."""
        self._lock.acquire()
        self._stop_thread()

    def after_fork_in_parent(self) -> None:
        """The thread is back in the next turn of a loop that runs: the warning is given after this call."""
        self._lock.release()
        if self._thread is not None or self._watchdog is None or not self._watchdog.is_needed():
            return
        for entry in list(self._entries.values()):
            loop = entry.loop()
            if loop is not None and loop.is_running():
                try:
                    loop.call_soon_threadsafe(self._see_to_thread)
                except RuntimeError:
                    continue  # closed meanwhile
                return

    def after_fork_in_child(self) -> None:
        """The child has no thread; it gets one when a loop of its own runs."""
        self._lock = threading.RLock()
        self._thread = None
        if self._watchdog is not None:
            self._watchdog.forked()

    # what it saw

    def _tell(self, found: tuple[Any, ...]) -> None:
        if len(found) == len(Ended._fields):
            self._end(Ended._make(found))
        else:
            self._report(Sighting._make(found))

    def _report(self, sight: Sighting) -> None:
        # first of all what changes: the loop's thread goes on as soon as it has the GIL
        watched = sight.watched
        entry = self._entries.get(watched) if watched is not None else None
        if watched is None or entry is None:
            return
        frame = None if sight.is_over else frame_of_thread(watched.heartbeat.look()[4])
        running = None if sight.is_over else watched.heartbeat.running_now()
        # who runs the loop is not what runs in it
        places = list(takewhile(_is_inside, islice(outward(frame), MOST_DEPTH)))
        if stands_in_debugger(places) or is_stepped(frame):
            entry.excused_turn = sight.turn
            entry.told.clear()
        del frame
        if sight.turn == entry.excused_turn:
            stall_logger.debug("a debugger or the start of a service keeps the loop: no stall")
            return
        task = None if sight.is_over else _task_of(entry.loop(), running)
        cause = cause_of(sight, int(sys.getswitchinterval() * 1e9))
        evidence = figures_of(sight, cause)
        evidence["stack"] = frame_lines(places)
        evidence["ran"] = None if running is None else short_repr(running)
        task_name = None if task is None else entry.describe(task)
        del running, task
        if not sight.again:
            entry.causes[cause] += 1
        findings = entry.findings()
        if findings is None:
            return
        finding = _finding(sight, entry.name, user_site(places), task_name, evidence)
        if not sight.is_over:
            entry.told[sight.is_turn, sight.since_ns] = finding
        if not findings.add(finding):
            entry.told.pop((sight.is_turn, sight.since_ns), None)

    def _end(self, ended: Ended) -> None:
        entry = self._entries.get(ended.watched)
        if entry is not None:
            _tell_end(entry, ended.is_turn, ended.since_ns, ended.until_ns)


def _tell_ends(entry: _Entry) -> None:
    """The loop is watched no more: tell the end of the stalls whose end the watchdog has not seen."""
    for is_turn, since_ns in list(entry.told):
        until_ns = entry.watched.heartbeat.ended(is_turn, since_ns)
        _tell_end(entry, is_turn, since_ns, until_ns or time.monotonic_ns())


def _tell_end(entry: _Entry, is_turn: bool, since_ns: int, until_ns: int) -> None:
    """Tell the whole length of a stall, once. The watchdog's thread and the loop's may both come here."""
    told, findings = entry.told.pop((is_turn, since_ns), None), entry.findings()
    if told is not None and findings is not None:
        findings.replace(told, _with_end(told, until_ns - since_ns))


def _is_inside(place: tuple[CodeType, int]) -> bool:
    return place[0].co_name != "run_forever"


def _task_of(loop: asyncio.AbstractEventLoop | None, running: object) -> asyncio.Task[Any] | None:
    """The task whose step runs: as asyncio says, else the one whose method the handle calls."""
    task = None if loop is None else asyncio.current_task(loop)
    if task is None:
        task = getattr(getattr(running, "_callback", None), "__self__", None)
    return task if isinstance(task, asyncio.Task) else None


def _finding(sight: Sighting, loop: str, site: Site | None, task: str | None, evidence: dict[str, Any]) -> Finding:
    return Finding(
        kind="stall",
        message=_message(evidence, site),
        site=site,
        task=task,
        since_s=sight.since_ns / 1e9,
        wall_time_s=time.time() - (time.monotonic_ns() - sight.since_ns) / 1e9,
        loop=loop,
        evidence=evidence,
    )


def _with_end(told: Finding, lasted_ns: int) -> Finding:
    evidence = {**told.evidence, "lasted_s": lasted_ns / 1e9, "ended": True}
    return replace(told, message=_message(evidence, told.site), evidence=evidence)


def _message(evidence: dict[str, Any], site: Site | None) -> str:
    what, has = "a callback", "lasted" if evidence["ended"] else "has lasted"
    if evidence["turn"]:
        so_far = "or more " if evidence["ended"] else ""
        what = "a turn" if evidence["over"] else f"a turn of {evidence['callbacks'] + 1} {so_far}callbacks"
    where = "" if site is None else f" in {site}"
    cause = evidence["cause"] + (", blocked" if evidence["blocked"] else "")
    return f"{what} {has} {evidence['lasted_s']:.3f} s{where} ({cause})"


def _new_watchdog() -> Watchdog | None:
    if is_native_disabled():
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
