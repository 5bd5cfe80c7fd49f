"""The config as a whole: six groups, read from their sources and written back as variables."""

from __future__ import annotations

import os
from collections.abc import Mapping  # noqa: TC003 (get_type_hints works on a config)
from dataclasses import dataclass, field, fields
from pathlib import Path

from penstock.config import sources
from penstock.config.executors import ExecutorsConfig
from penstock.config.groups import LoopConfig, ServeConfig, SignalsConfig, TasksConfig
from penstock.config.pressure import PressureConfig
from penstock.errors import ConfigError

__all__ = ["Config"]


@dataclass(frozen=True, slots=True)
class Config:
    """Everything penstock can be told, in six groups. `Config()` is all defaults."""

    loop: LoopConfig = field(default_factory=LoopConfig)
    executors: ExecutorsConfig = field(default_factory=ExecutorsConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig)
    pressure: PressureConfig = field(default_factory=PressureConfig)
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)

    def __post_init__(self) -> None:
        for item in fields(self):
            kind, value = item.default_factory, getattr(self, item.name)
            if isinstance(kind, type) and not isinstance(value, kind):
                raise ConfigError.bad_value(item.name, value, "Config()", f"a {kind.__name__}")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        overrides: Mapping[str, object] | None = None,
    ) -> Config:
        """The config from, first to last: `overrides` (dotted keys), `PENSTOCK_*` variables, a file, the defaults.

        The file is `path`, else the one `PENSTOCK_CONFIG` names, else none. `env` is `os.environ` unless given.
        Raises ConfigError.
        """
        return cls(**sources.load(path, os.environ if env is None else env, overrides or {}))

    @staticmethod
    def find(start: str | os.PathLike[str]) -> Path | None:
        """The nearest `penstock.toml`, or `pyproject.toml` with a `[tool.penstock]`, from `start` upwards."""
        return sources.find(Path(start))

    def to_env(self) -> dict[str, str]:
        """The `PENSTOCK_*` variables that make `Config.load()` give this config again in a child process.

        Raises ConfigError for a value that has no text: a callable or an executor object.
        """
        return sources.to_env(self, Config())
