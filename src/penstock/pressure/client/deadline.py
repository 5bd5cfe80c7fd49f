"""Until when the answer is wanted: known to all that is called on the way, and to the services behind.

A context variable, so that tasks inherit it; on the loop's clock, so that a virtual one works. Over the wire goes the
time that is left, not a time of day: no two clocks need to agree.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from penstock.expiry import expiry, now_s

if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType

__all__ = ["deadline", "expires_at", "remaining_s"]


def expires_at() -> float | None:
    """When the present deadline passes, on the loop's clock; None without one."""
    return expiry.get()


def remaining_s() -> float | None:
    """How many seconds are left, 0.0 when the deadline has passed; None without one."""
    at_s = expiry.get()
    return None if at_s is None else max(0.0, at_s - now_s())


class deadline:  # noqa: N801  used like a function, as contextlib's
    """`with deadline(0.1):` the answer is wanted within 0.1 seconds; a deadline around it that is sooner stays.

    `with` only tells: gates, lanes, retries and clients look at `remaining_s()`. `async with` also ends the block, with
    TimeoutError, when the time is up. None is no deadline of one's own. Raises ValueError.
    """

    __slots__ = ("_seconds", "_timeout", "_token")

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds >= 0:
            raise ValueError(f"deadline({seconds!r}): seconds from now, at least 0, or None")
        self._seconds = seconds
        self._token: Token[float | None] | None = None
        self._timeout: asyncio.Timeout | None = None

    def __enter__(self) -> float | None:
        """When it passes, on the loop's clock."""
        if self._token is not None:
            raise RuntimeError("a deadline() is entered once: make one for each block")
        around = expiry.get()
        own = None if self._seconds is None else now_s() + self._seconds
        at_s = min((at_s for at_s in (around, own) if at_s is not None), default=None)
        self._token = expiry.set(at_s)
        return at_s

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            expiry.reset(self._token)

    async def __aenter__(self) -> float | None:
        at_s = self.__enter__()
        self._timeout = asyncio.timeout_at(at_s)
        await self._timeout.__aenter__()
        return at_s

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
        if self._timeout is not None:
            await self._timeout.__aexit__(kind, error, trace)
