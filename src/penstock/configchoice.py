"""The config of loops that are given none: the one chosen for the process by `penstock run`, else `Config.load()`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from penstock.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["chosen", "default_config"]

_chosen: Config | None = None


def default_config() -> Config:
    """Return the config chosen for this process, else `Config.load()`. Raises ConfigError."""
    return Config.load() if _chosen is None else _chosen


@contextmanager
def chosen(config: Config) -> Iterator[None]:
    """Have `default_config` return `config` inside the block, in every thread."""
    global _chosen
    former, _chosen = _chosen, config
    try:
        yield
    finally:
        _chosen = former
