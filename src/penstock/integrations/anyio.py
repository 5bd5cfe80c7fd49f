"""Runs the sync calls of anyio in a lane: plain endpoints of Starlette and FastAPI, and whatever else uses `to_thread`.

`install()`, once in a process: the lane's bounds, timeouts and statistics then hold for them. What anyio promises
stays: its default limiter, its cancellation, context variables, and `anyio.from_thread` in the worker.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError
from penstock.executors.call import function_name
from penstock.executors.foreign_loops import lanes_of

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable

    from penstock.executors.lane import Lane

__all__ = ["install", "uninstall"]

METHOD = "run_sync_in_worker_thread"


def install(lane: str = "io") -> None:
    """Run `anyio.to_thread.run_sync` in this lane, on each asyncio loop of the process; a later call changes the lane.

    A call with a limiter of its own goes to anyio's threads as before: it must not wait for what the default limiter's
    calls hold (FastAPI's clean-up of dependencies relies on that).
    """
    uninstall()
    backend = _backend()
    replaced = vars(backend)[METHOD]
    own = getattr(backend, METHOD)

    async def run_sync_in_lane(
        cls: Any, func: Any, args: Any, abandon_on_cancel: bool = False, limiter: Any = None
    ) -> Any:
        if limiter is not None:
            return await own(func, args, abandon_on_cancel=abandon_on_cancel, limiter=limiter)
        await cls.checkpoint()
        async with cls.current_default_thread_limiter():
            return await _run(cls, _lane(lane), func, args, abandon_on_cancel)

    run_sync_in_lane.replaced = replaced  # type: ignore[attr-defined]
    setattr(backend, METHOD, classmethod(run_sync_in_lane))


def uninstall() -> None:
    """Let anyio run its calls in threads of its own again; nothing if it does."""
    backend = _backend()
    replaced = getattr(getattr(backend, METHOD), "replaced", None)
    if replaced is not None:
        setattr(backend, METHOD, replaced)


def _backend() -> Any:
    try:
        from anyio._backends._asyncio import AsyncIOBackend
    except ImportError as problem:
        raise ImportError(
            "penstock.integrations.anyio needs anyio 4 or later: pip install 'penstock[anyio]'"
        ) from problem
    return AsyncIOBackend


def _lane(name: str) -> Lane:
    lane = lanes_of(asyncio.get_running_loop()).get(name)
    if lane.config.kind != "threads":
        message = f"lane {name!r} is one of {lane.config.kind!r}: anyio's calls need threads"
        raise ConfigError(message, key=f"executors.{name}", value=lane.config.kind, allowed="threads")
    return lane


async def _run(backend: Any, lane: Lane, func: Callable[..., Any], args: tuple[Any, ...], abandon: bool) -> Any:
    from anyio import CancelScope

    loop = asyncio.get_running_loop()
    with CancelScope(shield=not abandon) as scope:
        # `from_thread.check_cancelled` asks the scope that the caller is in; the shield is ours
        parent = getattr(scope, "_parent_scope", None)
        call = _in_worker(backend, loop, func, scope if abandon or parent is None else parent)
        return await lane.call(loop, call, args, context=_worker_context())


def _worker_context() -> contextvars.Context:
    from anyio._core import _eventloop

    context = copy_context()
    # in a worker no async library runs
    forget: Any = getattr(_eventloop, "set_current_async_library", None)
    if forget is None:
        import sniffio

        forget = sniffio.current_async_library_cvar.set
    context.run(forget, None)
    return context


def _in_worker(backend: Any, loop: asyncio.AbstractEventLoop, func: Callable[..., Any], scope: Any) -> Any:
    """Make the call that the worker runs: while it does, `anyio.from_thread` knows the loop and the scope."""
    from anyio._core._eventloop import claim_worker_thread, threadlocals

    def call(*args: Any) -> Any:
        with claim_worker_thread(backend, loop):
            threadlocals.current_cancel_scope = scope
            try:
                return func(*args)
            finally:
                del threadlocals.current_cancel_scope

    # as messages name it
    call.__module__, call.__qualname__ = "", function_name(func)
    return call
