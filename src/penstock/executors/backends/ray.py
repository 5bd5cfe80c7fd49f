"""A lane over a Ray cluster: `ray://host:port`, or `ray://auto` for the local cluster, started if there is none.

Ray's client belongs to the process, not to a lane: a connection that the program has made is used, and not closed.
`retries` counts lost workers only, as in other lanes. Ray has no priorities: a lane with `workers` runs fair by key.
"""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError, PoisonJob, RemoteError, SchedulerLost, UnpicklableError
from penstock.executors.backends.adapter import Backend, BackendLane

if TYPE_CHECKING:
    from penstock.config import LaneConfig
    from penstock.executors.job import Job

__all__ = ["RayLane"]

# with or without a port, which has no meaning here
AUTO = "ray://auto"


class RayLane(BackendLane):
    """The lane of `config.kind`, a `ray://` address. Raises ConfigError if Ray is not installed."""

    exits_are_errors = True

    def __init__(self, name: str, config: LaneConfig) -> None:
        if find_spec("ray") is None:
            need = "Ray, which is not installed: pip install 'penstock[ray]'"
            raise ConfigError(f"lane {name!r} = {config.kind!r} needs {need}", key=name, value=config.kind)
        super().__init__(name, config, RayBackend(str(config.kind), name))


class RayBackend(Backend):
    """Jobs as Ray tasks. Ownership: the thread that calls Ray, and the connection if it was made here."""

    kind = "ray"

    def __init__(self, address: str, name: str) -> None:
        self._address = address
        # connecting and sending may take seconds; one thread keeps the order of the jobs
        self._sender = ThreadPoolExecutor(1, thread_name_prefix=f"penstock-{name}-ray")
        self._is_ours = False

    def submit(self, job: Job) -> Future[Any]:
        """Implement Backend's method."""
        call = partial(job.call.fn, *job.call.args, **(job.call.kwargs or {}))
        future = _RayFuture()
        self._sender.submit(self._send, call, job.name, job.call.retries, future)
        return future

    def warm(self) -> None:
        """Connect."""
        self._sender.submit(self._connect)

    def close(self, wait: bool) -> None:
        """Implement Backend's method."""
        try:
            self._sender.submit(self._disconnect)
        except RuntimeError:
            pass  # closed already
        self._sender.shutdown(wait=wait)

    # --- the sender's thread ------------------------------------------------------------------------------------------

    def _connect(self) -> Any:
        import ray

        if not ray.is_initialized():
            given: dict[str, Any] = {} if self._address.startswith(AUTO) else {"address": self._address}
            try:
                ray.init(**given, log_to_driver=False, configure_logging=False)
            except Exception as problem:
                raise SchedulerLost(self._address, f"not reached: {problem}") from problem
            self._is_ours = True
        return ray

    def _disconnect(self) -> None:
        if self._is_ours:
            import ray

            ray.shutdown()

    def _send(self, call: partial[Any], name: str, retries: int, future: _RayFuture) -> None:
        if future.cancelled():
            return
        try:
            ray = self._connect()
            task = self._task(ray, call, name, retries)
            future.sent(ray, task)
            task.future().add_done_callback(partial(self._done, ray, name, future))
        except BaseException as problem:
            future.settle(problem=problem)
        finally:
            # the traceback holds this frame, and the future holds the exception
            del call, future

    def _task(self, ray: Any, call: partial[Any], name: str, retries: int) -> Any:
        options = {"max_retries": retries, "retry_exceptions": False, "name": name}
        try:
            return ray.remote(_call).options(**options).remote(call)
        except (TypeError, AttributeError, pickle.PicklingError) as problem:
            raise UnpicklableError(f"{name} cannot be sent to a worker of the cluster: {problem}") from problem
        except (ConnectionError, ray.exceptions.RaySystemError) as problem:
            raise SchedulerLost(self._address, str(problem)) from problem

    def _done(self, ray: Any, name: str, future: _RayFuture, done: Future[Any]) -> None:
        problem = done.exception()
        if problem is None:
            future.settle(done.result())
        else:
            future.settle(problem=self._outcome(ray, name, problem))

    def _outcome(self, ray: Any, name: str, problem: BaseException) -> BaseException:
        """Return the exception for the caller: the job's own, or one for a lost worker or cluster."""
        known = ray.exceptions
        if isinstance(problem, known.RayTaskError):
            cause: BaseException = getattr(problem, "cause", problem)
            if not isinstance(cause, Exception):
                return RemoteError(type(cause).__name__, str(cause), str(problem))
            cause.__cause__ = problem if cause is not problem else cause.__cause__
            return cause
        if isinstance(problem, known.WorkerCrashedError | known.NodeDiedError | known.OutOfMemoryError):
            lost = PoisonJob(name, kills=1, pid=0, signal=None, exit_code=None)
            lost.args = (f"{name}: its worker in the cluster died, and it is not run again: {problem}",)
            lost.__cause__ = problem
            return lost
        if isinstance(problem, ConnectionError | known.RaySystemError):
            return SchedulerLost(self._address, f"the connection is lost; its jobs are not run again: {problem}")
        return problem


class _RayFuture(Future[Any]):
    """The future of a task that may not be sent yet. Its cancellation reaches the task, running or not."""

    def __init__(self) -> None:
        super().__init__()
        self._gate = threading.Lock()
        self._ray: Any = None
        self._task: Any = None

    def sent(self, ray: Any, task: Any) -> None:
        with self._gate:
            self._ray, self._task = ray, task
        if self.cancelled():
            ray.cancel(task)

    def cancel(self) -> bool:
        was_cancelled, is_cancelled = self.cancelled(), super().cancel()
        with self._gate:
            ray, task = self._ray, self._task
        if is_cancelled and not was_cancelled and task is not None:
            ray.cancel(task)
        return is_cancelled

    def settle(self, value: Any = None, problem: BaseException | None = None) -> None:
        try:
            if problem is None:
                self.set_result(value)
            else:
                self.set_exception(problem)
        except InvalidStateError:
            pass  # cancelled, perhaps at this moment


def _call(call: Any) -> Any:
    """Run a call in a Ray task."""
    return call()
