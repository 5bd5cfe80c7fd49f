"""The arms of the executors: process executors used from asyncio, and how each is opened and called.

`penstock` is its cpu lane on its own loop, `penstock@asyncio` the same lane on stock asyncio's. The others run on stock
asyncio's loop, as their users run them. Nothing is imported until an arm is opened.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import multiprocessing
import os
import platform
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.method.trial import base_arm

__all__ = ["ARMS", "Call", "available", "describe", "run"]

FUTURES = "concurrent.futures.process"
Call = Callable[..., Awaitable[Any]]  # call(function, *args), in the loop


@asynccontextmanager
async def _futures(start: str, worker_count: int) -> AsyncIterator[Call]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(worker_count, mp_context=multiprocessing.get_context(start)) as executor:
        yield partial(asyncio.get_running_loop().run_in_executor, executor)


@asynccontextmanager
async def _loky(worker_count: int) -> AsyncIterator[Call]:
    from loky import get_reusable_executor

    executor = get_reusable_executor(worker_count, timeout=None)
    try:
        yield partial(asyncio.get_running_loop().run_in_executor, executor)
    finally:
        executor.shutdown()


@asynccontextmanager
async def _pebble(worker_count: int) -> AsyncIterator[Call]:
    from pebble import ProcessPool

    def call(function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        return asyncio.wrap_future(pool.schedule(function, args=args))

    with ProcessPool(worker_count, context=multiprocessing.get_context("forkserver")) as pool:
        yield call


@asynccontextmanager
async def _anyio(worker_count: int) -> AsyncIterator[Call]:
    from anyio import CapacityLimiter, to_process

    yield partial(to_process.run_sync, limiter=CapacityLimiter(worker_count))


@asynccontextmanager
async def _penstock(worker_count: int) -> AsyncIterator[Call]:
    from penstock import offload

    # the config is read at the first offload, or when penstock makes the loop: see run
    assert os.environ["PENSTOCK_EXECUTORS_CPU"] == _lane(worker_count)
    yield offload


@dataclass(frozen=True, slots=True)
class Arm:
    """The opening of the executor, the module it needs, and the description in the notes."""

    open: Callable[[int], AbstractAsyncContextManager[Call]]
    module: str
    what: str


ARMS: dict[str, Arm] = {
    "futures-spawn": Arm(partial(_futures, "spawn"), FUTURES, "concurrent.futures.ProcessPoolExecutor, spawn"),
    "futures-forkserver": Arm(partial(_futures, "forkserver"), FUTURES, "the same, forkserver"),
    "loky": Arm(_loky, "loky", "get_reusable_executor"),
    "pebble": Arm(_pebble, "pebble", "ProcessPool, forkserver"),
    "anyio": Arm(_anyio, "anyio.to_process", "to_process.run_sync"),
    "penstock@asyncio": Arm(_penstock, "penstock", "offload on stock asyncio's loop"),
    "penstock": Arm(_penstock, "penstock", "offload on its own loop"),
}


def run(arm: str, worker_count: int, main: Callable[[Call, int], Coroutine[Any, Any, Any]]) -> Any:
    """Run `main(call, opened_ns)` on the arm's loop, with at most `worker_count` worker processes.

    `opened_ns` is when the executor began to be made, on the clock of `time.perf_counter_ns`.
    """

    kind = base_arm(arm)

    async def opened() -> Any:
        opened_ns = time.perf_counter_ns()
        async with ARMS[kind].open(worker_count) as call:
            return await main(call, opened_ns)

    module = importlib.import_module(ARMS[kind].module)
    if module.__name__ == "penstock":
        os.environ["PENSTOCK_EXECUTORS_CPU"] = _lane(worker_count)
    return module.run(opened()) if kind == "penstock" else asyncio.run(opened())


def available(wanted: list[str]) -> tuple[list[str], list[str]]:
    """Split the wanted arms into the installed ones and a line for each other one."""
    reasons = {arm: _failure(arm) for arm in wanted}
    missing = [f"{arm} is left out: {reason}" for arm, reason in reasons.items() if reason is not None]
    return [arm for arm, reason in reasons.items() if reason is None], missing


def describe(arm: str) -> str:
    """Return the version behind an arm, and its use."""
    known = ARMS[base_arm(arm)]
    distribution, what = known.module.partition(".")[0], known.what
    if distribution == "concurrent":
        return f"CPython {platform.python_version()}, {what}"
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = str(getattr(importlib.import_module(distribution), "__version__", "version unknown"))
    return f"{version}, {what}"


def _lane(worker_count: int) -> str:
    return f"processes workers={worker_count}"


def _failure(arm: str) -> str | None:
    kind = base_arm(arm)
    if kind not in ARMS:
        return f"no such arm; there are {', '.join(ARMS)}"
    try:
        module = importlib.import_module(ARMS[kind].module)
    except ImportError as error:
        return f"{type(error).__name__}: {error}"
    return "it has no offload" if arm.startswith("penstock") and not hasattr(module, "offload") else None
