"""Runs: a scope around each run of a loop, and the exception with which a run that a signal has ended is left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

__all__ = ["RunHooks"]


class RunHooks(asyncio.BaseEventLoop):
    """Mixin, before asyncio's loop in the bases, with a scope around each run. No scope is set at first."""

    _run_scope: Callable[[], AbstractContextManager[Any]] | None = None
    _main: Any = None
    # set when a signal, not the program, has ended the run: the exception that `run_until_complete` raises
    ended_by: BaseException | None = None
    # the exception that `close` raises, set when the signal came during the clean-up
    ended_by_at_close: BaseException | None = None

    if TYPE_CHECKING:

        def _run_within(self, scope: AbstractContextManager[Any], run: Callable[[], None]) -> None:
            """Call `run()` in `scope`. Each loop has its own: natively, no signal can come between the steps."""

    def set_run_scope(self, scope: Callable[[], AbstractContextManager[Any]] | None) -> None:
        """Enter `scope()` around every run of the loop; None: enter nothing."""
        self._run_scope = scope

    def run_forever(self) -> None:
        """Run as asyncio's loop does, inside the run scope."""
        if self._run_scope is None or self.is_running():
            super().run_forever()
            return
        self._run_within(self._run_scope(), super().run_forever)

    def run_until_complete(self, future: Any) -> Any:
        """Run as asyncio's loop does. Raise `ended_by`, in place of a result, when a signal has ended the run."""
        outer, self._main = self._main, future
        try:
            result = super().run_until_complete(future)
        except asyncio.CancelledError:
            self._raise_ended_by()
            raise
        finally:
            # an exception that was not raised must not be raised by a later run, the runner's clean-up
            self._main, ended_by, self.ended_by = outer, self.ended_by, None
        if ended_by is not None:
            raise ended_by
        return result

    def _raise_ended_by(self) -> None:
        if self.ended_by is not None:
            ended_by, self.ended_by = self.ended_by, None
            raise ended_by from None

    def main_task(self) -> asyncio.Future[Any] | None:
        """Return the future that `run_until_complete` waits for; None under a bare `run_forever`."""
        if self._main is None or asyncio.isfuture(self._main):
            return self._main
        return next((task for task in asyncio.all_tasks(self) if task.get_coro() is self._main), None)

    def close(self) -> None:
        """Close as asyncio's loop does, then raise `ended_by_at_close` if it is set."""
        super().close()
        ended_by, self.ended_by_at_close = self.ended_by_at_close, None
        if ended_by is not None:
            raise ended_by
