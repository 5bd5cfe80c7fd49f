"""uvicorn's server and config in a worker of gunicorn's: gunicorn's logs, TLS and signals."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Any

from penstock.integrations.gunicorn.access_log import AccessLog
from penstock.integrations.gunicorn.listeners import are_last
from penstock.integrations.uvicorn.loading import ServingConfig
from penstock.integrations.uvicorn.server import UvicornServer
from penstock.runtime.acceptqueue import empty_once, stop_new

if TYPE_CHECKING:
    import socket
    from types import FrameType

__all__ = ["GunicornConfig", "GunicornServer", "make_config"]

# uvicorn's own records and penstock's
LOGGERS = ("uvicorn.error", "penstock")


def make_config(worker: Any, drain_s: float) -> GunicornConfig:
    """Return the config of a worker with its loaded application. `drain_s` is the time of its drain in seconds."""
    options = worker.server_options()
    # one worker, for uvicorn reads WEB_CONCURRENCY otherwise
    config = GunicornConfig(worker.wsgi, log_config=None, access_log=False, workers=1, **options)
    # uvicorn's annotation has whole seconds
    config.timeout_graceful_shutdown = drain_s  # type: ignore[assignment]
    config.worker = worker
    return config


class GunicornConfig(ServingConfig):
    """uvicorn's config with the application, the logs and the TLS context of gunicorn."""

    # a PenstockWorker, whose module imports this one
    worker: Any

    def configure_logging(self) -> None:
        """Do nothing: gunicorn has set up its logging, and the server's records go there."""

    def load(self) -> None:
        """Prepare the application; uvicorn calls this in the running loop."""
        drain_s, self.timeout_graceful_shutdown = self.timeout_graceful_shutdown, None
        # without a bound of the drain, no thread ends this process: the master does
        super().load()
        self.timeout_graceful_shutdown = drain_s
        if self.worker.cfg.is_ssl:
            from gunicorn.sock import ssl_context

            self.ssl = ssl_context(self.worker.cfg)
        if _logs_access(self.worker.log):
            self.loaded_app = AccessLog(self.loaded_app, self.worker.log)


def _logs_access(log: Any) -> bool:
    # older gunicorns decide it for each request
    return bool(getattr(log, "access_log_enabled", True))


class GunicornServer(UvicornServer):
    """uvicorn's server under gunicorn's master, which goes on with the listeners."""

    def __init__(self, config: GunicornConfig, worker: Any) -> None:
        super().__init__(config)
        self._worker = worker

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, and notify the master from before the application's startup to after its shutdown."""
        _log_by(self._worker.log.error_log)
        notifying = asyncio.create_task(self._worker.keep_notifying(), name="gunicorn-notify")
        try:
            await super().serve(sockets=sockets)
        finally:
            notifying.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen."""
        await super().startup(sockets=sockets)
        if self.started:
            self._worker.log.info("penstock serves in worker %s", self._worker.pid)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on SIGTERM, however often it comes; end at once on SIGINT, as gunicorn's workers do."""
        if sig == signal.SIGINT:
            self._worker.handle_quit(sig, frame)
        self._worker.alive = False
        super().handle_exit(sig, frame)

    async def _stop_accepting(self, sockets: list[socket.socket], until_s: float) -> None:
        # systemd keeps the listeners that it has opened
        if "LISTEN_FDS" not in self._worker.cfg.env_orig and are_last(sockets, self._worker.ppid):
            for sock in sockets:
                stop_new(sock)
        else:
            await empty_once(asyncio.get_running_loop(), sockets, until_s)
        await super()._stop_accepting(sockets, until_s)


def _log_by(error_log: logging.Logger) -> None:
    """Let the records of the server and of penstock go where gunicorn's errors go, from its level on."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = error_log.handlers
        logger.setLevel(error_log.level)
        logger.propagate = error_log.propagate
