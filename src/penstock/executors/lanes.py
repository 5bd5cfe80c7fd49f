"""The lanes of one loop, by name. Each is made at its first use, by the config; all are shut together."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import ref

from penstock.config.converters import nearest
from penstock.config.references import resolve
from penstock.errors import ConfigError
from penstock.executors.cores import current_cores

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from penstock.config import ExecutorsConfig, LaneConfig
    from penstock.executors.counters import LaneStatistics
    from penstock.executors.lane import Lane

__all__ = ["LaneSet", "build_lane", "lane_sets"]

DEFAULT_KEY = "executors.default"
OWN_NAMES = ("io", "cpu", "dns")

# loops that have run with lanes, penstock's own and foreign ones; weakly held on both sides, for a lane holds its loop.
# No lock: each access is one operation of the dict. From 3.14 on a Ctrl-C can come between the acquisition of a lock
# and its `with` block, and every later run would wait for that lock.
_started: dict[ref[LaneSet], ref[asyncio.AbstractEventLoop]] = {}


def lane_sets() -> list[tuple[asyncio.AbstractEventLoop, LaneSet]]:
    """Return the open loops of this process that have run with lanes, with their lanes. Any thread may call it."""
    found = [(known(), lanes()) for lanes, known in _started.copy().items()]
    return [(loop, lanes) for loop, lanes in found if lanes is not None and loop is not None and not loop.is_closed()]


def _forget(lanes: ref[LaneSet]) -> None:
    _started.pop(lanes, None)


def _after_fork() -> None:
    # a child made by fork has neither these loops nor their workers
    _started.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class LaneSet:
    """The executors of a loop. Any thread may call its methods.

    Ownership: `shutdown` shuts every lane, and the executor that the config names as the default.
    """

    def __init__(self, config: ExecutorsConfig, listener: Callable[[str, str, int], None] | None = None) -> None:
        self._listener = listener
        # read the files now: lanes are made within a running loop, which must not block
        with suppress(ConfigError):
            current_cores()
        self._configs = config.declared()
        self._default = config.default
        self._make_default = None if self._is_lane(config.default) else executor_maker(config.default, DEFAULT_KEY)
        for name, told in self._configs.items():
            if is_executor(told.kind):
                # refuse an unknown name now, not at the first call
                executor_maker(told.kind, key_of(name))
            if told.kind == "interpreters":
                from penstock.executors.backends.interpreters import check_version

                check_version(name)
        self._lanes: dict[str, Lane] = {}
        self._given: Executor | None = None
        self._lock = threading.RLock()
        self._is_shut = False

    def names(self) -> tuple[str, ...]:
        """Return the names of all declared lanes, in their order."""
        return tuple(self._configs)

    def get(self, name: str) -> Lane:
        """Return the lane of this name, made now if it is not.

        Raises ConfigError if no such lane is declared, RuntimeError if the lanes are shut.
        """
        lane = self._lanes.get(name)
        return self._make(name) if lane is None or self._is_shut else lane

    def _make(self, name: str) -> Lane:
        if name not in self._configs:
            raise self._unknown(name)
        with self._lock:
            self._check_open()
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._lanes[name] = build_lane(name, self._configs[name], self)
                lane.set_listener(self._listener)
            return lane

    def _unknown(self, name: object) -> ConfigError:
        known = list(self._configs)
        hint = nearest(name, known) if isinstance(name, str) else ""
        message = (
            f"no lane {name!r}: there are {', '.join(known)}{hint or f'; executors.lanes.{name} would declare it'}"
        )
        return ConfigError(message, key=f"executors.lanes.{name}", value=name, allowed=", ".join(known))

    def _check_open(self) -> None:
        if self._is_shut:
            raise RuntimeError("the loop's lanes are shut down: they take no new jobs")

    def default(self) -> Executor:
        """Return the executor of `run_in_executor(None, ...)`: a lane, or the executor that the config names.

        Raises RuntimeError if the lanes are shut.
        """
        if self._make_default is None:
            return self.get(str(self._default))
        with self._lock:
            self._check_open()
            if self._given is None:
                self._given = self._make_default()
            return self._given

    @staticmethod
    def _is_lane(default: object) -> bool:
        return isinstance(default, str) and ":" not in default

    def processes_for(self, name: str) -> Lane:
        """Return the lane for jobs of lane `name` that only processes can run: `cpu`, or else a lane of their own."""
        if self._configs["cpu"].kind == "processes":
            return self.get("cpu")
        own = f"{name}-processes"
        with self._lock:
            self._configs.setdefault(own, replace(self._configs[name], kind="processes"))
        return self.get(own)

    def made(self) -> Sequence[Executor]:
        """Return the existing lanes, and the default executor if it is not one of them."""
        given = [] if self._given is None else [self._given]
        return [*self._lanes.values(), *given]

    def statistics(self) -> dict[str, LaneStatistics]:
        """Return the statistics of each existing lane, by name."""
        return {name: lane.statistics() for name, lane in list(self._lanes.items())}

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the existing lanes, and make those with `min_workers`. Called when the loop begins to run."""
        if self._is_shut:
            return
        _started[ref(self, _forget)] = ref(loop)
        for name, config in list(self._configs.items()):
            if name in self._lanes or config.min_workers:
                self.get(name).start(loop)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut every lane, all of them before the first wait. No lane is made any more."""
        with self._lock:
            self._is_shut = True
        made = self.made()
        for lane in made:
            lane.shutdown(wait=False, cancel_futures=cancel_futures)
        for lane in made if wait else ():
            lane.shutdown(wait=True, cancel_futures=cancel_futures)


def build_lane(name: str, config: LaneConfig, lanes: LaneSet) -> Lane:
    """Make the lane for the config's kind. Import its modules now, not at start-up. Raises ConfigError."""
    kind = config.kind
    if kind == "threads":
        from penstock.executors.threads.lane import ThreadLane

        return ThreadLane(name, config)
    if kind == "processes":
        from penstock.executors.processes.lane import ProcessLane

        return ProcessLane(name, config)
    if kind == "interpreters":
        from penstock.executors.backends.interpreters import InterpreterLane

        return InterpreterLane(name, config, fallback=lambda: lanes.processes_for(name))
    return _build_backend_lane(name, config)


def _build_backend_lane(name: str, config: LaneConfig) -> Lane:
    """Make a lane over a cluster or over another executor."""
    kind = config.kind
    if isinstance(kind, str) and kind.startswith("dask://"):
        from penstock.executors.backends.dask import DaskLane

        return DaskLane(name, config)
    if isinstance(kind, str) and kind.startswith("ray://"):
        from penstock.executors.backends.ray import RayLane

        return RayLane(name, config)
    from penstock.executors.backends.adapter import ExecutorLane

    return ExecutorLane(name, config, executor_maker(kind, key_of(name)))


def is_executor(kind: object) -> bool:
    """Return whether a lane's kind is an executor, or names an executor or its factory."""
    return not isinstance(kind, str) or (":" in kind and "://" not in kind)


def key_of(name: str) -> str:
    """Return the config key of a lane."""
    return f"executors.{name}" if name in OWN_NAMES else f"executors.lanes.{name}"


def executor_maker(reference: object, key: str) -> Callable[[], Executor]:
    """Return a factory of the executor that `reference` is, names or makes. Raises ConfigError."""
    found: Any = resolve(reference, key)
    if isinstance(found, Executor):
        return lambda: found
    if not callable(found):
        raise _not_an_executor(reference, key, found)

    def make() -> Executor:
        made = found()
        if not isinstance(made, Executor):
            raise _not_an_executor(reference, key, made)
        return made

    return make


def _not_an_executor(reference: object, key: str, found: object) -> ConfigError:
    allowed = "a concurrent.futures.Executor, or a function that makes one"
    return ConfigError.bad_value(key, reference, f"it gives a {type(found).__name__}", allowed)
