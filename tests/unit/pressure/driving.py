"""Gates and semaphores under test: on both cores, and on loops of asyncio and penstock whose clocks stand still."""

import asyncio
import importlib.util
import sys
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import pytest

from penstock.errors import Overloaded
from penstock.loop import EventLoop
from penstock.pressure.admission import gate
from penstock.pressure.admission.core import GateCore, plain
from penstock.pressure.sync import limiter, semaphore
from tests.support.clocks import StandingTime

__all__ = ["BOUNDED", "GATES", "LIMITERS", "LOOPS", "SEMAPHORES", "Crowd", "Run", "cancelled", "settle"]


def _on_the_plain_core(face: ModuleType, core: dict[str, Any]) -> Any:
    """Return a second copy of the module that uses the core's Python source."""
    name = "penstock.pressure.admission.core"
    stand_in = ModuleType(name)
    stand_in.__dict__.update(core)
    spec = importlib.util.spec_from_file_location(f"plain_{face.__name__.rpartition('.')[2]}", str(face.__file__))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, name, stand_in)
        spec.loader.exec_module(module)
    return module


def _plain_parts(name: str, *parts: str) -> dict[str, Any]:
    return {part: getattr(plain(name), part) for part in parts}


def _cores(face: ModuleType, kind: str, core: dict[str, Any]) -> dict[str, Any]:
    """Return the class over the chosen core and over the plain one; one entry if they are the same."""
    chosen = getattr(face, kind)
    if GateCore is plain("gate").GateCore:
        return {"plain": chosen}
    return {"chosen": chosen, "plain": getattr(_on_the_plain_core(face, core), kind)}


_TURNSTILE = _plain_parts("turnstile", "Turnstile")
GATES: dict[str, type[gate.Gate]] = _cores(gate, "Gate", _plain_parts("gate", "REASONS", "Entry", "GateCore"))
SEMAPHORES: dict[str, type[semaphore.Semaphore]] = _cores(semaphore, "Semaphore", _TURNSTILE)
BOUNDED: dict[str, type[semaphore.BoundedSemaphore]] = _cores(semaphore, "BoundedSemaphore", _TURNSTILE)
LIMITERS: dict[str, type[limiter.CapacityLimiter]] = _cores(
    limiter, "CapacityLimiter", _plain_parts("waiting", "DONE", "Waiter")
)


class AsyncioLoop(StandingTime, asyncio.SelectorEventLoop):
    """asyncio's selector loop with a clock that stands still."""


class PenstockLoop(StandingTime, EventLoop):
    """penstock's loop with a clock that stands still."""


LOOPS: dict[str, Callable[[], Any]] = {"asyncio": AsyncioLoop, "penstock": PenstockLoop}


async def settle() -> None:
    """Run all ready callbacks and the callbacks that these make ready."""
    for _ in range(6):
        await asyncio.sleep(0)


class Crowd:
    """Tasks at one gate: the admitted ones in their order, and the outcomes of the others."""

    def __init__(self, gate: gate.Gate) -> None:
        self.gate = gate
        self.came_in: list[Any] = []
        self.refused: dict[Any, Overloaded] = {}
        self.tasks: dict[Any, asyncio.Task[None]] = {}
        self._leave: dict[Any, asyncio.Event] = {}

    async def come(self, *names: Any, **how: Any) -> None:
        """Send a task for each name to the gate, by `gate.entry(**how)`; admitted tasks stay inside."""
        for name in names:
            self._leave[name] = asyncio.Event()
            self.tasks[name] = asyncio.ensure_future(self._pass(name, how))
            await settle()

    async def _pass(self, name: Any, how: dict[str, Any]) -> None:
        try:
            async with self.gate.entry(**how) if how else self.gate:
                self.came_in.append(name)
                await self._leave[name].wait()
        except Overloaded as problem:
            self.refused[name] = problem

    async def leave(self, *names: Any) -> None:
        """Release the permits of the admitted entries."""
        for name in names:
            self._leave[name].set()
            await self.tasks[name]
            await settle()

    async def cancel(self, *names: Any) -> None:
        """Cancel the tasks."""
        for name in names:
            self.tasks[name].cancel()
            await asyncio.wait([self.tasks[name]])
        await settle()

    async def end(self) -> None:
        """Cancel all tasks and wait for their ends."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    def reasons(self) -> dict[Any, str]:
        """Return the reason for each shed task."""
        return {name: problem.reason for name, problem in self.refused.items()}


async def cancelled(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and check that each ends cancelled."""
    for task in tasks:
        task.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*tasks, return_exceptions=True))


Run = Callable[[Coroutine[Any, Any, Any]], Any]
