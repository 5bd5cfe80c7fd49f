"""The config as a whole: eight groups, read from their sources and written back as variables."""

from __future__ import annotations

import os
from collections.abc import Mapping  # noqa: TC003 (get_type_hints works on a config)
from dataclasses import dataclass, field, fields
from pathlib import Path

from penstock.config import sources
from penstock.config.executors import ExecutorsConfig
from penstock.config.groups import LoopConfig, ServeConfig, SignalsConfig, TasksConfig
from penstock.config.monitor import MonitorConfig
from penstock.config.pressure import PressureConfig
from penstock.config.workers import WorkersConfig
from penstock.errors import ConfigError

__all__ = ["Config"]


@dataclass(frozen=True, slots=True)
class Config:
    """All keys in eight groups. `Config()` has the defaults."""

    loop: LoopConfig = field(default_factory=LoopConfig)
    executors: ExecutorsConfig = field(default_factory=ExecutorsConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig)
    pressure: PressureConfig = field(default_factory=PressureConfig)
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)

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
        """Return the config of these sources, first to last: `overrides`, `PENSTOCK_*` variables, a file, the defaults.

        `overrides` have dotted keys. The file is `path`, else the one `PENSTOCK_CONFIG` names, else none. `env` is
        `os.environ` unless given. Raises ConfigError.
        """
        return cls(**sources.load(path, os.environ if env is None else env, overrides or {}))

    @staticmethod
    def find(start: str | os.PathLike[str]) -> Path | None:
        """Return the nearest `penstock.toml`, or `pyproject.toml` with `[tool.penstock]`, from `start` upwards.

        Return None if there is none.
        """
        return sources.find(Path(start))

    def to_env(self) -> dict[str, str]:
        """Return the `PENSTOCK_*` variables with which `Config.load()` in a child process returns this config.

        Raises ConfigError for a value without a text form: a callable or an executor object.
        """
        return sources.to_env(self, Config())

    def exported(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return these variables with exactly this config in them, for child processes.

        Raises ConfigError for a value without a text form: a callable or an executor object.
        """
        groups = tuple(f"PENSTOCK_{item.name.upper()}_" for item in fields(self))
        kept = {
            name: text for name, text in environ.items() if not name.startswith(groups) and name != "PENSTOCK_CONFIG"
        }
        return kept | self.to_env()
