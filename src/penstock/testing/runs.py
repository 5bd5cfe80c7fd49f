"""Runs a program on virtual loops: once, or under many schedules and cancellations until one run fails.

Deterministic simulation: a run is a function of its seed, so the seed of a failure repeats it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from penstock.errors import ExplorationFailed
from penstock.testing.virtualloop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

__all__ = ["Exploration", "explore", "run"]

T = TypeVar("T")
SEEDS = range(100)


def run(
    main: Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]],
    *,
    seed: int | None = None,
    cancel_at: int | None = None,
    **options: Any,
) -> T:
    """Run a coroutine to its end on a `VirtualLoop`, as `asyncio.run` does.

    `main` is the coroutine, or a function that makes it. `seed` determines the schedule. `cancel_at` is a moment that
    `explore` reported: the task that runs at that moment is cancelled, unless it is the main task. `options` are the
    VirtualLoop's. Returns the coroutine's result. Raises the coroutine's exception, or `Deadlock` when nothing is
    ready and no timer is set.
    """
    loop = VirtualLoop(seed, **options)
    if cancel_at is not None:
        loop.cancel_at(cancel_at)
    return _run_on(loop, main)


def _run_on(loop: VirtualLoop, main: Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run to the end on a given loop, then cancel the remaining tasks and close the loop."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop()
        return runner.run(main() if callable(main) else main)


@dataclass(frozen=True, slots=True)
class Exploration:
    """The result of an exploration: `runs` in total, over `seeds` seeds; in `cancels` of them a task was cancelled."""

    runs: int
    seeds: int
    cancels: int


def explore(
    main_factory: Callable[[], Coroutine[Any, Any, Any]],
    *,
    seeds: Iterable[int] = SEEDS,
    cancel: bool | Callable[[asyncio.Task[Any]], bool] = True,
    most_cancels: int | None = None,
    **options: Any,
) -> Exploration:
    """Run `main_factory()` once for each seed, then once more for each moment at which a task can be cancelled.

    `cancel` says whether tasks are cancelled, or is a function that says which ones; the main task never is.
    `most_cancels` bounds the number of runs with a cancellation for each seed: their moments are spread evenly.
    `options` are the VirtualLoop's. Returns the counts of the exploration.

    A run fails if main raises (except CancelledError after a cancellation), if the loop deadlocks, if a callback
    raises, or if a task's exception is never retrieved. Raises `ExplorationFailed` for the first run that fails: its
    message is one line with the seed, the moment and the call of `run` that repeats the run.
    """
    runs = seed_count = cancels = 0
    for seed in seeds:
        seed_count += 1
        loop = _loop(seed, options)
        loop.moments.wanted = cancel if callable(cancel) else lambda _: bool(cancel)
        _run(main_factory, loop, None)
        chosen = _evenly(loop.moments.offered, most_cancels)
        for moment in chosen:
            loop = _loop(seed, options)
            loop.cancel_at(moment)
            _run(main_factory, loop, moment)
        cancels += len(chosen)
        runs += 1 + len(chosen)
    return Exploration(runs=runs, seeds=seed_count, cancels=cancels)


def _loop(seed: int, options: dict[str, Any]) -> VirtualLoop:
    loop = VirtualLoop(seed, **options)
    loop.count_moments()
    return loop


def _evenly(moments: list[int], most: int | None) -> list[int]:
    if most is None or len(moments) <= most:
        return moments
    return [moments[at * len(moments) // most] for at in range(most)]


def _run(main_factory: Callable[[], Coroutine[Any, Any, Any]], loop: VirtualLoop, moment: int | None) -> None:
    """Run once. Raises ExplorationFailed."""
    reported: list[BaseException] = []
    loop.set_exception_handler(lambda _, context: _collect(reported, context))
    error: BaseException | None = None
    try:
        _run_on(loop, main_factory)
    except asyncio.CancelledError as cancelled:
        error = None if loop.moments.cancelled else cancelled
    except Exception as failure:
        error = failure
    error = error or loop.moments.unretrieved() or next(iter(reported), None)
    if error is not None:
        raise ExplorationFailed(_line(error, loop, moment), seed=loop.seed, moment=moment) from error


def _collect(reported: list[BaseException], context: dict[str, Any]) -> None:
    error = context.get("exception")
    if error is not None and not isinstance(error, asyncio.CancelledError):
        reported.append(error)


def _line(error: BaseException, loop: VirtualLoop, moment: int | None) -> str:
    cancelled = "".join(f", {each}" for each in loop.moments.cancelled)
    again = f"run(main, seed={loop.seed}" + (f", cancel_at={moment})" if moment is not None else ")")
    text = " ".join(str(error).split())
    return f"seed {loop.seed}{cancelled}: {type(error).__name__}{f': {text}' if text else ''}; again: {again}"
