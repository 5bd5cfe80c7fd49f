"""Deadlines in the headers of requests: `x-request-timeout-ms` for HTTP, `grpc-timeout` for gRPC.

HTTP has no standard header; service meshes use whole milliseconds, and Envoy's header is read too. gRPC's header has up
to eight digits and a unit. Malformed values are ignored, because headers are untrusted.
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
# A longer timeout is no deadline.
LONGEST_S = 86_400.0
MILLISECONDS = re.compile(r"[0-9]{1,10}", re.ASCII)
GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
MOST_DIGITS = 99_999_999


def to_headers(*, grpc: bool = False) -> dict[str, str]:
    """Return the header with the remaining time for another service; empty without a deadline.

    The value is 0 once the deadline has passed. `grpc` selects gRPC's header instead of the one for HTTP.
    """
    left_s = remaining_s()
    if left_s is None:
        return {}
    if grpc:
        return {GRPC_HEADER: format_grpc_timeout(left_s)}
    return {HTTP_HEADER: str(int(min(left_s, LONGEST_S) * 1000))}


def from_headers(headers: Mapping[str, str] | Iterable[tuple[Name, Name]]) -> float | None:
    """Return the remaining seconds that a request's headers give; None without a valid deadline.

    `headers` is a mapping or an iterable of pairs, of text or of bytes as in ASGI; the case of names does not matter.
    Of several deadlines the shortest counts. A timeout of more than a day is no deadline.
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
    # Envoy's 0 disables its timeout
    return None if left_s > LONGEST_S or (left_s == 0 and word == ENVOY_HEADER) else left_s


def _text(value: Name) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def parse_grpc_timeout(value: str) -> float | None:
    """Return a `grpc-timeout` value in seconds, 0.1 for "100m"; None if it is malformed or longer than a day."""
    match = GRPC_TIMEOUT.fullmatch(value)
    if match is None:
        return None
    left_s = int(match[1]) * UNITS_S[match[2]]
    return None if left_s > LONGEST_S else left_s


def format_grpc_timeout(seconds: float) -> str:
    """Return `seconds` as a `grpc-timeout` value, "100000u" for 0.1, rounded down.

    The unit is the finest one, from microseconds, for which eight digits suffice.
    """
    if seconds <= 0:
        return "0n"
    for unit in "umSMH":
        count = int(seconds / UNITS_S[unit])
        if count <= MOST_DIGITS:
            return f"{count}{unit}"
    return f"{MOST_DIGITS}H"
