"""penstock: the asyncio runtime that Python services run on under load."""

import logging
import sys
from typing import TYPE_CHECKING

from penstock import errors
from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock import config, executors, integrations, loop, pressure, tasks, telemetry, testing, times
    from penstock.config import (
        Config,
        ExecutorsConfig,
        LaneConfig,
        LoopConfig,
        MonitorConfig,
        PressureConfig,
        ServeConfig,
        SignalsConfig,
        TasksConfig,
        WorkersConfig,
    )
    from penstock.executors import offload, offloaded, to_thread
    from penstock.loop import EventLoop, get_running_loop
    from penstock.loop.servers import Server
    from penstock.loop.transports import gather_writes, segment_datagrams
    from penstock.pressure.admission.gate import Gate
    from penstock.runtime import EventLoopPolicy, Runner, install, new_event_loop, run

__version__ = "0.1.0"

__all__ = [
    "Config",
    "EventLoop",
    "EventLoopPolicy",
    "ExecutorsConfig",
    "Gate",
    "LaneConfig",
    "LoopConfig",
    "MonitorConfig",
    "PressureConfig",
    "Runner",
    "ServeConfig",
    "Server",
    "SignalsConfig",
    "TasksConfig",
    "WorkersConfig",
    "__version__",
    "config",
    "errors",
    "executors",
    "gather_writes",
    "get_running_loop",
    "install",
    "integrations",
    "loop",
    "new_event_loop",
    "offload",
    "offloaded",
    "pressure",
    "run",
    "segment_datagrams",
    "tasks",
    "telemetry",
    "testing",
    "times",
    "to_thread",
]

# Only a free-threaded Python has the flag; None there means that loading the native core turns the GIL on.
if getattr(sys.flags, "gil", None) == 0:
    raise ImportError("penstock needs the GIL, and PYTHON_GIL=0 or -X gil=0 turns it off: run without that setting")

# A library is silent where no logging is set up: no last resort of `logging` writes its records to stderr.
logging.getLogger(__name__).addHandler(logging.NullHandler())

if not TYPE_CHECKING:
    _CONFIGS = (
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
    )
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "penstock.config": _CONFIGS,
            "penstock.executors.offloading": ("offload", "offloaded", "to_thread"),
            "penstock.loop": ("EventLoop", "get_running_loop"),
            "penstock.loop.servers": ("Server",),
            "penstock.loop.transports": ("gather_writes", "segment_datagrams"),
            "penstock.pressure.admission.gate": ("Gate",),
            "penstock.runtime": ("EventLoopPolicy", "Runner", "install", "new_event_loop", "run"),
        },
        ("config", "executors", "integrations", "loop", "pressure", "tasks", "telemetry", "testing", "times"),
    )
