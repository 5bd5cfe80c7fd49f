"""The facts of this process for its monitors: program, versions, memory, CPU time, quota. Unknown facts are None."""

from __future__ import annotations

import gc
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import penstock
from penstock.executors.cores import current_cores
from penstock.runtime.attach.role import program_name
from penstock.tasks.detectors.stalls import stall_watch
from penstock.telemetry.process import process_values

if TYPE_CHECKING:
    from penstock.runtime.attach.role import ProcessRole

__all__ = ["process_facts"]

SYSTEM_CGROUP = Path("/sys/fs/cgroup")


def process_facts(role: ProcessRole, *, actions: bool) -> dict[str, Any]:
    """Return the facts. `actions` is whether monitors may act on the process."""
    values = {(name, attributes): value for name, attributes, value in process_values()}
    spent, cores = os.times(), current_cores()
    worker = None if role.supervisor is None else {"supervisor": role.supervisor, "number": role.number}
    collections, collected_s = stall_watch.collections()
    return {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "name": role.program or program_name(),
        "python": platform.python_version(),
        "penstock": penstock.__version__,
        "uptime_s": _uptime_s(),
        "cpu_s": spent.user + spent.system,
        "rss_bytes": values.get(("process.memory.usage", ())),
        "descriptors": values.get(("process.unix.file_descriptor.count", ())),
        "descriptors_limit": _descriptors_limit(),
        "threads": values.get(("process.thread.count", ())),
        "cores": cores.chosen,
        "quota_cores": cores.quota_cores,
        "throttled_s": _throttled_s(),
        "gc": {"collections": collections, "total_s": collected_s, "enabled": gc.isenabled()},
        "switch_interval_s": sys.getswitchinterval(),
        "actions": actions,
        "worker": worker,
    }


def _uptime_s() -> float | None:
    try:
        text = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        since_boot_s = int(text[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot_s)
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _descriptors_limit() -> int | None:
    try:
        from resource import RLIMIT_NOFILE, getrlimit
    except ImportError:
        return None
    return getrlimit(RLIMIT_NOFILE)[0]


def _throttled_s() -> float | None:
    """Return for how long the quota of this process's cgroup has kept it from a CPU."""
    try:
        own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        text = (SYSTEM_CGROUP / own[3:].lstrip("/") / "cpu.stat").read_text()
        found = dict(line.split() for line in text.splitlines() if line.count(" ") == 1)
        return int(found["throttled_usec"]) / 1e6
    except (OSError, StopIteration, KeyError, ValueError):
        return None
