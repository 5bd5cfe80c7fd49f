"""The HTTP trials: uvicorn plaintext under the client in C, and under wrk where it is installed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from benchmarks.http.wrk import drive_wrk, wrk_installed
from benchmarks.machine import Placement, module_command
from benchmarks.method.trial import Effort, Sample, Trial
from benchmarks.net.load import drive

__all__ = ["OWN", "notes", "trials"]

CONNECTIONS = 50
OWN = f"uvicorn plaintext, {CONNECTIONS} connections"
WRK = f"{OWN}, wrk"
WRK_MISSING = f"no row {WRK!r}: wrk is not installed (apt-get install wrk)"


def trials(placement: Placement, effort: Effort) -> list[Trial]:
    longer = replace(effort, warm_s=effort.http_s, warmup_s=effort.http_s / 2)

    def own(arm: str) -> dict[str, Sample]:
        return {OWN: drive(_server(arm), CONNECTIONS, 0, longer, placement, http=True)["warm"]}

    def wrk(arm: str) -> dict[str, Sample]:
        return {WRK: drive_wrk(_server(arm), CONNECTIONS, effort, placement)}

    found = [Trial((OWN,), own)]
    return [*found, Trial((WRK,), wrk, quick=False)] if wrk_installed() else found


def notes(rows: Iterable[str]) -> list[str]:
    """Return a line for each row that is missing here."""
    return [WRK_MISSING] if not wrk_installed() and any("uvicorn" in row for row in rows) else []


def _server(arm: str) -> list[str]:
    return module_command("benchmarks.http.serve", arm)
