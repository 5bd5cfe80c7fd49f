"""An asyncio event loop whose clock jumps to the next timer, and whose schedule follows from a seed.

Above the turn it is asyncio's own code: `call_soon`, `run_until_complete`, generators, debug mode. Calls for threads
run inline. Methods that need descriptors, processes or signals raise NotImplementedError.
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
from penstock.testing.deadlock_report import describe_tasks
from penstock.testing.link_profile import Link
from penstock.testing.network import Network
from penstock.testing.networking import MemoryNetworking
from penstock.testing.schedule import Moments, VirtualFuture, VirtualTask, permute, task_of
from penstock.testing.unsupported import UnsupportedMethods

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    class BaseLoop(asyncio.BaseEventLoop):
        """asyncio's loop with the private attributes that typeshed leaves out."""

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
# Timers this close to each other are due together, as they are on asyncio's loops.
RESOLUTION_S = 1e-9
STALE_COUNT = 100


@dataclass(frozen=True, slots=True)
class VirtualStatistics:
    """The counts of a virtual loop: `advanced_s` virtual seconds in `jumps` of the clock, `turns`, `callbacks` run.

    `now_s` is the virtual time in seconds. `tasks` and `futures` are the numbers of those made.
    """

    now_s: float
    advanced_s: float
    jumps: int
    turns: int
    callbacks: int
    tasks: int
    futures: int


class VirtualLoop(MemoryNetworking, UnsupportedMethods, BaseLoop):
    """An event loop on virtual time: tests on it never sleep, and each run can be repeated.

    When nothing is ready the clock jumps to the next timer, so an hour takes as long as its callbacks. With a `seed`
    the steps of tasks that are ready in one turn run in an order drawn from it; without one, in asyncio's order. When
    nothing is ready and no timer is set, `Deadlock` is raised out of the loop. Its message names where each task waits.
    `Deadlock` is raised too after `standstill_turns` turns in which the clock did not move.

    There is one thread: `run_in_executor` (`asyncio.to_thread`) runs the function on the loop's thread, as a callback
    of its own, whichever executor is named; `call_soon_threadsafe` from another thread raises RuntimeError. Servers and
    connections live in memory. Methods for descriptors, signals and subprocesses raise NotImplementedError.

    `start_s` is the first value of `time()`, in seconds. `link` has the properties of connections. With `record=True`,
    `history` lists every step. `random` is a generator for the test's own use, seeded like the loop and independent of
    the schedule. `network` has the connections, and faults for them.
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
        self._counts_moments = record
        self._record = record
        self._start_s = self._now_s = float(start_s)
        self._timers: list[tuple[float, int, events.TimerHandle]] = []
        self._timer_count = self._stale_count = 0
        self._task_count = self._future_count = 0
        self._turns = self._jumps = self._callbacks = 0
        self._standstill_turns = standstill_turns
        self._moved_at_turn = 0
        self._blocked_waiters: list[asyncio.Future[None]] = []
        self._foreign_threads: list[str] = []
        dice = None if seed is None else random.Random(f"network {seed}")
        self.network = Network(self, link or Link(), dice)

    def __repr__(self) -> str:
        state = "closed" if self.is_closed() else "running" if self.is_running() else "idle"
        return f"<VirtualLoop seed={self.seed} {state} at {self._now_s:.6f} s, turn {self._turns}>"

    # --- the clock ---

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now_s

    def advance(self, duration_s: float) -> None:
        """Move the clock by `duration_s` within a callback, as code does that blocks the loop. Raises ValueError."""
        if not duration_s >= 0:
            raise ValueError(f"advance({duration_s!r}): seconds, 0 or more: time does not run backwards")
        self._now_s += duration_s
        self._moved_at_turn = self._turns

    def statistics(self) -> VirtualStatistics:
        """Return the loop's counts so far."""
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
        """Wait until all other tasks wait: nothing else is ready, and the clock has not yet jumped."""
        waiter = self.create_future()
        self._blocked_waiters.append(waiter)
        await waiter

    def cancel_at(self, number: int, task: asyncio.Task[Any] | None = None) -> None:
        """Cancel the task that runs at the moment `number`, or `task` at this moment of its own.

        Each step of a task has two moments, counted from 1: just before it runs (woken, not resumed) and just after
        (waiting again). The loop's first task, its main one, is counted only if it is given as `task`. Raises
        ValueError for a number below 1.
        """
        self.count_moments()
        self.moments.plan(number, task)

    def count_moments(self) -> None:
        """Count moments from now on; `cancel_at` and `record=True` do so too."""
        self._counts_moments = True

    # --- scheduling: asyncio's, except that timers due at one time keep their order ---

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> events.TimerHandle:
        """Run at the virtual time `when`, in seconds, and return the timer; timers due at one time keep their order.

        Raises TypeError for None.
        """
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
        """Do as `call_soon`, and return its handle. RuntimeError in another thread: no seed determines its calls."""
        owner = getattr(self, "_thread_id", None)
        if owner is not None and owner != threading.get_ident():
            name = threading.current_thread().name
            self._foreign_threads.append(name)
            raise RuntimeError(
                f"call_soon_threadsafe from thread {name!r}: a VirtualLoop has one thread, or its runs could not be "
                "repeated; use run_in_executor, which runs inline here"
            )
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run the function on the loop's thread, as a callback, for any executor. Return the future of its result."""
        self._check_closed()
        if self.get_debug():
            self._check_callback(func, "run_in_executor")
        future = self.create_future()
        self.call_soon(_complete, future, func, args)
        return future

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future with a stable order in sets."""
        self._future_count += 1
        return VirtualFuture(self._future_count, loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        """Return a task with a stable order in sets, named by its number on this loop, or the task factory's."""
        self._check_closed()
        self._task_count += 1
        if options.get("name") is None:
            options["name"] = f"Task-{self._task_count}"
        if self.get_task_factory() is not None:
            task = super().create_task(coro, **options)
        else:
            task = VirtualTask(self._task_count, coro, loop=self, **options)
        if self._task_count == 1:
            self.moments.exclude(task)
        return task

    def close(self) -> None:
        """Close the loop and forget everything that is scheduled."""
        super().close()
        self._timers.clear()

    # --- one turn ---

    def _run_once(self) -> None:
        ready = self._ready
        if self._timers:
            # after advance() timers are due without a jump
            self._take_due()
        if not ready and not self._stopping:
            self._jump()
            self._take_due()
        self._turns += 1
        if self._turns - self._moved_at_turn > self._standstill_turns:
            self._raise_standstill()
        count = len(ready)
        if self._dice is not None and count > 1:
            permute(ready, self._dice)
        self._callbacks += count
        for _ in range(count):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            if self._counts_moments:
                self._run_counted(handle)
            else:
                handle._run()

    def _jump(self) -> None:
        """Wake the waiters of `wait_all_blocked`, else jump to the next timer. Raises Deadlock if there is neither."""
        if self._blocked_waiters:
            waiters, self._blocked_waiters = self._blocked_waiters, []
            awake = [waiter for waiter in waiters if not waiter.done()]
            for waiter in awake:
                waiter.set_result(None)
            if awake:
                return
        self._drop_cancelled()
        if not self._timers:
            raise Deadlock(self._deadlock_text())
        when_s = self._timers[0][0]
        if when_s > self._now_s:
            self._now_s = when_s
            self._jumps += 1
            self._moved_at_turn = self._turns

    def _take_due(self) -> None:
        """Make due timers ready, and timers due within the clock's resolution, which find the clock at their time."""
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

    def _run_counted(self, handle: Any) -> None:
        if self._record:
            task = task_of(handle)
            name = f"step {task.get_name()}" if task is not None else f"call {_name_of(handle._callback)}"
            self.history.append(f"{self._now_s:.9f} {name}")
        self.moments.run(handle)

    def _deadlock_text(self) -> str:
        text = f"nothing can ever happen: at {self._now_s:g} s nothing is ready and no timer is set"
        if self._foreign_threads:
            text += f" (thread {self._foreign_threads[-1]!r} was refused: a VirtualLoop has one thread)"
        return f"{text}; {describe_tasks(asyncio.all_tasks(self))}"

    def _raise_standstill(self) -> None:
        self._moved_at_turn = self._turns
        raise Deadlock(
            f"time stands still: {self._standstill_turns} turns at {self._now_s:g} s and something is always ready "
            f"(code that polls must sleep for more than 0 s); {describe_tasks(asyncio.all_tasks(self))}"
        )


def _complete(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
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
