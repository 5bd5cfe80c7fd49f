"""The default config of a process: the one that a command chose, else `Config.load()`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from penstock.config.root import Config
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["chosen", "config_or_default", "default_config"]

_chosen: Config | None = None


def default_config() -> Config:
    """Return the config chosen for this process, else `Config.load()`. Raises ConfigError."""
    return Config.load() if _chosen is None else _chosen


def config_or_default(config: Config | None, call: str) -> Config:
    """Return the config that `call` was given, or the default one for None. Raises ConfigError for anything else."""
    if config is None:
        return default_config()
    if not isinstance(config, Config):
        allowed = "a penstock.Config, such as Config(loop=LoopConfig(spin_us=50)) or Config.load(overrides={...})"
        raise ConfigError.bad_value("config", config, call, allowed)
    return config


@contextmanager
def chosen(config: Config) -> Iterator[None]:
    """Make `default_config` return `config` inside the block, in every thread."""
    global _chosen
    former, _chosen = _chosen, config
    try:
        yield
    finally:
        _chosen = former
