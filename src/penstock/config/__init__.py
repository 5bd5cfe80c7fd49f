"""The config: what is to be built, declared once, frozen and typed."""

from penstock.config.executors import ExecutorsConfig, LaneConfig
from penstock.config.groups import LoopConfig, ServeConfig, SignalsConfig, TasksConfig
from penstock.config.monitor import MonitorConfig
from penstock.config.pressure import PressureConfig
from penstock.config.root import Config
from penstock.config.workers import WorkersConfig

__all__ = [
    "Config",
    "ExecutorsConfig",
    "LaneConfig",
    "LoopConfig",
    "MonitorConfig",
    "PressureConfig",
    "ServeConfig",
    "SignalsConfig",
    "TasksConfig",
    "WorkersConfig",
]
