"""A loop of one's own in a thread: where a process lane lives when no loop has called it first."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from penstock.loop import EventLoop

if TYPE_CHECKING:
    import asyncio

__all__ = ["Service"]


class Service:
    """Owns its loop and its thread, until `stop`."""

    def __init__(self, name: str) -> None:
        self.loop: asyncio.AbstractEventLoop = EventLoop()
        # a daemon: whoever uses it ends its work at the interpreter's exit
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def stop(self) -> None:
        """Stop the loop and wait for the thread, unless this is it."""
        if self._thread.is_alive() and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()
