"""What a test does to its loops: tasks left pending or lost, coroutines never awaited, loops held up.

It sees the loops that run while it watches, whoever makes them, by wrapping a handful of asyncio's own functions from
`start` to `finish` and no longer. It knows nothing of pytest.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from asyncio import runners
from typing import TYPE_CHECKING, Any

from penstock.integrations.heartbeat import Pulse
from penstock.loop.hooks import LoopHooks
from penstock.tasks.observers.sites import creator, place_at

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from types import FrameType

    from penstock.tasks.observers.sites import Instruction

__all__ = ["Watch"]

# how asyncio's Task.__del__ reports itself
LOST = "Task was destroyed but it is pending!"
# anyio's plugin runs tests and fixtures in a task of its own, which ends with its loop
RUNNER_TASKS = {("anyio._backends._asyncio", "TestRunner._run_tests_and_fixtures")}


class Watch:
    """Watches one test, from before its fixtures are made until they are gone.

    A task that is pending at the end is the test's if it was made in the test. Where the loop is closed in the test,
    that is settled then; where it outlives the test, fixtures may still end the task, and it is settled in `finish`.
    """

    def __init__(self, *, leaks: bool, over_s: float | None) -> None:
        self._leaks = leaks
        self._pulse = None if over_s is None else Pulse(over_s)
        self._patches: list[tuple[Any, str, Any]] = []
        self._lock = threading.Lock()
        # setup, test or teardown
        self._phase = "setup"
        # every loop that ran; those made while the test itself ran
        self._loops: list[asyncio.AbstractEventLoop] = []
        self._made: list[asyncio.AbstractEventLoop] = []
        # tasks that were there before the test; those pending at its end, on loops that are still open
        self._before: set[asyncio.Task[Any]] = set()
        self._suspects: set[asyncio.Task[Any]] = set()
        # id(task) -> where it was made; by number, since a task that is collected has no weak references any more
        self._sites: dict[int, Instruction | None] = {}
        self._texts: list[str] = []
        self._lost: list[str] = []
        self._unawaited: list[str] = []

    def start(self) -> None:
        """Begin to see loops."""
        base = asyncio.BaseEventLoop
        for holder in (base, LoopHooks):  # penstock's native loop has a run_forever of its own
            self._wrap(holder, "run_forever", self._run_forever)
        self._wrap(base, "__init__", self._init)
        if self._leaks:
            self._wrap(base, "call_exception_handler", self._call_exception_handler)
            self._wrap(runners, "_cancel_all_tasks", self._cancel_all_tasks)
            if hasattr(warnings, "_warn_unawaited_coroutine"):  # the interpreter's own hook, and no promise of it
                self._wrap(warnings, "_warn_unawaited_coroutine", self._warn_unawaited_coroutine)

    def begin(self) -> None:
        """The fixtures are made, the test begins."""
        if self._leaks:
            gc.collect()  # what earlier tests have lost is reported now, and not taken for this one's
        self._before = {task for loop in self._loops for task in asyncio.all_tasks(loop)}
        self._lost.clear()
        self._unawaited.clear()
        self._phase = "test"
        if self._pulse is not None:
            self._pulse.start()

    def end(self) -> str:
        """The test is over: what it is to blame for, as text; "" for nothing."""
        if self._pulse is not None:
            self._texts += self._pulse.stop()
        if self._leaks:
            gc.collect()
            pending = {task for loop in self._loops for task in self._left(loop)}
            self._suspects = {task for task in pending if not task.get_loop().is_closed()}
            self._blame(pending - self._suspects)
        self._phase = "teardown"
        return self._told()

    def finish(self) -> str:
        """The fixtures are gone: see no more; what of the test is still pending, as text."""
        self._blame({task for task in self._suspects if not task.done()})
        for holder, name, original in reversed(self._patches):
            setattr(holder, name, original)
        self._patches.clear()
        self._sites.clear()
        for loop in (*self._loops, *self._made):
            vars(loop).pop("create_task", None)
        self._suspects, self._before, self._loops, self._made = set(), set(), [], []
        return self._told()

    def _told(self) -> str:
        texts, self._texts = self._texts, []
        for what, found in (
            ("lost: collected while pending, because nobody held a reference", self._lost),
            ("never awaited", self._unawaited),
        ):
            if found:
                noun = "coroutine" if found is self._unawaited else "task"
                texts.append(f"{_count(noun, found)} {what}\n" + "".join(f"  {line}\n" for line in found))
                found.clear()
        return "\n".join(text.rstrip("\n") for text in texts)

    # tasks

    def _left(self, loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
        """The loop's pending tasks that the test has made."""
        return [task for task in asyncio.all_tasks(loop) if task not in self._before and not _is_a_runner(task)]

    def _blame(self, tasks: Collection[asyncio.Task[Any]]) -> None:
        """Note the tasks as left pending, with who awaits whom, as it is now."""
        if not tasks:
            return
        from penstock.tasks.awaits.graph import await_graph

        ranked = sorted(tasks, key=lambda task: task.get_name())
        graph = str(await_graph(ranked)).rstrip("\n")
        made = "".join(f"\n  {task.get_name()}{self._made_at(task)}" for task in ranked)
        self._texts.append(f"{_count('task', ranked)} left pending{made}\n{graph}")

    def _made_at(self, task: object) -> str:
        raw = self._sites.get(id(task))
        return "" if raw is None else f" was made at {place_at(*raw)}"

    # asyncio's functions, wrapped

    def _wrap(self, holder: Any, name: str, wrapper: Callable[..., Any]) -> None:
        original = vars(holder)[name]
        self._patches.append((holder, name, original))

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return wrapper(original, *args, **kwargs)

        setattr(holder, name, wrapped)

    def _init(self, original: Callable[..., Any], loop: asyncio.AbstractEventLoop, *args: Any, **kwargs: Any) -> None:
        original(loop, *args, **kwargs)
        if self._phase == "test":
            self._made.append(loop)
            self._note_sites(loop)

    def _note_sites(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop note where each of its tasks is made. On the loop itself: a native class takes no attribute."""
        attributes = getattr(loop, "__dict__", None)
        if not self._leaks or attributes is None or "create_task" in attributes:
            return
        create_task = loop.create_task

        def create_noted_task(*args: Any, **kwargs: Any) -> Any:
            task = create_task(*args, **kwargs)
            self._sites[id(task)] = _site(creator(1))
            return task

        attributes["create_task"] = create_noted_task

    def _run_forever(self, original: Callable[..., Any], loop: asyncio.AbstractEventLoop) -> None:
        self._see(loop)
        if self._pulse is None:
            original(loop)
            return
        with self._pulse.running(loop):
            original(loop)

    def _see(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if any(seen is loop for seen in self._loops):
                return
            self._loops.append(loop)
        self._note_sites(loop)
        if self._phase == "test" and not any(made is loop for made in self._made):
            # an older loop, of a fixture shared by several tests: what is on it now was not made by this one
            self._before |= asyncio.all_tasks(loop)

    def _cancel_all_tasks(self, original: Callable[..., Any], loop: asyncio.AbstractEventLoop) -> None:
        # asyncio.Runner is about to cancel what the program has left
        if self._phase == "test":
            self._blame(self._left(loop))
        elif self._phase == "teardown":
            here = {task for task in self._suspects if task.get_loop() is loop}
            self._blame({task for task in here if not task.done()})
            self._suspects -= here
        original(loop)

    def _call_exception_handler(
        self, original: Callable[..., Any], loop: asyncio.AbstractEventLoop, context: dict[str, Any]
    ) -> None:
        if context.get("message") == LOST:
            task = context.get("task")
            self._lost.append(f"{task!r}{self._made_at(task)}")
        original(loop, context)

    def _warn_unawaited_coroutine(self, original: Callable[..., Any], coro: Any) -> None:
        code = getattr(coro, "cr_code", None)
        where = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
        self._unawaited.append(f"{getattr(coro, '__qualname__', coro)}{where}")
        original(coro)


def _site(frame: FrameType | None) -> Instruction | None:
    """Return the place in the program's own code: what makes tasks for others, as a group does, is passed over."""
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith("penstock."):
            return frame.f_code, frame.f_lasti
        frame = frame.f_back
    return None


def _is_a_runner(task: asyncio.Task[Any]) -> bool:
    coro: Any = getattr(task, "_coro", None)
    frame = getattr(coro, "cr_frame", None)
    module = frame.f_globals.get("__name__") if frame is not None else None
    return (module, getattr(coro, "__qualname__", "")) in RUNNER_TASKS


def _count(noun: str, found: Iterable[object]) -> str:
    count = len(list(found))
    return f"{count} {noun} was" if count == 1 else f"{count} {noun}s were"
