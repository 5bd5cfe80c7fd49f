"""Builds the thread lanes a config asks for. When they are made and who shuts them is the loop's part."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from penstock.executors.sizing import usable_cores

if TYPE_CHECKING:
    from penstock.config import ExecutorsConfig

__all__ = ["default_thread_count", "default_threads", "dns_threads"]

# the standard library's own rule, for threads that mostly wait; ours counts the cores that may really be used
EXTRA_THREADS = 4
MOST_THREADS = 32


def default_thread_count(cores: int) -> int:
    """How many threads the default executor has on so many usable cores."""
    return min(MOST_THREADS, cores + EXTRA_THREADS)


def default_threads(config: ExecutorsConfig) -> ThreadPoolExecutor:
    """The default executor: `config.threads` threads, or as many as the usable cores suggest."""
    count = default_thread_count(usable_cores().chosen) if config.threads is None else config.threads
    return ThreadPoolExecutor(count, thread_name_prefix="penstock")


def dns_threads(config: ExecutorsConfig) -> ThreadPoolExecutor:
    """The private lane for name look-ups."""
    return ThreadPoolExecutor(config.dns_threads, thread_name_prefix="penstock-dns")
