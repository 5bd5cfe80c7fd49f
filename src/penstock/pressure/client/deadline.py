"""Deadlines: the time after which the caller does not want the answer, for all code that it calls.

A deadline is a context variable, so tasks inherit it. It is a time on the loop's clock, so a virtual clock works.
Requests to other services carry the remaining time, not a time of day, so clocks need not agree.
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
    """Return the present deadline in seconds on the loop's clock; None without a deadline."""
    return expiry.get()


def remaining_s() -> float | None:
    """Return the seconds until the deadline, 0.0 once it has passed; None without a deadline."""
    at_s = expiry.get()
    return None if at_s is None else max(0.0, at_s - now_s())


class deadline:  # noqa: N801  used like a function, as contextlib's
    """A context manager that sets a deadline for its block: `with deadline(0.1): ...`.

    `seconds` is the time from the block's begin, at least 0; None sets no deadline. An earlier deadline of a block
    around it stays. `with` sets the deadline only, which gates, lanes, retries and clients read by `remaining_s()`.
    `async with` also ends the block with TimeoutError once the deadline has passed. Raises ValueError for a negative
    time, and RuntimeError if one object is entered twice.
    """

    __slots__ = ("_seconds", "_timeout", "_token")

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds >= 0:
            raise ValueError(f"deadline({seconds!r}): seconds must be at least 0 or None")
        self._seconds = seconds
        self._token: Token[float | None] | None = None
        self._timeout: asyncio.Timeout | None = None

    def __enter__(self) -> float | None:
        """Set the deadline. Return it in seconds on the loop's clock; None without a deadline."""
        if self._token is not None:
            raise RuntimeError("a deadline() can be entered only once: create one for each block")
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
