"""The deadline of a request: the earlier of the service's own one and the client's, both from the request's arrival.

Calls within the request inherit it by a context variable.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import nullcontext
from typing import TYPE_CHECKING

from penstock.pressure.client.deadline import deadline
from penstock.pressure.client.headers import ENVOY_HEADER, GRPC_HEADER, HTTP_HEADER, from_headers

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

__all__ = ["client_timeout_s", "deadline_scope", "earlier_s"]

NAMES = frozenset(name.encode() for name in (ENVOY_HEADER, GRPC_HEADER, HTTP_HEADER))
LENGTHS = frozenset(map(len, NAMES))
NO_DEADLINE = nullcontext()


def client_timeout_s(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Return the timeout that the client sends in a header, in seconds; None without one."""
    # few requests have such a header: the length excludes most others quickly
    found = [header for header in headers if len(header[0]) in LENGTHS and header[0].lower() in NAMES]
    return from_headers(found) if found else None


def earlier_s(own_s: float | None, other_s: float | None) -> float | None:
    """Return the earlier of two times in seconds, each None or infinite for no bound; None without any bound."""
    bounds = [at_s for at_s in (own_s, other_s) if at_s is not None and at_s < math.inf]
    return min(bounds, default=None)


def deadline_scope(deadline_s: float | None, arrived_s: float | None = None) -> AbstractContextManager[object]:
    """Return a context manager: the block has `deadline_s` seconds from the arrival on, or from now on without one."""
    if deadline_s is None:
        return NO_DEADLINE
    if arrived_s is not None:
        deadline_s = max(0.0, arrived_s + deadline_s - asyncio.get_running_loop().time())
    return deadline(deadline_s)
