"""The strict parser of one HTTP request from a connection: bytes, fields and time are bounded."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

__all__ = ["MAX_BODY_BYTES", "MAX_HEAD_BYTES", "BadRequest", "PageRequest", "parse_head", "read_request"]

# bounds of a request: several times the requests of a browser to this page
MAX_HEAD_BYTES = 8192
MAX_TARGET_BYTES = 2048
MAX_HEADERS = 64
MAX_BODY_BYTES = 4096
MAX_QUERY_FIELDS = 16
CHUNK_BYTES = 4096
# from the accept to the last byte of the request
REQUEST_S = 5.0

START_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.([01])")
HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([ -~\t\x80-\xff]*)")
DIGITS = re.compile(r"[0-9]{1,6}")
# fields that a request has once at most: two values would let two readers see two requests
ONCE = {"host", "origin", "content-length", "authorization", "cookie", "sec-fetch-site", "content-type"}


class BadRequest(Exception):
    """A request that is refused before it is handled. `status` is the HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request: method, path, query by name, header fields by their lower-case names, and the body."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def cookie(self, name: str) -> str:
        """Return the value of a cookie; an empty text without one."""
        for pair in self.headers.get("cookie", "").split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name:
                return value
        return ""


def read_request(sock: socket.socket, *, within_s: float = REQUEST_S) -> PageRequest | None:
    """Return the request of a connection; None if the client ends it before. Raises BadRequest and OSError.

    `within_s` bounds the whole request, so that a client that sends byte by byte gains nothing.
    """
    until_s = time.monotonic() + within_s
    received = bytearray()
    while (end := received.find(b"\r\n\r\n")) < 0:
        if len(received) > MAX_HEAD_BYTES:
            raise BadRequest(431, f"the head of a request may have {MAX_HEAD_BYTES} bytes")
        data = _receive(sock, until_s)
        if not data:
            return None
        received += data
    if end > MAX_HEAD_BYTES:
        raise BadRequest(431, f"the head of a request may have {MAX_HEAD_BYTES} bytes")
    request = parse_head(bytes(received[:end]))
    size_bytes = _body_bytes(request)
    body = bytes(received[end + 4 :])
    while len(body) < size_bytes:
        data = _receive(sock, until_s)
        if not data:
            return None
        body += data
    if len(body) > size_bytes:
        raise BadRequest(400, "more bytes than Content-Length says")
    return PageRequest(request.method, request.path, request.query, request.headers, body)


def _receive(sock: socket.socket, until_s: float) -> bytes:
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise BadRequest(408, "the request took too long")
    sock.settimeout(left_s)
    try:
        return sock.recv(CHUNK_BYTES)
    except TimeoutError:
        raise BadRequest(408, "the request took too long") from None


def parse_head(head: bytes) -> PageRequest:
    """Return the request of a head without the empty line at its end. Raises BadRequest."""
    start, *lines = head.split(b"\r\n")
    found = START_LINE.fullmatch(start)
    if found is None:
        raise BadRequest(400, "the first line is no request of HTTP/1")
    method, target = found[1].decode(), found[2].decode()
    if len(target) > MAX_TARGET_BYTES:
        raise BadRequest(414, f"the address may have {MAX_TARGET_BYTES} bytes")
    if method not in ("GET", "POST"):
        raise BadRequest(405, "only GET and POST are answered")
    headers = _headers(lines)
    if "host" not in headers:
        raise BadRequest(400, "there is no Host")
    path, _, query = target.partition("?")
    return PageRequest(method, path, _query(query), headers)


def _headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_HEADERS:
        raise BadRequest(431, f"a request may have {MAX_HEADERS} header fields")
    headers: dict[str, str] = {}
    for line in lines:
        found = HEADER.fullmatch(line)
        if found is None:
            raise BadRequest(400, "a header field is malformed")
        name = found[1].decode().lower()
        if name in ONCE and name in headers:
            raise BadRequest(400, f"the field {name} occurs twice")
        headers[name] = found[2].decode("latin-1").strip(" \t")
    return headers


def _query(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise BadRequest(400, "the query is malformed") from None
    if len(dict(pairs)) != len(pairs):
        raise BadRequest(400, "a name occurs twice in the query")
    return dict(pairs)


def _body_bytes(request: PageRequest) -> int:
    if "transfer-encoding" in request.headers:
        raise BadRequest(501, "a body needs a Content-Length")
    text = request.headers.get("content-length", "0")
    if not DIGITS.fullmatch(text):
        raise BadRequest(400, "Content-Length is no number")
    size_bytes = int(text)
    if size_bytes > MAX_BODY_BYTES:
        raise BadRequest(413, f"a body may have {MAX_BODY_BYTES} bytes")
    if size_bytes and request.method == "GET":
        raise BadRequest(400, "a GET has no body")
    return size_bytes
