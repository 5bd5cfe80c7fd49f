"""The loop's executors: lanes by name, a default that may be any executor, and a private lane for name look-ups.

asyncio puts `run_in_executor(None, ...)` and `getaddrinfo` into one pool, so slow work delays every connect and a
slow name server delays all work; and it refuses any default executor but threads. Here they are lanes, made at first
use. `penstock.executors` decides what they are: this module knows only a set with a lane for each name.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from abc import ABC, abstractmethod
from asyncio import base_events
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from penstock.errors import ConfigError
from penstock.loop.calls.names import NumericNames, numeric_nameinfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["CallableExecutor", "ExecutorLanes", "LaneProvider"]


class CallableExecutor(Executor, ABC):
    """An executor that a loop can call without a `concurrent.futures` future between the two."""

    @abstractmethod
    def call(
        self, loop: asyncio.AbstractEventLoop, fn: Callable[..., Any], args: tuple[Any, ...]
    ) -> asyncio.Future[Any]:
        """Run `fn(*args)` for a caller in `loop`'s own thread."""


class LaneProvider(Protocol):
    """The lanes of one loop, each made when it is first asked for."""

    def get(self, name: str) -> Executor:
        """Return the lane called `name`. ConfigError for an unknown name, RuntimeError once the lanes are shut."""

    def default(self) -> Executor:
        """Return the lane of `run_in_executor(None, ...)`."""

    def made(self) -> Sequence[Executor]:
        """Return the lanes that were made."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear that the loop begins to run."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the made lanes, and make no more."""


class _CanShut(Protocol):
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...


def _check_executor(executor: object) -> None:
    # asyncio's sentence first: code that matches on it still does
    if not isinstance(executor, Executor):
        raise TypeError(
            "executor must be ThreadPoolExecutor instance or any other concurrent.futures.Executor, "
            f"not {type(executor).__name__}"
        )


class _Together(Executor):
    """Several lanes as one, so that asyncio's own shutdown (its timeout, its warning) covers them all."""

    def __init__(self, *lanes: _CanShut) -> None:
        self._lanes = lanes

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        # all are shut before any is waited for
        for lane in self._lanes:
            lane.shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            for lane in self._lanes:
                lane.shutdown(wait=True, cancel_futures=cancel_futures)


# the base is asyncio's loop in practice; naming it so lets mypy see what the mixin calls
class ExecutorLanes(asyncio.BaseEventLoop):
    """Mixin, before asyncio's loop in the bases. Ownership: the loop shuts every lane, given or made."""

    _default_executor: Executor | None
    _dns_executor: Executor | None = None
    _dns_is_given = False
    _closed: bool
    _debug: bool
    _executor_shutdown_called: bool
    _lanes: LaneProvider | None = None
    _thread_id: int | None

    def set_lanes(self, lanes: LaneProvider) -> None:
        """Set the provider of the default lane, the look-up lane and the named lanes."""
        self._lanes = lanes

    @property
    def lanes(self) -> Any:
        """The set given to `set_lanes` (a `penstock.executors.LaneSet`); None in a loop made without a config."""
        return self._lanes

    def run_forever(self) -> None:
        """As asyncio's; lanes that want workers from the start have them started first."""
        if self._lanes is not None and not self.is_running():
            self._lanes.start(self)
        super().run_forever()

    def set_default_executor(self, executor: Executor) -> None:
        """Run `run_in_executor(None, ...)` here. Any concurrent.futures.Executor will do, unlike asyncio's."""
        _check_executor(executor)
        self._default_executor = executor

    def set_dns_executor(self, executor: Executor) -> None:
        """Run getaddrinfo and getnameinfo here, for numeric addresses too. The loop shuts it when it closes."""
        _check_executor(executor)
        self._dns_is_given = True
        self._dns_executor = executor

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | str | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """As asyncio's; `executor` may be a lane's name too. ConfigError for a name that no lane has."""
        if executor is None or isinstance(executor, str):
            executor = self._lane(executor)
        if not isinstance(executor, CallableExecutor) or not self._is_own_thread():
            return super().run_in_executor(executor, func, *args)
        self._check_closed()  # type: ignore[attr-defined]
        if self.get_debug():
            self._check_callback(func, "run_in_executor")  # type: ignore[attr-defined]
        return executor.call(self, func, args)

    def _lane(self, name: str | None) -> Executor | None:
        """The lane for a name, for None the default one; None where asyncio makes that itself."""
        self._check_lanes()
        if name is not None:
            return self._named_lane(name)
        if self._default_executor is None and self._lanes is not None:
            self._default_executor = self._lanes.default()
        return self._default_executor

    def _named_lane(self, name: str) -> Executor:
        if self._lanes is None:
            message = f"no lane {name!r}: this loop was made without lanes; one of penstock.new_event_loop() has them"
            raise ConfigError(message, key=f"executors.{name}")
        return self._lanes.get(name)

    def _is_own_thread(self) -> bool:
        # a loop that does not run is taken to be its caller's, as asyncio's own check takes it
        return asyncio._get_running_loop() is self or self._thread_id in (None, threading.get_ident())

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 (asyncio's name)
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """As asyncio's: a numeric address at once, a name on the look-up lane."""
        if not (self._dns_is_given or self._debug):
            if self._closed or self._executor_shutdown_called:
                self._check_lanes()
            answer = self._numeric_names.answer(host, port, family, type, proto, flags)
            if answer is not None:
                return answer
        # looked up where asyncio's own loop does: a patch there (CPython's tests have one) patches ours
        look_up = self._getaddrinfo_debug if self.get_debug() else base_events.socket.getaddrinfo  # type: ignore[attr-defined]
        return await self._on_dns_lane(look_up, host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """As asyncio's: numbers at once, names on the look-up lane."""
        if not self._dns_is_given:
            self._check_lanes()
            numbers = numeric_nameinfo(sockaddr, flags)
            if numbers is not None:
                return numbers
        found: tuple[str, str] = await self._on_dns_lane(socket.getnameinfo, sockaddr, flags)
        return found

    @cached_property
    def _numeric_names(self) -> NumericNames:
        return NumericNames()

    def _on_dns_lane(self, look_up: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        self._check_lanes()
        if self._dns_executor is None:
            self._dns_executor = self._make_dns_lane()
        return self.run_in_executor(self._dns_executor, look_up, *args)

    def _make_dns_lane(self) -> Executor:
        if self._lanes is not None:
            return self._lanes.get("dns")
        # of a loop that was given no lanes: as many threads as asyncio has for look-ups
        return ThreadPoolExecutor(thread_name_prefix="penstock-dns")

    def _check_lanes(self) -> None:
        # asyncio's two errors: a closed loop, and executors that are already shut
        self._check_closed()  # type: ignore[attr-defined]
        self._check_default_executor()  # type: ignore[attr-defined]

    def _take_all(self) -> _Together | None:
        """Every lane that exists, no longer ours by name; None when there is none."""
        taken: list[_CanShut] = [lane for lane in (self._default_executor, self._dns_executor) if lane is not None]
        if self._lanes is not None:
            if self._lanes.made():
                taken.append(self._lanes)
            else:
                self._lanes.shutdown(wait=False)
        self._default_executor = self._dns_executor = None
        return _Together(*taken) if taken else None

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Shut every lane and wait for their work. `timeout` in seconds counts from 3.12 on, as in asyncio."""
        self._default_executor = self._take_all()
        if sys.version_info >= (3, 12):
            await super().shutdown_default_executor(timeout)
        else:
            await super().shutdown_default_executor()

    def close(self) -> None:
        """As asyncio's; what lanes still run is not waited for."""
        if not self.is_running() and not self.is_closed():
            # before the loop's descriptors are gone: a lane may be watching some
            together = self._take_all()
            if together is not None:
                together.shutdown(wait=False)
        super().close()
