"""The server of the page: its answers, its refusals, slow and many clients, and the end."""

import json
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.monitor.page.routes import page_files
from tests.support.monitored import FakeProcess
from tests.support.served_page import ServedPage, exchange, served
from tests.support.waiting import wait_until

TOKEN = "a-token-of-24-characters"


def threads() -> int:
    return sum(thread.name == "penstock-page-client" for thread in threading.enumerate())


def test_every_file_of_the_page_is_served_with_its_protections() -> None:
    with served() as page:
        for path in ("/", *page_files()):
            answer = page.send(path)
            assert answer.status == 200
            assert answer.headers["content-security-policy"].startswith("default-src 'self';")
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"


def test_the_page_has_no_script_or_style_within() -> None:
    with served() as page:
        text = page.send("/").body.decode()
    assert "<style" not in text
    assert "style=" not in text
    assert " onclick" not in text
    assert text.count("<script") == text.count("<script src=")


@pytest.mark.parametrize(
    "path", ["/../pyproject.toml", "/%2e%2e/page.css", "/js/", "/js/page.js/", "/.git", "/page.css%00"]
)
def test_no_other_file_is_served(path: str) -> None:
    with served() as page:
        assert page.send(path).status == 404


def test_a_wrong_host_and_a_foreign_origin_are_refused_everywhere() -> None:
    with served() as page:
        for path in ("/", "/page.css", "/api/tasks?pid=4242", "/api/events"):
            assert page.send(path, host="evil.example").status == 403
            assert page.send(path, origin="http://evil.example").status == 403
        assert page.send("/api/tasks?pid=4242", sec_fetch_site="cross-site").status == 403
        assert page.send("/api/gc?pid=4242", "POST", body=b"{}", origin="http://evil.example").status == 403
        assert page.send("/api/gc?pid=4242", "POST", body=b"{}", origin=None).status == 403
        assert not [command for command, _ in page.source.processes[4242].asked if command in ("gc", "tasks")]


def test_without_the_token_only_the_files_are_served() -> None:
    with served(token=TOKEN) as page:
        assert page.send("/").status == 200
        for path in ("/api/tasks?pid=4242", "/api/events", "/api/trace?pid=4242", "/api/findings", "/api/nothing"):
            assert page.send(path).status == 401
        assert page.send(f"/api/tasks?pid=4242&token={TOKEN}").status == 401
        assert page.send("/api/gc?pid=4242", "POST", body=b"{}").status == 401
        assert page.send("/api/tasks?pid=4242", authorization=f"Bearer {TOKEN}").status == 200


def test_the_login_gives_a_strict_cookie_for_the_token_alone() -> None:
    with served(token=TOKEN) as page:
        assert page.send("/login", "POST", body=b'{"token": "wrong"}').status == 401
        assert page.send("/login", "POST", body=b"[]").status == 400
        assert page.send("/login", "POST", body=b'{"token": 7}').status == 401
        answer = page.send("/login", "POST", body=json.dumps({"token": TOKEN}).encode())
        assert answer.status == 204
        cookie, *flags = answer.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Strict"} <= set(flags)
        assert TOKEN not in cookie
        assert page.send("/api/tasks?pid=4242", cookie=cookie).status == 200


def test_questions_are_passed_on_with_their_bounds() -> None:
    with served() as page:
        query = "sort=steps&descending=0&filter=mail&limit=5"
        rows = page.send(f"/api/tasks?pid=4242&{query}").data["tasks"]
        assert [row["name"] for row in rows] == sorted((row["name"] for row in rows), key=lambda name: -int(name[10:]))
        assert len(rows) == 5
        asked = [arguments for command, arguments in page.source.processes[4242].asked if command == "tasks"]
        assert asked == [{"sort": "steps", "descending": False, "filter": "mail", "limit": 5}]
        assert page.send("/api/task?pid=4242&number=3").data["task"]["number"] == 3
        assert page.send("/api/graph?pid=4242").data["cycles"]
        assert page.send("/api/tasks?pid=4242&group=site").data["groups"]
        for bad in ("pid=1", "pid=0", "pid=-1", "pid=x", "", "pid=4242&sort=evil", "pid=4242&limit=99999"):
            assert page.send(f"/api/tasks?{bad}").status in (400, 404)
        assert page.send("/api/trace?pid=4242&seconds=999").status == 400


def test_a_trace_is_a_file() -> None:
    with served() as page:
        answer = page.send("/api/trace?pid=4242&seconds=1")
        assert answer.headers["content-disposition"].startswith('attachment; filename="penstock-4242-')
        assert answer.data["traceEvents"]


def test_actions_are_posts_of_json() -> None:
    with served(FakeProcess(4242, actions=True)) as page:
        answer = page.send("/api/cancel?pid=4242", "POST", body=b'{"number": 7}')
        assert answer.data["done"] == "task 7 is cancelled"
        assert page.send("/api/cancel?pid=4242").status == 405
        assert page.send("/api/tasks?pid=4242", "POST", body=b"{}").status == 405
        assert page.send("/api/cancel?pid=4242", "POST", body=b"number=7", content_type="text/plain").status == 415


def test_a_process_that_does_not_answer_in_time_is_a_gateway_timeout() -> None:
    with served(FakeProcess(4242), FakeProcess(4243, is_silent=True)) as page:
        assert page.send("/api/tasks?pid=4243").status == 504
        assert page.send("/api/tasks?pid=4242").status == 200


def test_a_failure_of_the_page_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with served() as page:
        page.source.processes[4242]._graph = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        answer = page.send("/api/graph?pid=4242")
        assert answer.status == 500
        assert b"ZeroDivision" not in answer.body
    assert "the monitor's page failed at a request" in caplog.text


def test_a_slow_client_ends_and_leaves_no_thread() -> None:
    with served(request_s=0.2) as page:
        with socket.create_connection(("127.0.0.1", page.port)) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\n")
            assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
        wait_until(lambda: threads() == 0)


def test_more_clients_than_the_bound_are_refused_and_the_next_is_served() -> None:
    with served(most=2) as page:
        held = [socket.create_connection(("127.0.0.1", page.port)) for _ in range(2)]
        wait_until(lambda: threads() == 2)
        assert exchange(page.port, b"").startswith(b"HTTP/1.1 503 ")
        for sock in held:
            sock.close()
        wait_until(lambda: threads() == 0)
        assert page.send("/").status == 200


def test_clients_that_leave_at_any_point_leave_no_thread() -> None:
    with served() as page:
        head = f"GET /api/events HTTP/1.1\r\nHost: localhost:{page.port}\r\n\r\n".encode()
        for length in (0, 1, 17, len(head) - 1, len(head)):
            with socket.create_connection(("127.0.0.1", page.port)) as sock:
                sock.sendall(head[:length])
        wait_until(lambda: threads() == 0)
        assert not page.sampler.is_watched


@given(st.binary(max_size=300))
@settings(max_examples=60)
def test_any_bytes_get_an_answer_or_an_end(data: bytes) -> None:
    received = exchange(PAGE.port, data + b"\r\n\r\n")
    assert received.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501")) or not received


PAGE: ServedPage


@pytest.fixture(autouse=True, scope="module")
def shared_page():
    global PAGE
    with served() as PAGE:
        yield
