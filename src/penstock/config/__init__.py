"""The config: what is to be built, declared once, frozen and typed."""

from penstock.config.groups import (
    Config,
    ExecutorsConfig,
    LaneConfig,
    LoopConfig,
    PressureConfig,
    ServeConfig,
    SignalsConfig,
    TasksConfig,
)

__all__ = [
    "Config",
    "ExecutorsConfig",
    "LaneConfig",
    "LoopConfig",
    "PressureConfig",
    "ServeConfig",
    "SignalsConfig",
    "TasksConfig",
]
