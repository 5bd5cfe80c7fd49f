"""The supervisor: one loop in the parent process that starts, watches, replaces and ends the workers.

The parent holds the listeners and never imports the application, so nothing of it can block this loop.
"""

from __future__ import annotations

import math
import os
import select
import signal
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.runtime.acceptqueue import SETTLE_S, has_clients, stop_new
from penstock.runtime.supervisor.fleet import Fleet, FleetOptions
from penstock.runtime.supervisor.generation import Generation
from penstock.runtime.supervisor.health.page import rss_bytes
from penstock.runtime.supervisor.notify import Notifier
from penstock.runtime.supervisor.processes import Processes
from penstock.runtime.supervisor.rundir import remove_attach_socket
from penstock.runtime.supervisor.wakeups import Wakeups
from penstock.runtime.supervisor.worker_process import State

if TYPE_CHECKING:
    import logging
    import socket
    from collections.abc import Callable, Sequence

    from penstock.runtime.supervisor.upgrade import Successor
    from penstock.runtime.supervisor.worker.orders import Orders
    from penstock.runtime.supervisor.worker_process import WorkerProcess

__all__ = ["Supervisor", "SupervisorOptions"]

SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD),
    *(signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2),
)
ENDS = (signal.SIGTERM, signal.SIGINT)
# end signals within this time count as one: a terminal and `timeout` send more than one
TOGETHER_S = 0.05
# between two looks at the workers: while something is under way, and else
BUSY_TICK_S, IDLE_TICK_S = 0.02, 0.25
# beyond the start of its workers, the time of a new program to begin
UPGRADE_GRACE_S = 10.0
# after the kill of all workers, until they are reaped
REAP_S = 2.0


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    """The options of a supervisor. `drain_delay_s`: between the signal and the drain, it is not ready any more."""

    count: int
    most: int
    fleet: FleetOptions = field(default_factory=FleetOptions)
    drain_delay_s: float = 0.0


class Supervisor:
    """The supervisor of a service's worker processes. `run` in the main thread; other methods where they say so.

    `make_orders()` reads the settings and returns the orders of a new generation; it raises for bad settings.
    `listeners` are the service's sockets; those in `kept` belong to others and stay as they are at the end.
    `inherited` are further descriptors that each worker gets. `on_ready()` is called once the first workers serve.
    `successor()` starts the new program for SIGUSR2. With `is_taking_over` another supervisor has the listeners until
    then.
    """

    def __init__(
        self,
        options: SupervisorOptions,
        make_orders: Callable[[], Orders],
        listeners: Sequence[socket.socket],
        *,
        logger: logging.Logger,
        kept: Sequence[socket.socket] = (),
        inherited: Sequence[int] = (),
        title: str = "",
        notifier: Notifier | None = None,
        successor: Callable[[], Successor] | None = None,
        is_taking_over: bool = False,
        on_ready: Callable[[], object] = bool,
    ) -> None:
        self._options, self._make_orders, self._logger = options, make_orders, logger
        self._listeners = listeners
        self._owned = [sock for sock in listeners if sock not in kept]
        self._wakeups = Wakeups()
        self._processes = Processes({sock.fileno(): sock in self._owned for sock in listeners}, inherited, title)
        self.fleet = Fleet(self._processes, options.fleet, logger, rss_bytes=rss_bytes)
        self.fleet.on_rolled = self._rolled
        self._notifier = notifier or Notifier.from_environ({})
        self._make_successor = successor
        self._successor: Successor | None = None
        self._upgrade_began_s = 0.0
        self._on_ready = on_ready
        self._generation_number = 0
        self._was_ready = False
        # the calls that wait for the end of a reload, of the present one and of the next
        self._reloading: list[Future[str]] = []
        self._reload_due: list[Future[str]] = []
        # the first end signal and its time; the time of the drain; whether the workers were told
        self._ended_by: int | None = None
        self._ended_s = self._drain_at_s = 0.0
        self._code: int | None = None
        self._killed_s: float | None = None
        # whether the end leaves the listeners to another supervisor: to the new one, or to the old one until this one
        # is ready
        self._leaves_listeners = self._processes.leaves_listeners = is_taking_over
        self._pinged_s = 0.0

    # --- from any thread

    @property
    def leaves_listeners(self) -> bool:
        """Whether another supervisor goes on with the listeners when this one ends."""
        return self._leaves_listeners

    @property
    def is_ending(self) -> bool:
        """Whether the service is to take no new work: from the first end signal on."""
        return self._ended_by is not None

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Have the supervisor's thread make a call, and return the future of its result."""
        return self._wakeups.post(function)

    # --- the loop

    def run(self) -> int:
        """Supervise until the end of the service. Return the exit code. For the main thread."""
        with self._wakeups.signals(SIGNALS):
            try:
                self.fleet.begin(self._options.count, self._next_generation())
                while self._code is None:
                    self._turn()
                return self._code
            finally:
                self._end_everything()

    def _turn(self) -> None:
        self._poll(self._tick_s())
        for signum in self._wakeups.take():
            self._on_signal(signum)
        now_s = time.monotonic()
        self._take_messages(now_s)
        self._reap(now_s)
        self.fleet.tick(now_s, time.monotonic_ns())
        self._go_on(now_s)

    def _tick_s(self) -> float:
        fleet = self.fleet
        is_quiet = fleet.is_ready and not (fleet.leaving or fleet.is_rolling or self._ended_by or self._reload_due)
        return IDLE_TICK_S if is_quiet and all(each.state is State.SERVING for each in fleet.workers()) else BUSY_TICK_S

    def _poll(self, most_s: float) -> None:
        poll = select.poll()
        poll.register(self._wakeups, select.POLLIN)
        for worker in self.fleet.workers():
            if worker.channel.fileno() >= 0 and not worker.has_hung_up:
                poll.register(worker.channel, select.POLLIN)
        for _, template in self._processes.templates:
            poll.register(template.channel, select.POLLIN)
        if self._successor is not None:
            poll.register(self._successor.channel, select.POLLIN)
        poll.poll(most_s * 1000)

    def _take_messages(self, now_s: float) -> None:
        for _, template in self._processes.templates:
            template.receive()
            if template.threads:
                names, template.threads = ", ".join(template.threads), []
                self._logger.warning("the preloaded program runs threads, which forked workers lack: %s", names)
        for worker in [*self.fleet.workers()]:
            for message in worker.messages():
                self.fleet.on_message(worker, message, now_s)

    def _reap(self, now_s: float) -> None:
        for worker, status in self._processes.reap():
            # the last messages of a worker that has ended
            for message in worker.messages():
                self.fleet.on_message(worker, message, now_s)
            self._on_end_of(worker, status, now_s)
        for worker, status in self._processes.unforked():
            self._on_end_of(worker, status, now_s)

    def _on_end_of(self, worker: WorkerProcess, status: str, now_s: float) -> None:
        self.fleet.on_end(worker, status, now_s)
        if worker.pid is not None:
            remove_attach_socket(os.environ, worker.pid)

    def _go_on(self, now_s: float) -> None:
        self._tell_ready()
        self._ping(now_s)
        fleet = self.fleet
        if fleet.fatal is not None and self._ended_by is None:
            self._logger.error("%s: the server ends", fleet.fatal[0])
            self._begin_end(0, now_s)
        self._go_on_upgrading()
        if self._ended_by is not None:
            self._go_on_ending(now_s)
        elif self._reload_due and not fleet.is_rolling and (fleet.is_ready or not fleet.starting()):
            self._begin_reload()
        self._processes.end_templates(lambda generation: generation in (fleet.current, fleet.target))

    def _tell_ready(self) -> None:
        if self.fleet.is_ready and not self._was_ready:
            self._was_ready = True
            self._notifier.ready(f"{len(self.fleet.slots)} workers serve")
            self._leaves_listeners = False
            self._on_ready()
            self._tell_of_listeners(False)

    def _ping(self, now_s: float) -> None:
        interval_s = self._notifier.watchdog_interval_s
        if interval_s is not None and now_s - self._pinged_s >= interval_s / 2:
            self._pinged_s = now_s
            self._notifier.watchdog()

    # --- signals

    def _on_signal(self, signum: int) -> None:
        now_s = time.monotonic()
        if signum in ENDS:
            self._on_end_signal(signum, now_s)
        elif signum == signal.SIGQUIT:
            self._begin_end(signum, now_s)
            self._kill_all(now_s)
        elif signum == signal.SIGHUP:
            self.reload()
        elif signum in (signal.SIGTTIN, signal.SIGTTOU):
            self._scale_by(1 if signum == signal.SIGTTIN else -1)
        elif signum == signal.SIGUSR1:
            self._dump_stacks()
        elif signum == signal.SIGUSR2:
            self._begin_upgrade()

    def _on_end_signal(self, signum: int, now_s: float) -> None:
        if self._ended_by is None:
            self._begin_end(signum, now_s)
        elif now_s - self._ended_s > TOGETHER_S and self._killed_s is None:
            self._logger.error("%s again: the workers are killed", signal.Signals(signum).name)
            self._kill_all(now_s)

    def _scale_by(self, change: int) -> None:
        count = len(self.fleet.slots) + change
        if not 1 <= count <= self._options.most:
            kept, most = count - change, self._options.most
            self._logger.warning("the number of workers stays %d: 1 to %d are possible here", kept, most)
        elif not self.is_ending:
            self.scale(count)

    def _dump_stacks(self) -> None:
        for worker in self.fleet.workers():
            if worker.catches(signal.SIGUSR1):
                # it shows its tasks as well
                worker.signal(signal.SIGUSR1)
            else:
                self.fleet.show_stack(worker, time.monotonic())

    # --- commands, in the supervisor's thread

    def scale(self, count: int) -> None:
        """Have so many workers from now on. Raises ValueError for a count that is not possible here."""
        if not 1 <= count <= self._options.most:
            raise ValueError(f"{count} workers: 1 to {self._options.most} are possible here")
        self._logger.info("the number of workers is %d from now on", count)
        self.fleet.scale(count, time.monotonic())

    def reload(self) -> Future[str]:
        """Replace all workers, one after the other, by new ones with the settings read again.

        The future's result is the reason for which it failed, or an empty text.
        """
        future: Future[str] = Future()
        if self.is_ending:
            future.set_result("the server ends")
        else:
            self._reload_due.append(future)
        return future

    def stop(self) -> None:
        """End the service in order, with exit code 0."""
        if self._ended_by is None:
            self._begin_end(0, time.monotonic())

    # --- a reload

    def _next_generation(self) -> Generation:
        orders = self._make_orders()
        self._generation_number += 1
        return Generation(self._generation_number, orders)

    def _begin_reload(self) -> None:
        self._reloading, self._reload_due = self._reload_due, []
        self._notifier.reloading()
        try:
            generation = self._next_generation()
        except (Exception, SystemExit) as error:
            self._logger.error("the reload is refused: %s", error)
            self._rolled(str(error))
            return
        self._logger.info("reload: generation %d begins", generation.number)
        self.fleet.roll(generation)

    def _rolled(self, reason: str) -> None:
        if not reason and self.fleet.current is not None:
            self._logger.info("reload: generation %d serves", self.fleet.current.number)
        self._notifier.ready(f"the reload has failed: {reason}" if reason else "reloaded")
        futures, self._reloading = self._reloading, []
        for future in futures:
            future.set_result(reason)

    # --- an upgrade

    def _begin_upgrade(self) -> None:
        if self._make_successor is None or self.is_ending:
            return
        if self._successor is not None:
            self._logger.warning("SIGUSR2: a new program starts already, pid %d", self._successor.pid)
            return
        if os.getpid() == 1:
            self._logger.error("SIGUSR2: process 1 cannot end, so no new program can take its place")
            return
        try:
            self._successor = self._make_successor()
        except OSError as error:
            self._logger.error("SIGUSR2: the new program cannot be started: %s", error)
            return
        self._upgrade_began_s = time.monotonic()
        # even if this process is killed as soon as the new one serves
        self._tell_of_listeners(True)
        self._logger.info("SIGUSR2: a new program starts, pid %d", self._successor.pid)

    def _go_on_upgrading(self) -> None:
        if self._successor is None:
            return
        try:
            if not self._successor.is_ready():
                self._bound_upgrade(self._successor)
                return
        except (EOFError, OSError):
            self._logger.error("the new program, pid %d, has not started; this one goes on", self._successor.pid)
            self._tell_of_listeners(self._leaves_listeners)
            self._successor.failed()
            self._successor.close()
            self._successor = None
            return
        self._logger.info("the new program, pid %d, serves; this one ends", self._successor.pid)
        self._notifier.main_pid(self._successor.pid)
        self._successor.served()
        self._successor.close()
        self._successor, self._leaves_listeners = None, True
        self.stop()

    def _bound_upgrade(self, successor: Successor) -> None:
        """Kill a new program that has not started in time: it may hang before it has a bound of its own."""
        start_s = self._options.fleet.start_s
        if start_s is not None and time.monotonic() - self._upgrade_began_s >= start_s + UPGRADE_GRACE_S:
            self._logger.error("the new program, pid %d, does not start: it is killed", successor.pid)
            self._upgrade_began_s = math.inf
            successor.kill()

    def _tell_of_listeners(self, are_left: bool) -> None:
        """Tell the workers whether another supervisor has the listeners: orphans leave these as they are then."""
        self._processes.leaves_listeners = are_left
        for worker in self.fleet.workers():
            worker.send({"leaves_listeners": are_left})

    # --- the end

    def _begin_end(self, signum: int, now_s: float) -> None:
        if self._ended_by is not None:
            return
        self._ended_by, self._ended_s = signum, now_s
        # nothing is refused where another supervisor goes on: there a delay would only show two services
        is_at_once = self.fleet.fatal is not None or self._leaves_listeners
        self._drain_at_s = now_s if is_at_once else now_s + self._options.drain_delay_s
        if self._successor is not None:
            self._successor.cancel()
        if not self._leaves_listeners:
            self._notifier.stopping()
        for future in (*self._reload_due, *self._reloading):
            future.set_result("the server ends")
        self._reload_due, self._reloading = [], []

    def _go_on_ending(self, now_s: float) -> None:
        if self._killed_s is None and not self.fleet.is_stopping and now_s >= self._drain_at_s:
            if not self._leaves_listeners:
                for listener in self._owned:
                    stop_new(listener)
            if not self._awaits_clients(now_s):
                self.fleet.drain_all(now_s)
        is_over = self._killed_s is not None and now_s - self._killed_s > REAP_S
        if is_over or (self.fleet.is_stopping and not [*self.fleet.workers()]):
            self._code = self._exit_code()

    def _awaits_clients(self, now_s: float) -> bool:
        """Return whether clients wait for a worker that is still to start. It has the time of the drain."""
        drain_s = self._options.fleet.drain_s
        since_s = now_s - self._drain_at_s
        if (
            self._leaves_listeners
            or self.fleet.serving()
            or self.fleet.fatal
            or (drain_s is not None and since_s >= drain_s)
        ):
            return False
        self.fleet.hasten()
        # no worker answers a client whose handshake ends only now: look after it has ended
        return since_s < SETTLE_S or any(map(has_clients, self._listeners))

    def _kill_all(self, now_s: float) -> None:
        self._killed_s = now_s
        self.fleet.kill_all()

    def _exit_code(self) -> int:
        if self.fleet.fatal is not None:
            return self.fleet.fatal[1]
        return 128 + self._ended_by if self._ended_by else 0

    def _end_everything(self) -> None:
        """Kill the processes that are left, after an error too, and close what is the supervisor's own."""
        self.fleet.kill_all()
        self._processes.end_templates(lambda generation: False)
        until_s = time.monotonic() + REAP_S
        while not self._processes.is_done and time.monotonic() < until_s:
            self._reap(time.monotonic())
            time.sleep(0.005)
        for worker in [*self.fleet.workers()]:
            worker.close()
        self._wakeups.close()

    @property
    def generation_number(self) -> int:
        """The number of the generation that serves, from 1; a failed reload uses a number up."""
        return 0 if self.fleet.current is None else self.fleet.current.number

    def snapshot(self) -> dict[str, Any]:
        """Return the generation, the restarts and a row for each worker, in the supervisor's thread."""
        return {"generation": self.generation_number, "restarts": self.fleet.restarts.total, "workers": self.rows()}

    def ask_stacks(self) -> None:
        """Ask each worker for the stacks of its threads."""
        for worker in self.fleet.workers():
            if worker.pid is not None:
                worker.stack.ask(worker.pid)

    def take_stacks(self) -> dict[str, str]:
        """Return what the workers have written since they were asked, by process."""
        return {str(worker.pid): worker.stack.take() for worker in self.fleet.workers() if worker.pid is not None}

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each worker: its number, process, state and work."""
        now_s = time.monotonic()
        return [_row(worker, now_s) for worker in sorted(self.fleet.workers(), key=lambda each: each.number)]


def _row(worker: WorkerProcess, now_s: float) -> dict[str, Any]:
    reading = worker.page.read()
    return {
        "number": worker.number,
        "pid": worker.pid,
        "generation": worker.generation.number,
        "state": worker.state.value,
        "age_s": round(now_s - worker.launched_s, 3),
        "requests": reading.requests,
        "served": reading.served,
        "connections": reading.connections,
        "rss_bytes": None if worker.pid is None else rss_bytes(worker.pid),
    }
