"""`explore`: one scenario under many schedules, with a task cancelled at every await, until one of them fails.

The idea of deterministic simulation: a run is a function of its seed, so a failure is a number that brings it back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.errors import ExplorationFailed
from penstock.testing.running import run_on
from penstock.testing.virtualloop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

__all__ = ["Exploration", "explore"]

SEEDS = range(100)


@dataclass(frozen=True, slots=True)
class Exploration:
    """What an exploration did: `runs` in all, over `seeds` seeds, of them `cancels` with a task cancelled."""

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

    The main task is never cancelled; `cancel` may be a function that says which others are. `most_cancels` bounds the
    runs of one seed: moments are then taken evenly from all. `options` are the VirtualLoop's.

    A run fails if main raises (CancelledError after a cancel is no failure), if nothing can ever happen, if a callback
    raises, or if a task fails and nobody asks for its exception. The first failure ends it: `ExplorationFailed`, whose
    one line has the seed, the moment and the call of `run` that brings it back.
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
    loop.watch()
    return loop


def _evenly(moments: list[int], most: int | None) -> list[int]:
    if most is None or len(moments) <= most:
        return moments
    return [moments[at * len(moments) // most] for at in range(most)]


def _run(main_factory: Callable[[], Coroutine[Any, Any, Any]], loop: VirtualLoop, moment: int | None) -> None:
    told: list[BaseException] = []
    loop.set_exception_handler(lambda _, context: _note(told, context))
    error: BaseException | None = None
    try:
        run_on(loop, main_factory)
    except asyncio.CancelledError as cancelled:
        error = None if loop.moments.cancelled else cancelled
    except Exception as failure:
        error = failure
    error = error or loop.moments.unread() or next(iter(told), None)
    if error is not None:
        raise ExplorationFailed(_line(error, loop, moment), seed=loop.seed, moment=moment) from error


def _note(told: list[BaseException], context: dict[str, Any]) -> None:
    error = context.get("exception")
    if error is not None and not isinstance(error, asyncio.CancelledError):
        told.append(error)


def _line(error: BaseException, loop: VirtualLoop, moment: int | None) -> str:
    cancelled = "".join(f", {told}" for told in loop.moments.cancelled)
    again = f"run(main, seed={loop.seed}" + (f", cancel_at={moment})" if moment is not None else ")")
    what = " ".join(str(error).split())
    return f"seed {loop.seed}{cancelled}: {type(error).__name__}{f': {what}' if what else ''}; again: {again}"
