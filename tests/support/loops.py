"""Event loops that tests are run on: asyncio's own, penstock's, and uvloop's where it is installed."""

import asyncio
import importlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import penstock
from penstock.loop import NATIVE, EventLoop

__all__ = ["BOTH", "FOREIGN", "POLLERS", "PRODUCTS", "TIMEOUT_S", "Factory", "run_on"]

Factory = Callable[[], asyncio.AbstractEventLoop]
T = TypeVar("T")

# Longer than any test takes on a busy machine.
TIMEOUT_S = 20.0

# Values of `loop.poller`. Where no native core is built, both choose the same loop.
POLLERS = ["auto", "selector"] if NATIVE else ["selector"]

# The behaviour that both must show.
BOTH: dict[str, Factory] = {"asyncio": asyncio.SelectorEventLoop, "penstock": EventLoop}


def _others() -> dict[str, Factory]:
    found: dict[str, Factory] = {"asyncio": asyncio.SelectorEventLoop}
    try:
        found["uvloop"] = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        pass
    return found


# Loops that are not penstock's.
FOREIGN = _others()

# As services have them: penstock's with its telemetry, and the others.
PRODUCTS: dict[str, Factory] = {"penstock": penstock.new_event_loop, **FOREIGN}


def run_on(factory: Factory, main: Coroutine[Any, Any, T], timeout_s: float = TIMEOUT_S) -> T:
    """Run a coroutine to its end on a loop of its own, which is closed afterwards."""
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(asyncio.wait_for(main, timeout_s))
