"""uvicorn's config with penstock's loop and logging. The parent of workers has it too, and imports no loop for it."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import Any, TypeVar

import uvicorn
from uvicorn.importer import import_from_string

import penstock
from penstock.logformats import json_line
from penstock.runtime.deadline import format_lines_by
from penstock.tasks.finding_fields import show_records

__all__ = ["ServerConfig", "check_protocols", "checked_server_config"]

logger = logging.getLogger("uvicorn.error")
LOOP = "penstock:new_event_loop"
# uvicorn takes the loop as a factory's import string since 0.36; before, by a set-up call that installs a policy
TAKES_A_FACTORY = hasattr(uvicorn.Config, "get_loop_factory")
C = TypeVar("C", bound="ServerConfig")


class ServerConfig(uvicorn.Config):
    """uvicorn's config with penstock's loop and logging."""

    def __init__(self, app: Any, log_format: str = "text", **choices: Any) -> None:
        # before uvicorn sets up logging
        self.log_format = log_format
        super().__init__(app, loop=LOOP if TAKES_A_FACTORY else "none", **choices)

    def configure_logging(self) -> None:
        """Set up uvicorn's logging and that of penstock's own records; uvicorn calls this in each process."""
        super().configure_logging()
        show_records(logging.getLogger("uvicorn.error").getEffectiveLevel(), self.log_format)
        if self.log_format == "json":
            format_lines_by(json_line)

    if not TAKES_A_FACTORY:

        def setup_event_loop(self) -> None:
            """Install penstock's policy: uvicorn before 0.36 chooses a loop by the policy."""
            penstock.install()


def checked_server_config(kind: type[C], app: Any, log_format: str = "text", **choices: Any) -> C:
    """Return a config of this class. Raises ValueError, naming the file, for a configuration of logging that cannot be
    used."""
    try:
        return kind(app, log_format, **choices)
    except Exception as error:
        # uvicorn checks only its logging before it serves
        log_config = choices.get("log_config")
        if not isinstance(log_config, str):
            raise
        reason = "a folder, not a file" if os.path.isdir(log_config) else str(error)
        raise ValueError(f"--log-config {log_config}: {reason}") from error


def check_protocols(choices: dict[str, Any]) -> None:
    """Raise ValueError, naming the option, for an HTTP or WebSocket protocol that uvicorn cannot load."""
    config = import_module("uvicorn.config")
    for option, known in (("http", config.HTTP_PROTOCOLS), ("ws", config.WS_PROTOCOLS)):
        name = choices.get(option, "auto")
        if not isinstance(name, str) or name in known:
            continue
        try:
            import_from_string(name)
        except Exception as error:
            allowed = ", ".join(map(str, known))
            reason = " ".join(str(error).split())
            raise ValueError(f"--{option} {name}: allowed is {allowed}, or module:class; {reason}") from None
