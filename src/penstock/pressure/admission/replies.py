"""The answers of HTTP and gRPC to an `Overloaded`, as data.

A client learns the reason and the time to retry, and no counts. The time is spread, or all clients that were shed at
one moment would come back at another. An answer is made once for each reason and time, as a shed must be cheap. This
module knows no server, no framework and no socket.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from http import HTTPStatus
from random import Random
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.errors import Overloaded

__all__ = ["GrpcReply", "HttpReply", "grpc_reply", "http_replies", "http_reply"]

# reasons on the caller's side: the status is 429, as other callers may be served
CALLER_REASONS = frozenset({"share", "throttled"})
# the longest time to retry
LONGEST_RETRY_S = 3600.0
# the time to retry of a shed without an estimate
UNKNOWN_RETRY_S = 1.0
# The spread in HTTP, in whole seconds: half of the time to retry, and at least so much. In gRPC it is the time to retry
# itself, in so many steps.
LEAST_SPREAD_S = 2
RETRY_STEPS = 8

# not the `random` module's generator: the program may seed that
_random = Random()

Header: TypeAlias = tuple[bytes, bytes]
CLOSE: Header = (b"connection", b"close")
STATUS_LINES = {status: f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode() for status in (429, 503)}


@dataclass(frozen=True)
class HttpReply:
    """An HTTP answer: the status, the headers (lower-case names) as bytes, and a body of one line."""

    status: int
    headers: tuple[Header, ...]
    body: bytes

    @property
    def text_headers(self) -> dict[str, str]:
        """The headers as text, by lower-case name."""
        return {name.decode(): value.decode() for name, value in self.headers}

    @cached_property
    def closes(self) -> bool:
        """Whether the answer closes the connection."""
        return CLOSE in self.headers

    @cached_property
    def _lines(self) -> bytes:
        return _header_lines(self.headers)

    def to_bytes(self, before: Iterable[Header] = (), *, with_body: bool = True) -> bytes:
        """Return the answer in HTTP/1.1, with a server's headers `before` its own. `with_body` is False for HEAD."""
        body = self.body if with_body else b""
        return b"".join((STATUS_LINES[self.status], _header_lines(before), self._lines, b"\r\n", body))


@dataclass(frozen=True, slots=True)
class GrpcReply:
    """A gRPC status: the code's name, its details, and trailing metadata as text."""

    code: str
    details: str
    trailers: tuple[tuple[str, str], ...]


def http_reply(refused: Overloaded, *, as_json: bool = False, close: bool = False) -> HttpReply:
    """Return an answer with `Retry-After` in whole seconds: 429 for `share` and `throttled`, else 503.

    The time is the gate's estimate and a random time on top. `as_json` makes the body JSON. `close` adds `Connection:
    close`, for HTTP/1, as the request's body will not be read; for a closed gate it is always added.
    """
    choices = _retry_choices_s(refused)
    retry_s = choices[int(_random.random() * len(choices))]
    return _http(refused.reason, retry_s, as_json, close or refused.reason == "closed")


def http_replies(refused: Overloaded, *, close: bool = False) -> tuple[HttpReply, ...]:
    """Return all answers that `http_reply` chooses from, with text bodies, for servers that store them."""
    close = close or refused.reason == "closed"
    return tuple(_http(refused.reason, retry_s, False, close) for retry_s in _retry_choices_s(refused))


def grpc_reply(refused: Overloaded) -> GrpcReply:
    """Return the status RESOURCE_EXHAUSTED, or UNAVAILABLE for a closed gate, with the time to retry in the trailers.

    `retry-delay` is RetryInfo's text form, in seconds; gRPC's own retry policies obey `grpc-retry-pushback-ms`, in
    milliseconds. The time is spread as in `http_reply`.
    """
    factor = 1 + int(_random.random() * RETRY_STEPS) / RETRY_STEPS
    retry_s = min(_retry_s(refused) * factor, LONGEST_RETRY_S)
    return _grpc(refused.reason, max(1, math.ceil(retry_s * 1000)))


def _retry_choices_s(refused: Overloaded) -> range:
    """Return the whole seconds to choose from, none below the estimate."""
    first_s = max(1, math.ceil(_retry_s(refused)))
    last_s = min(first_s + max(LEAST_SPREAD_S, first_s // 2), int(LONGEST_RETRY_S))
    return range(first_s, last_s + 1)


def _retry_s(refused: Overloaded) -> float:
    estimate_s = refused.retry_after_s
    if estimate_s is None or math.isnan(estimate_s):
        return UNKNOWN_RETRY_S
    return min(max(estimate_s, 0.0), LONGEST_RETRY_S)


def _header_lines(headers: Iterable[Header]) -> bytes:
    return b"".join([part for name, value in headers for part in (name, b": ", value, b"\r\n")])


@lru_cache(maxsize=512)
def _http(reason: str, retry_s: int, as_json: bool, close: bool) -> HttpReply:
    if as_json:
        text = json.dumps({"error": "overloaded", "reason": reason, "retry_after_s": retry_s}) + "\n"
    else:
        text = f"overloaded: {reason}\n"
    body = text.encode()
    headers = [
        (b"content-type", b"application/json" if as_json else b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"%d" % retry_s),
        # no cache may keep this: the next request may be served
        (b"cache-control", b"no-store"),
    ]
    if close:
        headers.append(CLOSE)
    return HttpReply(429 if reason in CALLER_REASONS else 503, tuple(headers), body)


@lru_cache(maxsize=4096)
def _grpc(reason: str, retry_ms: int) -> GrpcReply:
    code = "UNAVAILABLE" if reason == "closed" else "RESOURCE_EXHAUSTED"
    trailers = (
        ("overloaded-reason", reason),
        ("retry-delay", f"{retry_ms / 1000:.3f}s"),
        ("grpc-retry-pushback-ms", str(retry_ms)),
    )
    return GrpcReply(code, f"overloaded: {reason}", trailers)
