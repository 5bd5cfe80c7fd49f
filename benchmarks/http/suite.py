"""The HTTP trials: uvicorn with a short answer and with 10 KiB, and aiohttp's server, plain and over TLS."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import replace

from benchmarks.machine import module_command
from benchmarks.method.trial import Sample, Trial
from benchmarks.net.load import Load
from benchmarks.net.suite import Bench, has_tls

__all__ = ["OWN", "notes", "trials"]

CONNECTIONS = 50
OWN = f"uvicorn plaintext, {CONNECTIONS} connections"
# row -> (kind of server, path, whether over TLS)
ROWS = {
    OWN: ("uvicorn", "/", False),
    f"uvicorn 10 KiB, {CONNECTIONS} connections": ("uvicorn", "/10k", False),
    f"aiohttp plaintext, {CONNECTIONS} connections": ("aiohttp", "/", False),
    f"TLS: uvicorn plaintext, {CONNECTIONS} connections": ("uvicorn-tls", "/", True),
    f"TLS: uvicorn 10 KiB, {CONNECTIONS} connections": ("uvicorn-tls", "/10k", True),
    f"TLS: aiohttp plaintext, {CONNECTIONS} connections": ("aiohttp-tls", "/", True),
}
PACKAGES = {"uvicorn": ("uvicorn", "httptools"), "aiohttp": ("aiohttp",)}


def trials(bench: Bench) -> list[Trial]:
    longer = replace(bench, effort=replace(bench.effort, warm_s=bench.effort.http_s, warmup_s=bench.effort.http_s / 2))
    return [_trial(longer, row) for row in ROWS if not _missing(row)]


def notes(rows: Iterable[str]) -> list[str]:
    """Return a line for each row that is missing here."""
    if not any("uvicorn" in row or "aiohttp" in row for row in rows):
        return []
    return [f"no row {row!r}: {missing}" for row in ROWS if (missing := _missing(row))]


def _missing(row: str) -> str:
    """Return the reason for which a row cannot be measured here, empty if it can."""
    kind, _, is_tls = ROWS[row]
    absent = [name for name in PACKAGES[kind.removesuffix("-tls")] if importlib.util.find_spec(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed"
    return "" if not is_tls or has_tls() else "it needs the openssl command and OpenSSL's headers"


def _trial(bench: Bench, row: str) -> Trial:
    kind, path, is_tls = ROWS[row]
    load = Load("http", CONNECTIONS, path=path, tls=is_tls)

    def run(arm: str) -> dict[str, Sample]:
        return {row: bench.measure(kind, module_command("benchmarks.http.serve", arm, kind), load)}

    return Trial((row,), run, quick=row == OWN)
