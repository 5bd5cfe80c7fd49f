"""The loop's executors: a default lane that may be any executor, and a private thread lane for name look-ups.

asyncio puts `run_in_executor(None, ...)` and `getaddrinfo` into one pool, so slow work delays every connect and a slow
name server delays all work; and it refuses any default executor but threads. Here they are two lanes, both made at
first use. How large they are is decided above (`penstock.executors`): this knows only two factories.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio import base_events
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

__all__ = ["ExecutorLanes"]

DNS_THREAD_COUNT = 4

ExecutorFactory = Callable[[], Executor]


def _dns_threads() -> Executor:
    return ThreadPoolExecutor(DNS_THREAD_COUNT, thread_name_prefix="penstock-dns")


def _check_executor(executor: object) -> None:
    # asyncio's sentence, then ours: whoever matches on asyncio's still does
    if not isinstance(executor, Executor):
        raise TypeError(
            "executor must be ThreadPoolExecutor instance or any other concurrent.futures.Executor, "
            f"not {type(executor).__name__}"
        )


class _BothLanes(Executor):
    """Both lanes as one, so that asyncio's own shutdown (its timeout, its warning) covers the two."""

    def __init__(self, *lanes: Executor) -> None:
        self._lanes = lanes

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        # all are told before any is waited for
        for lane in self._lanes:
            lane.shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            for lane in self._lanes:
                lane.shutdown(wait=True, cancel_futures=cancel_futures)


# the base is asyncio's loop in practice; naming it so lets mypy see what the mixin calls
class ExecutorLanes(asyncio.BaseEventLoop):
    """Mixin, before asyncio's loop in the bases. Ownership: the loop shuts both lanes, given or made."""

    _default_executor: Executor | None
    _default_factory: ExecutorFactory | None = None
    _dns_factory: ExecutorFactory = staticmethod(_dns_threads)
    _dns_executor: Executor | None = None

    def set_executor_factories(self, default: ExecutorFactory, dns: ExecutorFactory) -> None:
        """Say how each lane is made when it is first needed."""
        self._default_factory = default
        self._dns_factory = dns

    def set_default_executor(self, executor: Executor) -> None:
        """Run `run_in_executor(None, ...)` here. Any concurrent.futures.Executor will do, unlike asyncio's."""
        _check_executor(executor)
        self._default_executor = executor

    def set_dns_executor(self, executor: Executor) -> None:
        """Run getaddrinfo and getnameinfo here. The loop shuts it when it closes."""
        _check_executor(executor)
        self._dns_executor = executor

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """As asyncio's; the default executor is made at first use."""
        if executor is None and self._default_executor is None and self._default_factory is not None:
            self._check_lanes()
            self._default_executor = self._default_factory()
        return super().run_in_executor(executor, func, *args)

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
        """As asyncio's, on the look-up lane."""
        # looked up where asyncio's own loop does: whoever patches it there (CPython's tests do) patches ours
        look_up = self._getaddrinfo_debug if self.get_debug() else base_events.socket.getaddrinfo  # type: ignore[attr-defined]
        return await self._on_dns_lane(look_up, host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """As asyncio's, on the look-up lane."""
        found: tuple[str, str] = await self._on_dns_lane(socket.getnameinfo, sockaddr, flags)
        return found

    def _on_dns_lane(self, look_up: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        self._check_lanes()
        if self._dns_executor is None:
            self._dns_executor = self._dns_factory()
        return self.run_in_executor(self._dns_executor, look_up, *args)

    def _check_lanes(self) -> None:
        # asyncio's two errors: a closed loop, and executors that are already shut
        self._check_closed()  # type: ignore[attr-defined]
        self._check_default_executor()  # type: ignore[attr-defined]

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Shut both lanes and wait for their work. `timeout` in seconds counts from 3.12 on, as in asyncio."""
        if self._dns_executor is not None:
            lanes = [lane for lane in (self._default_executor, self._dns_executor) if lane is not None]
            self._default_executor, self._dns_executor = _BothLanes(*lanes), None
        if sys.version_info >= (3, 12):
            await super().shutdown_default_executor(timeout)
        else:
            await super().shutdown_default_executor()

    def close(self) -> None:
        """As asyncio's; look-ups still running are not waited for."""
        super().close()
        if self.is_closed() and self._dns_executor is not None:
            self._dns_executor.shutdown(wait=False)
            self._dns_executor = None
