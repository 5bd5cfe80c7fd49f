"""uvicorn's supervisors, of worker processes and of the reloader's child, with penstock's start reports and end."""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import time
from contextlib import suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from uvicorn.supervisors import ChangeReload, Multiprocess, multiprocess

from penstock.integrations.uvicorn.lifespan import FAILED_START
from penstock.integrations.uvicorn.server import ENDING, MAX_REPORT_BYTES, STARTED, UvicornServer
from penstock.runtime.acceptqueue import SETTLE_S, has_clients, stop_new

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

__all__ = ["Reloader", "WorkerSupervisor"]

logger = logging.getLogger("uvicorn.error")
ENDS = (signal.SIGTERM, signal.SIGINT)
# so many workers in a row that end before they serve are no accident
MAX_FAILED_STARTS = 5
POLL_INTERVAL_S = 0.02


class WorkerProcess(multiprocess.Process):
    """uvicorn's worker process with penstock's server; older uvicorns take a target instead."""

    @property
    def server(self) -> UvicornServer:
        """The worker's own server, made in its process."""
        if self._server is None:
            self._server = UvicornServer(self.config)
        return self._server  # type: ignore[return-value]

    def ping(self, timeout: float = 5) -> bool:
        """Return whether the worker answers within `timeout` seconds, or False as soon as it ends."""
        with suppress(OSError, EOFError):
            self.parent_conn.send(b"ping")
            wait([self.parent_conn, self.process.sentinel], timeout)
            if self.parent_conn.poll():
                self.parent_conn.recv()
                return True
        return False


class SignalSafeEvent:
    """An event like `threading.Event` that takes no lock, so that a signal's handler may set it."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def is_set(self) -> bool:
        """Return whether the event is set."""
        return self.wait(0)

    def set(self) -> None:
        """Set the event; it is never cleared."""
        if not self.is_set():
            os.write(self._writer, b"\0")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set. Return False if that takes longer than `timeout` seconds."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))


class StartReports:
    """The workers' reports of their starts and ends.

    Ownership: the parent has the reading end, and each worker a copy of the other one.
    """

    def __init__(self) -> None:
        self._reader, self.writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._reader.setblocking(False)
        self._has_reason = False
        self._started: set[int] = set()
        self._ending: set[int] = set()
        self._ended: set[int] = set()
        self.failed_in_a_row = 0

    def read(self) -> None:
        """Read the reports, and log the first reason for a failed start: the other workers report the same."""
        with suppress(BlockingIOError):
            while True:
                # a long reason may end within a character
                word, _, text = self._reader.recv(MAX_REPORT_BYTES).decode(errors="replace").partition(" ")
                if word == STARTED:
                    self._started.add(int(text))
                    self.failed_in_a_row = 0
                elif word == ENDING:
                    self._ending.add(int(text))
                elif not self._has_reason:
                    self._has_reason = True
                    logger.error("%s", text)

    def has_started(self, pid: int) -> bool:
        """Return whether the worker has reported that it serves."""
        return pid in self._started

    def is_ending(self, pid: int) -> bool:
        """Return whether the worker has reported that it accepts no more clients."""
        return pid in self._ending

    def record_end(self, pid: int) -> None:
        """Record that a worker has ended, and whether it had served."""
        if pid not in self._started | self._ended:
            self.failed_in_a_row += 1
        self._ended.add(pid)


class WorkerSupervisor(Multiprocess):
    """uvicorn's supervisor of workers. A failed start ends all of them, and a signal stops the accepting at once."""

    should_exit: Any
    _has_last = False

    def __init__(self, config: Any, *arguments: Any, **more: Any) -> None:
        multiprocess.Process = WorkerProcess  # type: ignore[misc]
        super().__init__(config, *arguments, **more)
        self._reports = StartReports()
        config.start_reports = self._reports.writer
        self.should_exit = SignalSafeEvent()
        for signum in ENDS:
            signal.signal(signum, self._on_end)

    def _on_end(self, signum: int, frame: FrameType | None) -> None:
        # in the handler, not later: the signal may have come to the whole group, whose workers stop accepting now
        _stop_accepting(self)
        self.should_exit.set()

    def keep_subprocess_alive(self) -> None:
        """Replace dead workers, unless one has failed to start: its replacement would fail too."""
        self._check_workers()
        if not self.has_failed():
            super().keep_subprocess_alive()
            self._check_workers()
        if not self.has_failed():
            return
        # newer uvicorns have noticed and logged it
        if not self.should_exit.is_set():
            logger.error("a worker process failed to start, stopping the parent process.")
        _stop_accepting(self)
        self.should_exit.set()

    def _check_workers(self) -> None:
        self._reports.read()
        for process in self.processes:
            if process.process.exitcode is not None:
                self._reports.record_end(process.process.pid or 0)

    def terminate_all(self) -> None:
        """End the workers. If clients wait and no worker accepts, wait for one to start, within the drain's time."""
        drain_s = self.config.timeout_graceful_shutdown
        until_s = math.inf if drain_s is None else time.monotonic() + drain_s
        if not self._accepting():
            # no worker answers a client whose handshake ends only now: look after it has ended
            time.sleep(SETTLE_S)
        while any(map(has_clients, self.sockets)) and not self._is_served() and time.monotonic() < until_s:
            time.sleep(POLL_INTERVAL_S)
        super().terminate_all()

    def _is_served(self) -> bool:
        """Return whether a worker accepts clients, or none ever will. If all have ended, start one more."""
        self._check_workers()
        accepting = self._accepting()
        if not accepting and not self._has_last and not self.has_failed():
            self._has_last = True
            self._start_last()
            return False
        return not accepting or any(map(self._reports.has_started, accepting))

    def _accepting(self) -> list[int]:
        """Return the process numbers of the workers that are alive and not ending."""
        alive = [process.process.pid or 0 for process in self.processes if process.process.is_alive()]
        return [pid for pid in alive if not self._reports.is_ending(pid)]

    def _start_last(self) -> None:
        process = WorkerProcess(self.config, self.sockets)
        process.start()
        self.processes.append(process)

    def has_failed(self) -> bool:
        """Return whether a worker has failed to start: by its exit code, or several in a row."""
        if self._reports.failed_in_a_row >= MAX_FAILED_STARTS:
            return True
        return any(process.process.exitcode == FAILED_START for process in self.processes)


class Reloader(ChangeReload):  # type: ignore[misc, valid-type]
    """uvicorn's reloader. Clients wait in the listening socket from one child to the next, but not at the end."""

    def signal_handler(self, sig: int, frame: FrameType | None) -> None:
        """Stop accepting at once: the signal may have come to the whole group, whose child stops accepting now."""
        _stop_accepting(self)
        super().signal_handler(sig, frame)

    def startup(self) -> None:
        """Record the sources' times before the child reads them, so that a change during its start reloads too."""
        if hasattr(self, "mtimes"):
            self.mtimes = self._times()
        super().startup()

    def restart(self) -> None:
        """Record the sources' times for the next child too; uvicorn does so only after its start."""
        times = self._times() if hasattr(self, "mtimes") else None
        super().restart()
        if times is not None:
            self.mtimes = times

    def _times(self) -> dict[Path, float]:
        times = {}
        for file in self.iter_py_files():
            with suppress(OSError):
                times[file] = file.stat().st_mtime
        return times


def _stop_accepting(supervisor: Any) -> None:
    """Stop accepting clients. Inherited sockets stay open, and their clients wait for the next server."""
    for listener in supervisor.config.owned(supervisor.sockets):
        stop_new(listener)
