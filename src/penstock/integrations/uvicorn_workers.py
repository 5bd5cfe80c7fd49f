"""uvicorn's supervisors of worker processes and of the reloader, with ends of penstock's."""

from __future__ import annotations

import logging
import os
import select
import signal
from typing import TYPE_CHECKING, Any

from uvicorn.supervisors import ChangeReload, Multiprocess, multiprocess

from penstock.integrations.lifespan import FAILED_START
from penstock.integrations.uvicorn_server import Server
from penstock.runtime.acceptqueue import refuse_new

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Reloader", "Workers"]

logger = logging.getLogger("uvicorn.error")
ENDS = (signal.SIGTERM, signal.SIGINT)


class WorkerProcess(multiprocess.Process):
    """A worker of uvicorn's that serves by penstock's server; older uvicorns are told what a worker runs."""

    @property
    def server(self) -> Server:
        """The worker's own server, made in its process."""
        if self._server is None:
            self._server = Server(self.config)
        return self._server  # type: ignore[return-value]


class Wakeup:
    """An event as `threading.Event`, which a signal's handler may set: it takes no lock."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self.wait(0)

    def set(self) -> None:
        """Set it, once and for all."""
        if not self.is_set():
            os.write(self._writer, b"\0")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; False if that takes longer than `timeout` seconds."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))


class Workers(Multiprocess):
    """uvicorn's worker processes. A start that fails ends them all, and a stop is heard of at once."""

    should_exit: Any

    def __init__(self, *arguments: Any, **more: Any) -> None:
        multiprocess.Process = WorkerProcess  # type: ignore[misc]
        super().__init__(*arguments, **more)
        self.should_exit = Wakeup()
        for signum in ENDS:
            signal.signal(signum, self._on_end)

    def _on_end(self, signum: int, frame: FrameType | None) -> None:
        # Here, not when it is looked at: the signal may have come to the whole group, and the workers stop accepting.
        for listener in self.sockets:
            refuse_new(listener)
        self.should_exit.set()

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have died, unless one has failed to start: the next would fail as well."""
        if not self.has_failed():
            super().keep_subprocess_alive()
        if not self.has_failed():
            return
        # newer uvicorns have seen it, and have said so
        if not self.should_exit.is_set():
            logger.error("a worker process failed to start, stopping the parent process.")
        for listener in self.sockets:
            refuse_new(listener)
        self.should_exit.set()

    def has_failed(self) -> bool:
        """Whether a worker process has ended before it served."""
        return any(process.process.exitcode == FAILED_START for process in self.processes)


class Reloader(ChangeReload):  # type: ignore[misc, valid-type]
    """uvicorn's reloader. Clients wait in the listening socket from one child to the next, and for none at the end."""

    def shutdown(self) -> None:
        """End the child and the reloader."""
        for listener in self.sockets:
            refuse_new(listener)
        super().shutdown()
