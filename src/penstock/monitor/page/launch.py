"""The start of the page's process beside a service. The page ends with the service."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from penstock.runtime.supervisor.launching import interpreter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from penstock.config import MonitorConfig

__all__ = ["TOKEN_VARIABLE", "page_command", "page_environment", "page_process"]

logger = logging.getLogger("penstock")

TOKEN_VARIABLE = "PENSTOCK_MONITOR_PAGE_TOKEN"
# the config is the service's: the page needs only to find its sockets
PREFIX, KEPT = "PENSTOCK_", ("PENSTOCK_RUNTIME_DIR",)
# an upgraded service's page waits for the end of its predecessor
WITHIN_S = 120.0
# the longest wait for its end before it is killed
END_S = 2.0


@contextmanager
def page_process(config: MonitorConfig) -> Iterator[None]:
    """Serve a page of this process, or of its workers, inside the block; no page without an address in the config.

    For the main thread: the kernel ends the page at the end of the thread that has started it.
    """
    process = None if config.page is None else _started(config.page, config.page_token)
    if process is None:
        yield
        return
    ending = threading.Event()
    threading.Thread(target=_follow, args=(process, ending), name="penstock-page-end", daemon=True).start()
    try:
        yield
    finally:
        ending.set()
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def page_command(pid: int, address: str) -> list[str]:
    """Return the command of the page's process."""
    own = ["--bind", address, "--parent", str(pid), "--within", f"{WITHIN_S:g}"]
    # -P: the current folder must not hide the modules of penstock
    return [*interpreter(), "-P", "-m", "penstock.monitor.page", str(pid), *own]


def page_environment(environ: Mapping[str, str], token: str | None) -> dict[str, str]:
    """Return the page's variables: the token is among them, since arguments can be read by every user."""
    kept = {name: text for name, text in environ.items() if not name.startswith(PREFIX) or name in KEPT}
    return kept if token is None else {**kept, TOKEN_VARIABLE: token}


def _started(address: str, token: str | None) -> subprocess.Popen[bytes] | None:
    command = page_command(os.getpid(), address)
    environ = page_environment(os.environ, token)
    try:
        return subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    except OSError as error:
        logger.warning("the monitor's page cannot be started: %s", error)
        return None


def _follow(process: subprocess.Popen[bytes], ending: threading.Event) -> None:
    code = process.wait()
    if not ending.is_set():
        logger.warning("the monitor's page has ended with code %s; the service continues without it", code)
