"""Finds the faults of one test on its loops: tasks left pending or lost, coroutines never awaited, stalls.

It wraps a few of asyncio's own functions from `start` to `finish`, so it sees every loop that runs in between. It does
not depend on pytest.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from asyncio import runners
from typing import TYPE_CHECKING, Any

from penstock.integrations.heartbeat import HeartbeatThread
from penstock.loop.runs import RunHooks
from penstock.tasks.observers.sites import creator, place_at

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from types import FrameType

    from penstock.tasks.observers.sites import Instruction

__all__ = ["LeakWatch"]

# how asyncio's Task.__del__ reports a lost task
LOST_MESSAGE = "Task was destroyed but it is pending!"
# anyio's plugin runs tests and fixtures in a task of its own, which ends with its loop
RUNNER_TASKS = {("anyio._backends._asyncio", "TestRunner._run_tests_and_fixtures")}


class LeakWatch:
    """The watch over one test, from before its fixtures are made until they are torn down.

    A task that is pending at the end belongs to the test if it was made during the test. If its loop is closed in the
    test, it is reported then. If its loop outlives the test, a fixture may still end the task: `finish` reports it.
    """

    def __init__(self, *, leaks: bool, threshold_s: float | None) -> None:
        self._leaks = leaks
        self._heartbeat = None if threshold_s is None else HeartbeatThread(threshold_s)
        self._patches: list[tuple[Any, str, Any]] = []
        self._lock = threading.Lock()
        # setup, test or teardown
        self._phase = "setup"
        # every loop that ran; the loops made while the test itself ran
        self._loops: list[asyncio.AbstractEventLoop] = []
        self._test_loops: list[asyncio.AbstractEventLoop] = []
        # tasks made before the test; tasks pending at its end, on loops that are still open
        self._earlier: set[asyncio.Task[Any]] = set()
        self._pending: set[asyncio.Task[Any]] = set()
        # id(task) -> where it was made; by id, since a task that is being collected has no weak references any more
        self._sites: dict[int, Instruction | None] = {}
        self._reports: list[str] = []
        self._lost: list[str] = []
        self._unawaited: list[str] = []

    def start(self) -> None:
        """Wrap asyncio's functions: loops that run from now on are watched."""
        base = asyncio.BaseEventLoop
        for holder in (base, RunHooks):  # penstock's native loop has a run_forever of its own
            self._wrap(holder, "run_forever", self._run_forever)
        self._wrap(base, "__init__", self._init)
        if self._leaks:
            self._wrap(base, "call_exception_handler", self._call_exception_handler)
            self._wrap(runners, "_cancel_all_tasks", self._cancel_all_tasks)
            if hasattr(warnings, "_warn_unawaited_coroutine"):  # CPython's own hook, which it does not promise
                self._wrap(warnings, "_warn_unawaited_coroutine", self._warn_unawaited_coroutine)

    def begin_test(self) -> None:
        """Begin the test itself, after its fixtures are made."""
        if self._leaks:
            gc.collect()  # tasks lost by earlier tests are reported now, and not for this test
        self._earlier = {task for loop in self._loops for task in asyncio.all_tasks(loop)}
        self._lost.clear()
        self._unawaited.clear()
        self._phase = "test"
        if self._heartbeat is not None:
            self._heartbeat.start()

    def end_test(self) -> str:
        """End the test itself. Return its faults as text, "" for none."""
        if self._heartbeat is not None:
            self._reports += self._heartbeat.stop()
        if self._leaks:
            gc.collect()
            pending = {task for loop in self._loops for task in self._pending_tasks(loop)}
            self._pending = {task for task in pending if not task.get_loop().is_closed()}
            self._report_pending(pending - self._pending)
        self._phase = "teardown"
        return self._take_report()

    def finish(self) -> str:
        """Unwrap asyncio's functions, after the fixtures' teardown. Return the test's pending tasks as text."""
        self._report_pending({task for task in self._pending if not task.done()})
        for holder, name, original in reversed(self._patches):
            setattr(holder, name, original)
        self._patches.clear()
        self._sites.clear()
        for loop in (*self._loops, *self._test_loops):
            vars(loop).pop("create_task", None)
        self._pending, self._earlier, self._loops, self._test_loops = set(), set(), [], []
        return self._take_report()

    def _take_report(self) -> str:
        reports, self._reports = self._reports, []
        for fault, found in (
            ("lost: collected while pending, because nothing held a reference", self._lost),
            ("never awaited", self._unawaited),
        ):
            if found:
                noun = "coroutine" if found is self._unawaited else "task"
                reports.append(f"{_count(noun, found)} {fault}\n" + "".join(f"  {line}\n" for line in found))
                found.clear()
        return "\n".join(text.rstrip("\n") for text in reports)

    # --- tasks ---

    def _pending_tasks(self, loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
        """Return the loop's pending tasks that the test has made."""
        return [task for task in asyncio.all_tasks(loop) if task not in self._earlier and not _is_runner(task)]

    def _report_pending(self, tasks: Collection[asyncio.Task[Any]]) -> None:
        """Report the tasks as left pending, with the await graph as it is now."""
        if not tasks:
            return
        from penstock.tasks.awaits.graph import await_graph

        ranked = sorted(tasks, key=lambda task: task.get_name())
        graph = str(await_graph(ranked)).rstrip("\n")
        made = "".join(f"\n  {task.get_name()}{self._site_text(task)}" for task in ranked)
        self._reports.append(f"{_count('task', ranked)} left pending{made}\n{graph}")

    def _site_text(self, task: object) -> str:
        raw = self._sites.get(id(task))
        return "" if raw is None else f" was made at {place_at(*raw)}"

    # --- asyncio's functions, wrapped ---

    def _wrap(self, holder: Any, name: str, wrapper: Callable[..., Any]) -> None:
        original = vars(holder)[name]
        self._patches.append((holder, name, original))

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return wrapper(original, *args, **kwargs)

        setattr(holder, name, wrapped)

    def _init(self, original: Callable[..., Any], loop: asyncio.AbstractEventLoop, *args: Any, **kwargs: Any) -> None:
        original(loop, *args, **kwargs)
        if self._phase == "test":
            self._test_loops.append(loop)
            self._record_sites(loop)

    def _record_sites(self, loop: asyncio.AbstractEventLoop) -> None:
        """Record where each task of the loop is made. Set on the instance: a native class takes no attribute."""
        attributes = getattr(loop, "__dict__", None)
        if not self._leaks or attributes is None or "create_task" in attributes:
            return
        create_task = loop.create_task

        def create_recorded_task(*args: Any, **kwargs: Any) -> Any:
            task = create_task(*args, **kwargs)
            self._sites[id(task)] = _site(creator(1))
            return task

        attributes["create_task"] = create_recorded_task

    def _run_forever(self, original: Callable[..., Any], loop: asyncio.AbstractEventLoop) -> None:
        self._add_loop(loop)
        if self._heartbeat is None:
            original(loop)
            return
        with self._heartbeat.running(loop):
            original(loop)

    def _add_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if any(known is loop for known in self._loops):
                return
            self._loops.append(loop)
        self._record_sites(loop)
        if self._phase == "test" and not any(made is loop for made in self._test_loops):
            # an older loop, of a fixture that several tests share: its tasks up to now were not made by this test
            self._earlier |= asyncio.all_tasks(loop)

    def _cancel_all_tasks(self, original: Callable[..., Any], loop: asyncio.AbstractEventLoop) -> None:
        # asyncio.Runner is about to cancel the tasks that the program has left
        if self._phase == "test":
            self._report_pending(self._pending_tasks(loop))
        elif self._phase == "teardown":
            here = {task for task in self._pending if task.get_loop() is loop}
            self._report_pending({task for task in here if not task.done()})
            self._pending -= here
        original(loop)

    def _call_exception_handler(
        self, original: Callable[..., Any], loop: asyncio.AbstractEventLoop, context: dict[str, Any]
    ) -> None:
        if context.get("message") == LOST_MESSAGE:
            task = context.get("task")
            self._lost.append(f"{task!r}{self._site_text(task)}")
        original(loop, context)

    def _warn_unawaited_coroutine(self, original: Callable[..., Any], coro: Any) -> None:
        code = getattr(coro, "cr_code", None)
        where = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
        self._unawaited.append(f"{getattr(coro, '__qualname__', coro)}{where}")
        original(coro)


def _site(frame: FrameType | None) -> Instruction | None:
    """Return the innermost place outside penstock: the caller of a task group, not the group."""
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith("penstock."):
            return frame.f_code, frame.f_lasti
        frame = frame.f_back
    return None


def _is_runner(task: asyncio.Task[Any]) -> bool:
    coro: Any = getattr(task, "_coro", None)
    frame = getattr(coro, "cr_frame", None)
    module = frame.f_globals.get("__name__") if frame is not None else None
    return (module, getattr(coro, "__qualname__", "")) in RUNNER_TASKS


def _count(noun: str, found: Iterable[object]) -> str:
    count = len(list(found))
    return f"{count} {noun} was" if count == 1 else f"{count} {noun}s were"
