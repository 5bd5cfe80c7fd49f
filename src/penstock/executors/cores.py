"""The number of cores that this process may use, by its affinity, its cgroup's CPU quota (v1 and v2) and an override.

`os.cpu_count()` counts the cores of the machine. In a container with a quota of two cores on a 64-core host, a pool of
that size has 64 threads for two cores.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from penstock.config import LaneConfig

__all__ = ["CoreReader", "Cores", "current_cores", "quota_cores", "usable_cores", "worker_limit"]

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
OVERRIDE = "PENSTOCK_CPUS"
# The quota of a container may change while it runs. A reading takes some file reads, and a lane asks at every growth.
REREAD_S = 5.0


@dataclass(frozen=True, slots=True)
class Cores:
    """The number of usable cores and the numbers that it comes from; `quota_cores` and `override` may be None."""

    chosen: int
    affinity: int
    quota_cores: float | None
    override: int | None

    @property
    def reason(self) -> str:
        """The name of the number that decided: `override`, `quota` or `affinity`."""
        if self.override is not None and self.chosen == self.override:
            return "override"
        return "affinity" if self.chosen == self.affinity else "quota"


def usable_cores(
    env: Mapping[str, str] | None = None,
    *,
    affinity: int | None = None,
    root: Path = CGROUP_ROOT,
    own_cgroup: Path = OWN_CGROUP,
) -> Cores:
    """Return the smallest of affinity, quota rounded up, and PENSTOCK_CPUS, at least one.

    Raises ConfigError for a PENSTOCK_CPUS that is no whole number of at least 1. The parameters replace the process's
    own environment and files, for tests.
    """
    override = _override((os.environ if env is None else env).get(OVERRIDE, ""))
    available = _affinity() if affinity is None else affinity
    quota = quota_cores(_text(own_cgroup), root)
    limits = [available, override, None if quota is None else math.ceil(quota)]
    chosen = max(1, min(limit for limit in limits if limit is not None))
    return Cores(chosen=chosen, affinity=available, quota_cores=quota, override=override)


def worker_limit(config: LaneConfig, cores: Cores) -> int:
    """Return the most workers of a lane of processes or interpreters: `workers`, or one for each usable core, and at
    least `min_workers`."""
    return config.workers or max(cores.chosen, config.min_workers)


def _override(text: str) -> int | None:
    if not text.strip():
        return None
    if not text.strip().isdecimal() or int(text) < 1:
        raise ConfigError.bad_value(OVERRIDE, text, f"variable {OVERRIDE}", "a whole number of cores of at least 1")
    return int(text)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota_cores(own_cgroup: str, root: Path) -> float | None:
    """Return the smallest CPU quota, in cores, of the process's cgroup and all its parents; None without one.

    `own_cgroup` is the text of /proc/self/cgroup, `root` the folder where the cgroup file systems are mounted.
    """
    quotas = [quota for quota in _quotas(own_cgroup, root) if quota is not None]
    return min(quotas, default=None)


def _quotas(own_cgroup: str, root: Path) -> Iterator[float | None]:
    for line in own_cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for folder in _upwards(root, path):
                yield _v2_quota(_text(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for mount in dict.fromkeys((root / controllers, root / "cpu")):
                for folder in _upwards(mount, path):
                    yield _v1_quota(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield the cgroup's folder and its parents up to the mount. A path from outside the process's cgroup namespace is
    not below the mount. Then the mount is the process's own cgroup, and it is always yielded."""
    parts = [part for part in path.split("/") if part and part != ".."]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _v2_quota(cpu_max: str) -> float | None:
    words = cpu_max.split()
    return _ratio(words[0], words[1]) if len(words) == 2 else None


def _v1_quota(quota_us: str, period_us: str) -> float | None:
    return _ratio(quota_us, period_us)


def _ratio(quota_us: str, period_us: str) -> float | None:
    # "max" (v2) and -1 (v1) mean no quota; so does anything unreadable
    try:
        quota, period = int(quota_us), int(period_us)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip("\n")
    except OSError:
        return ""


class CoreReader:
    """`usable_cores()`, read again at most every few seconds. Any thread may call it.

    A thread that runs a loop reads the files only for the first reading. Later it gets the last reading at once, and
    another thread reads the files again.
    """

    def __init__(
        self,
        read: Callable[[], Cores] = usable_cores,
        *,
        every_s: float = REREAD_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._read = read
        self._every_s = every_s
        self._clock = clock
        self._last: tuple[float, Cores] | None = None

    def __call__(self) -> Cores:
        """Return the cores as last read. Raises ConfigError."""
        now = self._clock()
        last = self._last
        if last is not None and now - last[0] < self._every_s:
            return last[1]
        if last is not None and asyncio._get_running_loop() is not None:
            # so that the next caller starts no second thread
            self._last = (now, last[1])
            self._read_in_a_thread()
            return last[1]
        # two threads may both read: they get the same numbers
        self._last = last = (now, self._read())
        return last[1]

    def _read_in_a_thread(self) -> None:
        # the system may give no more threads: then the reading stays valid for another period
        with suppress(RuntimeError):
            threading.Thread(target=self._read_again, name="penstock-cores", daemon=True).start()

    def _read_again(self) -> None:
        # a new mistake in the environment changes nothing: the last reading stays valid
        with suppress(ConfigError):
            self._last = (self._clock(), self._read())


current_cores = CoreReader()
