"""The processes that a supervisor starts and reaps: workers, templates, and orphans that it has inherited as PID 1."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from penstock.runtime.supervisor.launching import send_orders, spawn_module
from penstock.runtime.supervisor.worker.orders import WorkerOrders
from penstock.runtime.supervisor.worker.template import TemplateProcess, adopt_orphans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from penstock.runtime.supervisor.generation import Generation
    from penstock.runtime.supervisor.worker_process import WorkerProcess

__all__ = ["Processes", "describe_status"]

WORKER_MODULE = "penstock.runtime.supervisor.worker.child"


class Processes:
    """Starts workers by `launch`, and reaps every ended child of this process.

    `listeners` and `inherited` are the descriptors that each worker gets; of a listener, whether the service owns it.
    """

    def __init__(self, listeners: Mapping[int, bool], inherited: Sequence[int], title: str) -> None:
        self._listeners, self._inherited, self._title = listeners, inherited, title
        self._workers: list[WorkerProcess] = []
        # whether another supervisor goes on with the listeners if this one ends
        self.leaves_listeners = False
        self.templates: list[tuple[Generation, TemplateProcess]] = []
        # the ends of processes that may be forked workers whose first message has not been taken
        self._unknown: dict[int, int] = {}
        # other children that are still to be reaped at the end: templates
        self._others: set[int] = set()

    def launch(self, worker: WorkerProcess) -> None:
        """Start a worker's process, or have its generation's template fork it. Raises OSError."""
        generation = worker.generation
        try:
            owned = tuple(self._listeners.values())
            orders = WorkerOrders(
                worker.number, generation.number, os.getpid(), generation.orders, owned, self.leaves_listeners
            )
            send_orders(worker.channel, orders, [*worker.descriptors(), *self._listeners, *self._inherited])
            if generation.orders.preload is None:
                title = f"worker={worker.number}", self._title
                worker.pid = spawn_module(WORKER_MODULE, worker.child_channel, generation.orders.environ, title)
            else:
                self._template(generation).fork(worker.child_channel)
        except ValueError as error:
            raise OSError(str(error)) from error
        worker.child_channel.close()
        self._workers.append(worker)

    def _template(self, generation: Generation) -> TemplateProcess:
        if generation.template is None:
            if not self.templates:
                adopt_orphans()
            generation.template = TemplateProcess(generation.orders)
            self.templates.append((generation, generation.template))
            self._others.add(generation.template.pid)
        return generation.template

    @property
    def is_done(self) -> bool:
        """Whether every process that was started here is reaped."""
        return not self._workers and not self._others

    def reap(self) -> Iterator[tuple[WorkerProcess, str]]:
        """Yield each worker that has ended, with its status. Other children are reaped too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._others.discard(pid)
            worker = next((each for each in self._workers if each.pid == pid), None)
            if worker is not None:
                self._workers.remove(worker)
                yield worker, describe_status(status)
            else:
                self._unknown[pid] = status
                self._end_template(pid, describe_status(status))

    def _end_template(self, pid: int, status: str) -> None:
        for generation, template in [*self.templates]:
            if template.pid == pid:
                template.ended(status)
                self.templates.remove((generation, template))
                generation.template, generation.failed_template = None, template
                template.close()

    def unforked(self) -> Iterator[tuple[WorkerProcess, str]]:
        """Yield the forked workers that have ended otherwise, with their status.

        Their template has ended, or they were given up, or they had ended before their first message was taken.
        """
        for worker in [*self._workers]:
            is_given_up = worker.channel.fileno() < 0
            is_lost = worker.generation.template is None or worker.has_hung_up or is_given_up
            if worker.pid in self._unknown:
                self._workers.remove(worker)
                yield worker, describe_status(self._unknown.pop(worker.pid))
            elif worker.pid is None and is_lost:
                if is_given_up:
                    self._kill_template(worker.generation)
                self._workers.remove(worker)
                worker.failure = _preload_failure(worker.generation)
                yield worker, "was not forked"
        if all(worker.pid is not None for worker in self._workers):
            self._unknown.clear()

    def _kill_template(self, generation: Generation) -> None:
        """Kill a template that has not forked in time: the next worker gets another one."""
        if generation.template is not None:
            with suppress(ProcessLookupError):
                os.kill(generation.template.pid, signal.SIGKILL)

    def end_templates(self, is_needed: Callable[[Generation], bool]) -> None:
        """End the templates that are not needed any more."""
        for generation, template in [*self.templates]:
            if not is_needed(generation):
                self.templates.remove((generation, template))
                generation.template = None
                template.close()
                with suppress(ProcessLookupError):
                    os.kill(template.pid, signal.SIGKILL)


def _preload_failure(generation: Generation) -> tuple[str, int, str] | None:
    template = generation.template or generation.failed_template
    if template is None:
        return None
    if template is generation.template:
        template.receive()
    return template.failure


def describe_status(status: int) -> str:
    """Return the end of a process, by its wait status, as a predicate."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
