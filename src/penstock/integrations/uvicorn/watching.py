"""Watches the source files for `--reload`, by watchfiles in a thread of the parent."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from penstock.integrations.uvicorn.server_config import ServerConfig

__all__ = ["SourceWatch", "require_watchfiles"]

logger = logging.getLogger("uvicorn.error")
# of watchfiles' own loop, between two looks at the stop event
STEP_MS = 50


def require_watchfiles() -> None:
    """Raise ImportError, with the remedy, where watchfiles is not installed."""
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        raise ImportError("--reload needs watchfiles: pip install 'penstock[serve]'") from None


class SourceWatch:
    """A context in which `changed()` is called, in a thread, for each change of a source file that the config names."""

    def __init__(self, config: ServerConfig, changed: Callable[[], object]) -> None:
        # imported here: uvicorn's module needs watchfiles
        from uvicorn.supervisors.watchfilesreload import FileFilter

        self._is_source = FileFilter(config)
        self._folders = _without_nested(config.reload_dirs)
        self._delay_ms = int(config.reload_delay * 1000)
        self._changed = changed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="penstock-source-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        import watchfiles

        watched = watchfiles.watch(
            *self._folders,
            watch_filter=None,
            stop_event=self._stop,
            step=STEP_MS,
            debounce=max(self._delay_ms, STEP_MS),
            raise_interrupt=False,
        )
        for changes in watched:
            paths = sorted({path for _, path in changes if self._is_source(Path(path))})
            if paths:
                shown = ", ".join(os.path.relpath(path) for path in paths[:3])
                logger.warning("a reload begins: %s changed", shown)
                self._changed()


def _without_nested(folders: list[Path]) -> list[Path]:
    """Return the folders without those inside of another one, which would be watched twice."""
    return [each for each in dict.fromkeys(folders) if not any(other in each.parents for other in folders)]
