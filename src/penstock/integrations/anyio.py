"""Runs the sync calls of anyio in a lane: plain endpoints of Starlette and FastAPI, and all other uses of `to_thread`.

After `install()`, once in a process, the lane's bounds, timeouts and statistics apply to them. anyio's promises hold:
its default limiter, its cancellation, context variables, and `anyio.from_thread` in the worker.
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

    A call with a limiter of its own runs in anyio's threads as before: it must not wait for the calls of the default
    limiter (FastAPI's clean-up of dependencies relies on that). Raises ImportError without anyio 4 or later.
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
    """Undo `install`: anyio runs its calls in threads of its own again."""
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
        message = f"lane {name!r} has {lane.config.kind!r}: anyio's calls need threads"
        raise ConfigError(message, key=f"executors.{name}", value=lane.config.kind, allowed="threads")
    return lane


async def _run(backend: Any, lane: Lane, func: Callable[..., Any], args: tuple[Any, ...], abandon: bool) -> Any:
    from anyio import CancelScope

    loop = asyncio.get_running_loop()
    with CancelScope(shield=not abandon) as scope:
        # `from_thread.check_cancelled` must ask the caller's scope, and not this shield
        parent = getattr(scope, "_parent_scope", None)
        call = _worker_call(backend, loop, func, scope if abandon or parent is None else parent)
        return await lane.call(loop, call, args, context=_worker_context())


def _worker_context() -> contextvars.Context:
    from anyio._core import _eventloop

    context = copy_context()
    # no async library runs in a worker
    set_library: Any = getattr(_eventloop, "set_current_async_library", None)
    if set_library is None:
        import sniffio

        set_library = sniffio.current_async_library_cvar.set
    context.run(set_library, None)
    return context


def _worker_call(backend: Any, loop: asyncio.AbstractEventLoop, func: Callable[..., Any], scope: Any) -> Any:
    """Return the call for the worker: while it runs, `anyio.from_thread` has the loop and the scope."""
    from anyio._core._eventloop import claim_worker_thread, threadlocals

    def call(*args: Any) -> Any:
        with claim_worker_thread(backend, loop):
            threadlocals.current_cancel_scope = scope
            try:
                return func(*args)
            finally:
                del threadlocals.current_cancel_scope

    # the function's name in messages
    call.__module__, call.__qualname__ = "", function_name(func)
    return call
