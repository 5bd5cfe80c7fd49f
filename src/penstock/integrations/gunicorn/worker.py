"""The worker class: a process of gunicorn's that serves an ASGI application by penstock's server on penstock's loop.

gunicorn's master owns the listeners, starts and replaces workers and reads signals. It kills a worker that does not
notify it within `--timeout`; the loop notifies it, so a loop that is blocked is found. uvicorn and the loop are
imported in the workers alone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import traceback
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gunicorn.workers.base import Worker

if TYPE_CHECKING:
    from types import FrameType

    from penstock.integrations.gunicorn.server import GunicornServer

__all__ = ["PenstockWorker"]

# the application's shutdown needs some of the time after which the master kills
DRAIN_SHARE = 0.9
MOST_INTERVAL_S = 1.0
# for the clean-up of cancelled tasks after SIGQUIT
QUIT_S = 1.0


class PenstockWorker(Worker):  # type: ignore[misc]
    """A gunicorn worker on penstock's loop. `PENSTOCK_*` variables and config files apply as under `penstock serve`."""

    _server: GunicornServer | None = None

    def run(self) -> None:
        """Serve until a signal, the end of the master or `--max-requests` ends it. SystemExit(3) if it cannot start."""
        from penstock.config.choice import chosen, default_config
        from penstock.integrations.gunicorn.server import GunicornServer, make_config

        if not self.alive:
            return
        sockets = [each.sock for each in self.sockets]
        config = default_config()
        # the server drains, within gunicorn's time; a drain of the loop's own would interfere
        with chosen(replace(config, signals=replace(config.signals, drain_s=None))):
            self._server = GunicornServer(make_config(self, self.cfg.graceful_timeout * DRAIN_SHARE), self)
            self._server.run(sockets=sockets)

    async def keep_notifying(self) -> None:
        """Notify the master from the loop, and follow its end and the reloader's word, until cancelled."""
        server = self._server
        # gunicorn hands over half of --timeout
        interval_s = min(self.timeout / 2, MOST_INTERVAL_S) if self.timeout else MOST_INTERVAL_S
        while server is not None:
            self.notify()
            if os.getppid() != self.ppid and not server.should_exit:
                self.log.info("Parent changed, shutting down: %s", self)
                server.should_exit = True
            if not self.alive:
                server.should_exit = True
            await asyncio.sleep(interval_s)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """End at once. Cancelled tasks have a moment for their clean-up."""
        timer = threading.Timer(QUIT_S, os._exit, (0,))
        timer.daemon = True
        timer.start()
        super().handle_quit(sig, frame)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """Log where the process is blocked, and end: the master has had no notice from the loop."""
        self.log.critical("The loop of %s is blocked:\n%s", self, "".join(traceback.format_stack(frame)))
        timer = threading.Timer(QUIT_S, os._exit, (1,))
        timer.daemon = True
        timer.start()
        super().handle_abort(sig, frame)

    def init_signals(self) -> None:
        """Set gunicorn's handlers, without its pipe: the loop has a wakeup descriptor of its own."""
        super().init_signals()
        with suppress(ValueError):
            signal.set_wakeup_fd(-1)

    def server_options(self) -> dict[str, Any]:
        """Return gunicorn's settings as uvicorn's options."""
        cfg = self.cfg
        return {
            "backlog": cfg.backlog,
            "timeout_keep_alive": cfg.keepalive,
            "forwarded_allow_ips": cfg.forwarded_allow_ips,
            "limit_max_requests": self.max_requests if cfg.max_requests > 0 else None,
            # settings of newer versions
            "lifespan": getattr(cfg, "asgi_lifespan", "auto"),
            "root_path": getattr(cfg, "root_path", ""),
        }
