"""A deadline in a request's headers: `x-request-timeout-ms` for HTTP, `grpc-timeout` for gRPC.

HTTP has no standard one; whole milliseconds is what meshes use, and Envoy's own name is read too. gRPC's is its wire
protocol's: up to eight digits and a unit. What is not exactly that is ignored: a header is a stranger's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock.pressure.client.deadline import remaining_s

if TYPE_CHECKING:
    from collections.abc import Iterable

    Name = str | bytes

__all__ = ["GRPC_HEADER", "HTTP_HEADER", "format_grpc_timeout", "from_headers", "parse_grpc_timeout", "to_headers"]

HTTP_HEADER = "x-request-timeout-ms"
GRPC_HEADER = "grpc-timeout"
ENVOY_HEADER = "x-envoy-expected-rq-timeout-ms"
# Who asks for more asks for nothing that a request can use.
LONGEST_S = 86_400.0
MILLISECONDS = re.compile(r"[0-9]{1,10}", re.ASCII)
GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
MOST_DIGITS = 99_999_999


def to_headers(*, grpc: bool = False) -> dict[str, str]:
    """The header that tells another service how long there is; empty without a deadline. 0 when it has passed."""
    left_s = remaining_s()
    if left_s is None:
        return {}
    if grpc:
        return {GRPC_HEADER: format_grpc_timeout(left_s)}
    return {HTTP_HEADER: str(int(min(left_s, LONGEST_S) * 1000))}


def from_headers(headers: Mapping[str, str] | Iterable[tuple[Name, Name]]) -> float | None:
    """How many seconds a request's headers leave for it; None if they say nothing, or nothing sensible.

    A mapping or pairs, of text or bytes, as ASGI has them; names in any case. Of several the shortest counts. Longer
    than a day is no deadline.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    found = [left_s for name, value in pairs if (left_s := _parsed(name, value)) is not None]
    return min(found, default=None)


def _parsed(name: Name, value: Name) -> float | None:
    word = _text(name).lower()
    if word == GRPC_HEADER:
        return parse_grpc_timeout(_text(value))
    if word not in (HTTP_HEADER, ENVOY_HEADER) or not MILLISECONDS.fullmatch(_text(value)):
        return None
    left_s = int(_text(value)) / 1000
    # Envoy's 0 switches its timeout off
    return None if left_s > LONGEST_S or (left_s == 0 and word == ENVOY_HEADER) else left_s


def _text(value: Name) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def parse_grpc_timeout(value: str) -> float | None:
    """`"100m"` is 0.1 seconds; None for what is no such value, or longer than a day."""
    match = GRPC_TIMEOUT.fullmatch(value)
    if match is None:
        return None
    left_s = int(match[1]) * UNITS_S[match[2]]
    return None if left_s > LONGEST_S else left_s


def format_grpc_timeout(seconds: float) -> str:
    """0.1 is `"100000u"`: in the finest unit, down from microseconds, that eight digits hold; never more time."""
    if seconds <= 0:
        return "0n"
    for unit in "umSMH":
        count = int(seconds / UNITS_S[unit])
        if count <= MOST_DIGITS:
            return f"{count}{unit}"
    return f"{MOST_DIGITS}H"
