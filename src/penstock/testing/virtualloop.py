"""An asyncio event loop whose clock jumps to the next timer, and whose schedule follows from a seed.

asyncio's own code above the turn: `call_soon`, `run_until_complete`, generators, debug mode. What would touch the
machine (threads, descriptors, processes, signals) runs inline or is refused with a line that says so.
"""

from __future__ import annotations

import asyncio
import random
import threading
from asyncio import events
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, TypeVarTuple

from penstock.errors import Deadlock
from penstock.testing.deadlock_report import waits
from penstock.testing.link_profile import Link
from penstock.testing.network import Network
from penstock.testing.networking import MemoryNetworking
from penstock.testing.schedule import Moments, permute, stepping
from penstock.testing.unsupported import Refusals
from penstock.testing.virtualtasks import VirtualFuture, VirtualTask

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    class BaseLoop(asyncio.BaseEventLoop):
        """asyncio's loop with the seams of its own that typeshed leaves out."""

        _ready: deque[Any]
        _stopping: bool
        _clock_resolution: float

        def _check_closed(self) -> None: ...
        def _check_callback(self, callback: Any, method: str) -> None: ...

else:
    BaseLoop = asyncio.BaseEventLoop

__all__ = ["VirtualLoop", "VirtualStatistics"]

Ts = TypeVarTuple("Ts")
STANDSTILL_TURNS = 100_000
# Timers this near to each other are due together, as they are on asyncio's loops.
RESOLUTION_S = 1e-9
STALE_COUNT = 100


@dataclass(frozen=True, slots=True)
class VirtualStatistics:
    """What a virtual loop has done: `advanced_s` virtual seconds in `jumps` of the clock, `turns`, `callbacks` run.

    `tasks` and `futures` are how many it has made.
    """

    now_s: float
    advanced_s: float
    jumps: int
    turns: int
    callbacks: int
    tasks: int
    futures: int


class VirtualLoop(MemoryNetworking, Refusals, BaseLoop):
    """An event loop on virtual time: no test on it ever sleeps, and each run can be had again.

    When nothing is ready the clock jumps to the next timer, so an hour takes what its callbacks take. With a `seed` the
    steps of tasks that are ready in one turn run in an order drawn from it, the same for the same seed; without one, in
    the order of asyncio. When nothing is ready and no timer is set, `Deadlock` is raised out of the loop and names what
    each task waits for; so it is after `standstill_turns` turns in which the clock did not move.

    One thread, always: `run_in_executor` (`asyncio.to_thread`) runs the function on the loop's thread, as a callback of
    its own, whichever executor is named; `call_soon_threadsafe` from another thread raises RuntimeError. Servers and
    connections live in memory; descriptors, signals and subprocesses are refused by NotImplementedError.

    `start_s` is the first value of `time()`, in seconds; `link` is how connections behave; with `record=True`,
    `history` lists every step. `random` is a generator seeded like the loop, apart from the schedule's, for the test's
    own dice; `network` has the connections, and faults for them.
    """

    def __init__(
        self,
        seed: int | None = None,
        *,
        start_s: float = 0.0,
        record: bool = False,
        link: Link | None = None,
        standstill_turns: int = STANDSTILL_TURNS,
    ) -> None:
        super().__init__()
        self._clock_resolution = RESOLUTION_S
        self.seed = seed
        self.random = random.Random(f"test {seed}")
        self.history: list[str] = []
        self.moments = Moments()
        self._dice = None if seed is None else random.Random(f"schedule {seed}")
        self._watched = record
        self._record = record
        self._start_s = self._now_s = float(start_s)
        self._timers: list[tuple[float, int, events.TimerHandle]] = []
        self._timer_count = self._stale_count = 0
        self._task_count = self._future_count = 0
        self._turns = self._jumps = self._callbacks = 0
        self._standstill_turns = standstill_turns
        self._moved_at_turn = 0
        self._quiet: list[asyncio.Future[None]] = []
        self._refused_threads: list[str] = []
        dice = None if seed is None else random.Random(f"network {seed}")
        self.network = Network(self, link or Link(), dice)

    def __repr__(self) -> str:
        state = "closed" if self.is_closed() else "running" if self.is_running() else "idle"
        return f"<VirtualLoop seed={self.seed} {state} at {self._now_s:.6f} s, turn {self._turns}>"

    # --- the clock ---

    def time(self) -> float:
        """The virtual time, in seconds."""
        return self._now_s

    def advance(self, duration_s: float) -> None:
        """Move the clock now, in the middle of a callback, as code does that holds the loop up for `duration_s`."""
        if not duration_s >= 0:
            raise ValueError(f"advance({duration_s!r}): seconds, 0 or more: time does not run backwards")
        self._now_s += duration_s
        self._moved_at_turn = self._turns

    def statistics(self) -> VirtualStatistics:
        """What the loop has done so far."""
        return VirtualStatistics(
            now_s=self._now_s,
            advanced_s=self._now_s - self._start_s,
            jumps=self._jumps,
            turns=self._turns,
            callbacks=self._callbacks,
            tasks=self._task_count,
            futures=self._future_count,
        )

    async def wait_all_blocked(self) -> None:
        """Wait until nothing else is ready: all other tasks wait, and the clock would jump next. It has not yet."""
        waiter = self.create_future()
        self._quiet.append(waiter)
        await waiter

    def cancel_at(self, number: int, task: asyncio.Task[Any] | None = None) -> None:
        """Cancel whichever task is at its turn at this moment, or `task` at this moment of its own.

        Each step of a task has two moments, counted from 1: just before it runs (woken, not resumed) and just after
        (waiting again). The first task of the loop, its main one, is counted only if it is asked for by `task`.
        """
        self.watch()
        self.moments.plan(number, task)

    def watch(self) -> None:
        """Count moments from now on; without it, and without `cancel_at` or `record`, nobody pays for counting."""
        self._watched = True

    # --- scheduling: asyncio's, but for timers, which keep their order among equals ---

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> events.TimerHandle:
        """Run at this virtual time, in seconds; of two at one time, the first set is the first run."""
        if when is None:
            raise TypeError("when cannot be None")
        self._check_closed()
        if self.get_debug():
            self._check_callback(callback, "call_at")
        handle = events.TimerHandle(when, callback, args, self, context)
        handle._scheduled = True  # type: ignore[attr-defined]
        self._timer_count += 1
        heappush(self._timers, (when, self._timer_count, handle))
        return handle

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        self._stale_count += 1
        if self._stale_count > STALE_COUNT and self._stale_count * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if not entry[2]._cancelled]
            heapify(self._timers)
            self._stale_count = 0

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> events.Handle:
        """`call_soon`, for the loop's own thread; another thread's call would come at a moment no seed decides."""
        owner = getattr(self, "_thread_id", None)
        if owner is not None and owner != threading.get_ident():
            name = threading.current_thread().name
            self._refused_threads.append(name)
            raise RuntimeError(
                f"call_soon_threadsafe from thread {name!r}: a VirtualLoop has one thread, or its runs could not be "
                "repeated; use run_in_executor, which runs inline here"
            )
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run the function on the loop's own thread, as a callback, whichever executor is named."""
        self._check_closed()
        if self.get_debug():
            self._check_callback(func, "run_in_executor")
        future = self.create_future()
        self.call_soon(_settle, future, func, args)
        return future

    def create_future(self) -> asyncio.Future[Any]:
        """A future that sets keep in order."""
        self._future_count += 1
        return VirtualFuture(self._future_count, loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        """A task that sets keep in order, named by its number on this loop; a task factory, if set, makes its own."""
        self._check_closed()
        self._task_count += 1
        if options.get("name") is None:
            options["name"] = f"Task-{self._task_count}"
        if self.get_task_factory() is not None:
            task = super().create_task(coro, **options)
        else:
            task = VirtualTask(self._task_count, coro, loop=self, **options)
        if self._task_count == 1:
            self.moments.spare(task)
        return task

    def close(self) -> None:
        """Forget everything that is scheduled."""
        super().close()
        self._timers.clear()

    # --- one turn ---

    def _run_once(self) -> None:
        ready = self._ready
        if self._timers:
            # after advance() there are timers that are due without a jump
            self._take_due()
        if not ready and not self._stopping:
            self._jump()
            self._take_due()
        self._turns += 1
        if self._turns - self._moved_at_turn > self._standstill_turns:
            self._stand_still()
        count = len(ready)
        if self._dice is not None and count > 1:
            permute(ready, self._dice)
        self._callbacks += count
        for _ in range(count):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            if self._watched:
                self._run_watched(handle)
            else:
                handle._run()

    def _jump(self) -> None:
        """Nothing is ready: wake who waits for just that, else go to the next timer, else say that all is over."""
        if self._quiet:
            quiet, self._quiet = self._quiet, []
            awake = [waiter for waiter in quiet if not waiter.done()]
            for waiter in awake:
                waiter.set_result(None)
            if awake:
                return
        self._drop_cancelled()
        if not self._timers:
            raise Deadlock(self._why())
        when_s = self._timers[0][0]
        if when_s > self._now_s:
            self._now_s = when_s
            self._jumps += 1
            self._moved_at_turn = self._turns

    def _take_due(self) -> None:
        """Make the timers that are due ready. Those a nanosecond later are too, and find the clock at their time."""
        timers, until_s = self._timers, self._now_s + RESOLUTION_S
        while timers and timers[0][0] <= until_s:
            when_s, _, handle = heappop(timers)
            handle._scheduled = False  # type: ignore[attr-defined]
            if handle._cancelled:
                self._stale_count -= 1
                continue
            self._now_s = max(self._now_s, when_s)
            self._ready.append(handle)

    def _drop_cancelled(self) -> None:
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heappop(timers)
            self._stale_count -= 1

    def _run_watched(self, handle: Any) -> None:
        if self._record:
            task = stepping(handle)
            name = f"step {task.get_name()}" if task is not None else f"call {_name_of(handle._callback)}"
            self.history.append(f"{self._now_s:.9f} {name}")
        self.moments.run(handle)

    def _why(self) -> str:
        text = f"nothing can ever happen: at {self._now_s:g} s nothing is ready and no timer is set"
        if self._refused_threads:
            text += f" (thread {self._refused_threads[-1]!r} was refused: a VirtualLoop has one thread)"
        return f"{text}; {waits(asyncio.all_tasks(self))}"

    def _stand_still(self) -> None:
        self._moved_at_turn = self._turns
        raise Deadlock(
            f"time stands still: {self._standstill_turns} turns at {self._now_s:g} s and something is always ready "
            f"(code that polls must sleep for more than 0 s); {waits(asyncio.all_tasks(self))}"
        )


def _settle(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if future.done():
        return
    try:
        result = func(*args)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _name_of(callback: Any) -> str:
    return str(getattr(callback, "__qualname__", None) or type(callback).__name__)
