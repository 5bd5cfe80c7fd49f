"""Until when a request is wanted: the sooner of the service's own deadline and what its client says it has left.

Both count from when the request came. What is called on the way inherits it, as a context variable.
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

__all__ = ["asked_s", "inherited", "sooner_s"]

NAMES = frozenset(name.encode() for name in (ENVOY_HEADER, GRPC_HEADER, HTTP_HEADER))
LENGTHS = frozenset(map(len, NAMES))
NOTHING = nullcontext()


def asked_s(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """What headers say that the client has left for it, in seconds; None for no word."""
    # few requests say anything: those that do not are passed over quickly
    said = [header for header in headers if len(header[0]) in LENGTHS and header[0].lower() in NAMES]
    return from_headers(said) if said else None


def sooner_s(own_s: float | None, clients_s: float | None) -> float | None:
    """The sooner of two times, each None or endless for no bound; None for none."""
    told = [at_s for at_s in (own_s, clients_s) if at_s is not None and at_s < math.inf]
    return min(told, default=None)


def inherited(deadline_s: float | None, arrived_s: float | None = None) -> AbstractContextManager[object]:
    """`with inherited(deadline_s, arrived_s):` what runs within has so long, from then on (default: from now)."""
    if deadline_s is None:
        return NOTHING
    if arrived_s is not None:
        deadline_s = max(0.0, arrived_s + deadline_s - asyncio.get_running_loop().time())
    return deadline(deadline_s)
