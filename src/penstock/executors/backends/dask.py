"""A lane over a running dask.distributed scheduler: `dask://host:port`.

The client runs in a thread and a loop of the lane itself: its imports, connections and waits block no loop of the
program. Options have dask's meaning: the larger `priority` runs first; `retries` runs a job again that raised. The
scheduler itself runs a job again whose worker died, up to its `allowed-failures`; after that the job is WorkerLost.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError, PenstockError, PoisonJob, RemoteError, SchedulerLost, UnpicklableError
from penstock.executors.backends.adapter import Backend, BackendLane

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

    from penstock.config import LaneConfig
    from penstock.executors.job import Job

__all__ = ["DaskLane"]

# dask itself retries until then: a scheduler may be about to start
CONNECT_S = 3.0
# the time to tell the scheduler of a cancelled job or a closed client
PARTING_S = 2.0
LOST = "the connection is lost; its jobs are not run again, the next call connects anew"

# The SystemExit of a job would end a thread of the worker for good, which dask does not notice. The guard is source of
# module `__main__`, so that it is sent by value: the cluster's workers need not have penstock.
ENDING = "penstock: a job's exit"
GUARD = f"""
def guarded(call):
    try:
        return call()
    except Exception:
        raise
    except BaseException as problem:
        import traceback
        kind = type(problem).__module__ + "." + type(problem).__qualname__
        raise RuntimeError({ENDING!r}, kind, str(problem), traceback.format_exc()) from None
"""


def _made_guard() -> Any:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(GUARD, "<penstock's guard of a job>", "exec"), names)
    return names["guarded"]


_guarded = _made_guard()


class DaskLane(BackendLane):
    """The lane of `config.kind`, a `dask://host:port`. Up to `workers` jobs are with the scheduler at once, or
    `queue_jobs`: it orders them, and may grow its cluster for them. Raises ConfigError without dask.distributed."""

    exits_are_errors = True

    def __init__(self, name: str, config: LaneConfig) -> None:
        if find_spec("distributed") is None:
            need = "dask.distributed, which is not installed: pip install 'penstock[dask]'"
            raise ConfigError(f"lane {name!r} = {config.kind!r} needs {need}", key=name, value=config.kind)
        super().__init__(name, config, DaskBackend(str(config.kind).removeprefix("dask://"), name))


class DaskBackend(Backend):
    """Jobs as tasks of one client. Ownership: the thread, its loop and the client."""

    kind = "dask"

    def __init__(self, address: str, name: str) -> None:
        self._address = address
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # confined to the thread
        self._client: Any = None
        self._connecting: asyncio.Task[Any] | None = None
        self._partings: set[asyncio.Task[None]] = set()

    # --- any thread ---------------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> Future[Any]:
        """Implement Backend's method."""
        # not the job itself: a thread of dask may drop the last reference, and a LoopJob belongs to its loop
        call = partial(_guarded, partial(job.call.fn, *job.call.args, **(job.call.kwargs or {})))
        return self._start(self._run(call, job.name, job.call.priority, job.call.retries))

    def warm(self) -> None:
        """Connect."""
        self._start(self._connected()).add_done_callback(lambda done: done.cancelled() or done.exception())

    def _start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        with self._lock:
            if self._loop is None:
                # asyncio's own loop, whatever the policy: tornado, which dask uses, was made for it
                self._loop = asyncio.SelectorEventLoop()
                self._thread = threading.Thread(target=self._turn, name=f"penstock-{self._name}-dask", daemon=True)
                self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self, wait: bool) -> None:
        """Implement Backend's method."""
        with self._lock:
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        try:
            loop.call_soon_threadsafe(self._leave)
        except RuntimeError:
            pass  # it is closed already
        if wait and thread is not threading.current_thread():
            thread.join()

    # --- the lane's own thread ----------------------------------------------------------------------------------------

    def _turn(self) -> None:
        loop = self._loop
        assert loop is not None
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    async def _connected(self) -> Any:
        """Return the client, made now if there is none or the last one was lost. Concurrent calls share one
        connection."""
        if self._client is not None and self._client.status == "running":
            return self._client
        if self._connecting is None or self._connecting.done():
            self._drop()
            self._connecting = asyncio.ensure_future(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Any:
        from distributed import Client

        make: Any = Client
        client = make(
            f"tcp://{self._address}",
            asynchronous=True,
            set_as_default=False,
            timeout=CONNECT_S,
            name=f"penstock-{self._name}",
        )
        try:
            await client
        except Exception as problem:
            await _closed(client)
            reason = problem.__cause__ or problem
            raise SchedulerLost(self._address, f"not reached within {CONNECT_S:g} s: {reason}") from problem
        self._client = client
        return client

    async def _run(self, call: partial[Any], name: str, priority: int, retries: int) -> Any:
        client = await self._connected()
        try:
            task = client.submit(call, pure=False, priority=priority, retries=retries or None)
        except Exception as problem:
            if client.status != "running":
                raise SchedulerLost(self._address, LOST) from problem
            reason = problem.__cause__ or problem
            raise UnpicklableError(f"{name} cannot be sent to a worker of the cluster: {reason}") from problem
        finally:
            # the traceback holds this frame: it must hold neither the arguments nor the exception
            del call
        try:
            return await task
        except BaseException as problem:
            if isinstance(problem, asyncio.CancelledError) and _is_being_cancelled():
                self._part(client.cancel([task], force=True))
                raise
            raise self._outcome(client, task, name, problem) from problem.__cause__
        finally:
            del task

    def _outcome(self, client: Any, task: Any, name: str, problem: BaseException) -> BaseException:
        """Return the exception for the caller of a failed task: its own, or one for a lost worker or scheduler."""
        if task.status != "error":
            why = getattr(problem, "reason", None)
            if client.status != "running" or why == "scheduler-connection-lost":
                self._drop(client)
                return SchedulerLost(self._address, LOST)
            if isinstance(problem, OSError):
                return SchedulerLost(self._address, f"the result of {name} cannot be fetched: {problem}")
            if isinstance(problem, CancelledError | asyncio.CancelledError):
                text = f"the cluster cancelled {name}: {why or problem}"
                return RemoteError("distributed.FutureCancelledError", text, "")
        if type(problem).__name__ == "KilledWorker" and type(problem).__module__.startswith("distributed."):
            return _killed(name, problem)
        if type(problem) is RuntimeError and problem.args[:1] == (ENDING,):
            return RemoteError(*problem.args[1:])
        return problem

    def _drop(self, client: Any = None) -> None:
        """Close the client, if it is this one: it would connect again by itself."""
        if self._client is not None and client in (None, self._client):
            client, self._client = self._client, None
            self._part(_closed(client))

    def _part(self, parting: Coroutine[Any, Any, Any]) -> None:
        """Run the work of a parting in a task that is not awaited."""
        task = asyncio.ensure_future(_within(parting, PARTING_S))
        self._partings.add(task)
        task.add_done_callback(self._partings.discard)

    def _leave(self) -> None:
        asyncio.ensure_future(self._last())  # noqa: RUF006 (the loop ends with it)

    async def _last(self) -> None:
        while self._partings:
            await asyncio.wait(self._partings)
        self._drop()
        while self._partings:
            await asyncio.wait(self._partings)
        mine = asyncio.current_task()
        rest = [task for task in asyncio.all_tasks() if task is not mine]
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=PARTING_S)
        asyncio.get_running_loop().stop()


def _is_being_cancelled() -> bool:
    mine = asyncio.current_task()
    return mine is not None and mine.cancelling() > 0


async def _closed(client: Any) -> None:
    await _within(client.close(), PARTING_S)


async def _within(work: Any, limit_s: float) -> None:
    """Await `work` for up to `limit_s`, and ignore its failure."""
    try:
        await asyncio.wait_for(work, limit_s)
    except (Exception, asyncio.CancelledError):
        pass


def _killed(name: str, problem: Any) -> PenstockError:
    kills = problem.allowed_failures + 1
    lost = PoisonJob(name, kills=kills, pid=0, signal=None, exit_code=None)
    lost.args = (f"{name}: {kills} workers of the cluster died while they ran it, and it is not run again: {problem}",)
    lost.__cause__ = problem
    return lost
