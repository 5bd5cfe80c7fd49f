"""Requests of the page: parsed strictly, and bounded in bytes, fields and time."""

import socket
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.monitor.page.request import MAX_BODY_BYTES, MAX_HEAD_BYTES, BadRequest, parse_head, read_request

GET = b"GET /api/tasks?pid=7&filter=a%20b HTTP/1.1\r\nHost: localhost:8700\r\nAccept: */*"


def read(data: bytes, within_s: float = 5.0) -> object:
    """Return what is read of a connection that sends these bytes and ends."""
    own, other = socket.socketpair()
    with own, other:
        # more than the socket takes must not block
        sender = threading.Thread(target=send, args=(other, data))
        sender.start()
        try:
            return read_request(own, within_s=within_s)
        finally:
            own.close()
            sender.join()


def send(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)


def test_a_request_has_its_path_query_and_fields() -> None:
    request = parse_head(GET)
    assert (request.method, request.path) == ("GET", "/api/tasks")
    assert request.query == {"pid": "7", "filter": "a b"}
    assert request.headers == {"host": "localhost:8700", "accept": "*/*"}


def test_a_cookie_is_found_by_its_whole_name() -> None:
    request = parse_head(GET + b"\r\nCookie: xpenstock_1=a; penstock_1=b; penstock_10=c")
    assert request.cookie("penstock_1") == "b"
    assert request.cookie("penstock") == ""


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1", 400),
        (b"GET / HTTP/2.0\r\nHost: a", 400),
        (b"GET  / HTTP/1.1\r\nHost: a", 400),
        (b"GET http://a/ HTTP/1.1\r\nHost: a", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a", 400),
        (b"get / HTTP/1.1\r\nHost: a", 400),
        (b"DELETE / HTTP/1.1\r\nHost: a", 405),
        (b"OPTIONS / HTTP/1.1\r\nHost: a", 405),
        (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: a", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded: b", 400),
        (b"GET / HTTP/1.1\r\nHost : a", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b", 400),
        (b"GET / HTTP/1.1\r\nHost: a\x00", 400),
        (b"GET / HTTP/1.1\r\nHost: a" + b"\r\nX: b" * 70, 431),
        (b"GET /?a=1&a=2 HTTP/1.1\r\nHost: a", 400),
        (b"GET /?a=%ff HTTP/1.1\r\nHost: a", 400),
        (b"GET /?" + b"&".join(b"a%d=1" % at for at in range(20)) + b" HTTP/1.1\r\nHost: a", 400),
    ],
)
def test_a_malformed_head_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_head(head)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"A" * (MAX_HEAD_BYTES + 5000), 431),
        (b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}more", 400),
        (b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: -2\r\n\r\n{}", 400),
        (b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), 413),
        (b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (b"POST /login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", 400),
    ],
)
def test_a_request_beyond_its_bounds_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as refused:
        read(data)
    assert refused.value.status == status


def test_a_client_that_sends_no_whole_request_is_given_up_in_time() -> None:
    own, other = socket.socketpair()
    with own, other:
        other.sendall(b"GET / HTTP/1.1\r\nHost:")
        with pytest.raises(BadRequest) as refused:
            read_request(own, within_s=0.05)
    assert refused.value.status == 408


def test_a_client_that_ends_early_is_no_request() -> None:
    assert read(b"") is None
    assert read(b"GET / HTTP/1.1\r\nHo") is None
    assert read(b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{}") is None


@given(st.binary(max_size=400))
def test_any_bytes_are_a_request_or_are_refused(data: bytes) -> None:
    with suppress(BadRequest):
        parse_head(data)


PIECES = st.sampled_from(
    [
        *(b"GET", b"POST", b" ", b"/", b"?", b"a=1", b"%", b"&", b"HTTP/1.1", b"\r\n", b"\n", b"Host", b":", b"a"),
        *(b"\x00", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Cookie: a=b; ;=", b"\r\n\r\n", b"9" * 30),
    ]
)


@given(st.lists(PIECES, max_size=24).map(b"".join))
def test_any_pieces_of_requests_are_a_request_or_are_refused(data: bytes) -> None:
    with suppress(BadRequest):
        request = parse_head(data)
        assert request.method in ("GET", "POST")
        assert request.path.startswith("/")
        assert "host" in request.headers
