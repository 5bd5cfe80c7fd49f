"""What a client is told of a refusal: HTTP's and gRPC's answers to an `Overloaded`, as data.

Clients learn the reason and when to come back, never the counts. When is spread: those refused in one moment would all
come back in another. Knows no server, no framework and no socket. An answer is made once for each reason and time and
kept: to refuse must cost next to nothing.
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

# the caller's own doing, not the service's state: 429 says that others may well be served
OWN_DOING = frozenset({"share", "throttled"})
# who is told nothing comes back in an hour at the latest
LONGEST_RETRY_S = 3600.0
# of a refusal that cannot tell when a place is likely
UNKNOWN_RETRY_S = 1.0
# The latest time told is half as long again, and at least so much later; in gRPC, whose times are no whole seconds, it
# is twice as long, in so many steps.
LEAST_SPREAD_S = 2
RETRY_STEPS = 8

# not the program's own, whose seed may be set
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
        """The same headers as text, for servers that want them so."""
        return {name.decode(): value.decode() for name, value in self.headers}

    @cached_property
    def closes(self) -> bool:
        """Whether the connection ends with it."""
        return CLOSE in self.headers

    @cached_property
    def _lines(self) -> bytes:
        return _written(self.headers)

    def to_bytes(self, before: Iterable[Header] = (), *, with_body: bool = True) -> bytes:
        """As HTTP/1.1 writes it, behind a server's own headers; an answer to HEAD has no body."""
        body = self.body if with_body else b""
        return b"".join((STATUS_LINES[self.status], _written(before), self._lines, b"\r\n", body))


@dataclass(frozen=True, slots=True)
class GrpcReply:
    """A gRPC status: the code's name, its details, and trailing metadata as text."""

    code: str
    details: str
    trailers: tuple[tuple[str, str], ...]


def http_reply(refused: Overloaded, *, as_json: bool = False, close: bool = False) -> HttpReply:
    """503, or 429 where the refused one alone is to blame (`share`, `throttled`), with `Retry-After` in whole seconds.

    That is the gate's estimate, or some time more, chosen at random. `close` adds `Connection: close`, for HTTP/1: the
    request's body is not going to be read. A closed gate always does.
    """
    choices = _retry_choices_s(refused)
    retry_s = choices[int(_random.random() * len(choices))]
    return _http(refused.reason, retry_s, as_json, close or refused.reason == "closed")


def http_replies(refused: Overloaded, *, close: bool = False) -> tuple[HttpReply, ...]:
    """Return all that `http_reply` chooses from, as text: for servers that keep them at hand."""
    close = close or refused.reason == "closed"
    return tuple(_http(refused.reason, retry_s, False, close) for retry_s in _retry_choices_s(refused))


def grpc_reply(refused: Overloaded) -> GrpcReply:
    """RESOURCE_EXHAUSTED, or UNAVAILABLE where the service is about to end, with when to try again in the trailers.

    `retry-delay` is for people and for clients that know RetryInfo, in its text form; `grpc-retry-pushback-ms` is what
    gRPC's own retry policies obey. The time is spread as in `http_reply`.
    """
    factor = 1 + int(_random.random() * RETRY_STEPS) / RETRY_STEPS
    retry_s = min(_retry_s(refused) * factor, LONGEST_RETRY_S)
    return _grpc(refused.reason, max(1, math.ceil(retry_s * 1000)))


def _retry_choices_s(refused: Overloaded) -> range:
    """The whole seconds that may be told, none before the estimate."""
    first_s = max(1, math.ceil(_retry_s(refused)))
    last_s = min(first_s + max(LEAST_SPREAD_S, first_s // 2), int(LONGEST_RETRY_S))
    return range(first_s, last_s + 1)


def _retry_s(refused: Overloaded) -> float:
    told_s = refused.retry_after_s
    if told_s is None or math.isnan(told_s):
        return UNKNOWN_RETRY_S
    return min(max(told_s, 0.0), LONGEST_RETRY_S)


def _written(headers: Iterable[Header]) -> bytes:
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
        # what is refused now may be served in a second: no cache keeps this
        (b"cache-control", b"no-store"),
    ]
    if close:
        headers.append(CLOSE)
    return HttpReply(429 if reason in OWN_DOING else 503, tuple(headers), body)


@lru_cache(maxsize=4096)
def _grpc(reason: str, retry_ms: int) -> GrpcReply:
    code = "UNAVAILABLE" if reason == "closed" else "RESOURCE_EXHAUSTED"
    trailers = (
        ("overloaded-reason", reason),
        ("retry-delay", f"{retry_ms / 1000:.3f}s"),
        ("grpc-retry-pushback-ms", str(retry_ms)),
    )
    return GrpcReply(code, f"overloaded: {reason}", trailers)
