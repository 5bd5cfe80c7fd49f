"""The arms: four servers with worker processes, each with its defaults but for the log."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass

from benchmarks.machine import module_command
from benchmarks.method.trial import base_arm

__all__ = ["ARMS", "available", "command", "describe"]

APP = "benchmarks.workers.app:app"


@dataclass(frozen=True, slots=True)
class Arm:
    """The server's module and options ({port} and {workers} are filled in), the packages it needs, what it is."""

    module: str
    options: str
    packages: tuple[str, ...]
    what: str


ARMS: dict[str, Arm] = {
    "uvicorn": Arm(
        "uvicorn",
        f"{APP} --port {{port}} --workers {{workers}} --no-access-log --log-level warning",
        ("uvicorn", "uvloop", "httptools"),
        "its own supervisor, uvloop, httptools",
    ),
    "gunicorn": Arm(
        "gunicorn",
        f"{APP} --bind 127.0.0.1:{{port}} --workers {{workers}} --worker-class uvicorn_worker.UvicornWorker "
        "--log-level warning",
        ("gunicorn", "uvicorn-worker", "uvicorn", "uvloop", "httptools"),
        "uvicorn-worker, uvloop, httptools",
    ),
    "granian": Arm(
        "granian",
        f"{APP} --interface asgi --port {{port}} --workers {{workers}} --no-access-log --log-level warning",
        ("granian", "uvloop"),
        "HTTP in Rust, uvloop",
    ),
    "penstock": Arm(
        "penstock",
        f"serve {APP} --port {{port}} --workers {{workers}} --no-access-log --log-level warning",
        ("penstock", "uvicorn", "httptools"),
        "penstock serve: its own loop, telemetry included; uvicorn, httptools",
    ),
}


def command(arm: str, port: int, workers: int) -> list[str]:
    """Return the command that starts the arm's server."""
    known = ARMS[base_arm(arm)]
    return module_command(known.module, *known.options.format(port=port, workers=workers).split())


def available(wanted: list[str]) -> tuple[list[str], list[str]]:
    """Split the wanted arms into the installed ones and a line for each other one."""
    reasons = {arm: _missing(arm) for arm in wanted}
    told = [f"{arm} is left out: {reason}" for arm, reason in reasons.items() if reason]
    return [arm for arm, reason in reasons.items() if not reason], told


def _missing(arm: str) -> str:
    if base_arm(arm) not in ARMS:
        return f"no such arm; there are {', '.join(ARMS)}"
    names = [name for name in ARMS[base_arm(arm)].packages if not importlib.util.find_spec(name.replace("-", "_"))]
    return f"{', '.join(names)} not installed" if names else ""


def describe(arm: str) -> str:
    """Return the versions behind an arm, and what it is."""
    known = ARMS[base_arm(arm)]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in known.packages)
    return f"{versions}; {known.what}"
