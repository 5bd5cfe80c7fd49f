"""A loop of one's own in a thread: where a process lane lives when threads call it before any loop does."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from penstock.loop import EventLoop

if TYPE_CHECKING:
    import asyncio

__all__ = ["Service"]

logger = logging.getLogger("penstock")


class Service:
    """Owns its loop and its thread, until `stop`. The loop runs when it is made."""

    def __init__(self, name: str) -> None:
        self.loop: asyncio.AbstractEventLoop = EventLoop()
        # a daemon: whoever uses it ends its work at the interpreter's exit
        self._is_to_stop = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        begun = threading.Event()
        self.loop.call_soon(begun.set)
        try:
            self._thread.start()
        except BaseException:
            self.loop.close()
            raise
        begun.wait()

    def _run(self) -> None:
        while not self._is_to_stop:
            try:
                self.loop.run_forever()
            except BaseException:
                # a future's callback has raised SystemExit, or the like: it ends nothing that others wait for
                logger.exception("a callback in %s", self._thread.name)
        self.loop.close()

    def stop(self) -> None:
        """Stop the loop and wait for the thread, unless this is it. May be called again."""
        self._is_to_stop = True
        with suppress(RuntimeError):  # it is closed
            self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()
