"""The number of worker processes of `penstock serve`: from its text, and its upper bound on this machine."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from penstock.cli.options import Failure
from penstock.errors import ConfigError
from penstock.executors.cores import usable_cores

__all__ = ["check_workers", "most_here", "most_workers", "worker_count"]

# more processes for each usable core only wait for each other
FOR_EACH_CORE = 32
# private memory of an idle worker, rounded down
WORKER_BYTES = 32 * 1024 * 1024
OWN_CGROUP, CGROUP_ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def worker_count(text: str) -> int:
    """Return the text of `--workers` as a number; `auto` is the number of usable cores. Raises argparse's error."""
    if text == "auto":
        try:
            return usable_cores().chosen
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count: 1 or more, or auto")
    return int(text)


def check_workers(count: int) -> None:
    """Raise Failure for more worker processes than this machine can have."""
    most, why = most_workers(usable_cores().chosen, _memory_bytes())
    if count > most:
        raise Failure(f"--workers {count}: at most {most} here, {why}", code=2)


def most_here() -> int:
    """Return the most worker processes that this machine can have."""
    return most_workers(usable_cores().chosen, _memory_bytes())[0]


def most_workers(cores: int, memory_bytes: int | None) -> tuple[int, str]:
    """Return the bound, and the resource that sets it."""
    for_cores = cores * FOR_EACH_CORE
    for_memory = for_cores if memory_bytes is None else max(1, memory_bytes // WORKER_BYTES)
    if for_memory < for_cores:
        mebibytes = WORKER_BYTES // 2**20
        return for_memory, f"{mebibytes} MiB of {(memory_bytes or 0) / 2**30:.1f} GiB of memory for each"
    return for_cores, f"{FOR_EACH_CORE} for each usable core"


def _memory_bytes() -> int | None:
    """Return the memory of the machine or the lowest limit of the process's cgroups, in bytes; None if unknown."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    return min([machine, *cgroup_bytes(_text(OWN_CGROUP), CGROUP_ROOT)])


def cgroup_bytes(own_cgroup: str, root: Path) -> list[int]:
    """Return the memory limits of the cgroups in `own_cgroup`, the text of /proc/self/cgroup, and of their parents."""
    limits = []
    for line in own_cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        mount = root / "memory" if "memory" in controllers.split(",") else root
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        if not controllers or "memory" in controllers.split(","):
            parts = [part for part in path.split("/") if part not in ("", "..")]
            files = [mount.joinpath(*parts[:length], name) for length in range(len(parts), -1, -1)]
            limits += [int(text) for text in map(_text, files) if text.isdecimal()]
    return limits


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
