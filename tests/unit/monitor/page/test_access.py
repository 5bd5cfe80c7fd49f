"""Access to the page: the Host, the Origin, the token and the user that are refused, and those that are not."""

import os
import socket

import pytest

from penstock.monitor.page import access as access_module
from penstock.monitor.page.access import PageAccess
from penstock.monitor.page.peer import is_loopback, peer_uid
from penstock.monitor.page.request import BadRequest, PageRequest

TOKEN = "a-token-of-24-characters"
LOCAL = PageAccess("127.0.0.1", 8700)
REMOTE = PageAccess("0.0.0.0", 8700, TOKEN, ("monitor.internal",))


def request(method: str = "GET", **headers: str) -> PageRequest:
    fields = {"host": "127.0.0.1:8700", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return PageRequest(method, "/api/tasks", {}, fields)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8700", "localhost:8700", "localhost", "LocalHost:9000", "[::1]:8700", "127.0.0.9"]
)
def test_names_of_this_machine_are_answered(host: str) -> None:
    LOCAL.check_host(request(host=host))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8700",
        "localhost.evil.example",
        "192.168.0.7:8700",
        "127.0.0.1.evil.example",
        "",
        "a b",
        "localhost:",
        "127.0.0.1:8700@evil.example",
        "[::1",
        "user@localhost",
        "localhost/evil",
    ],
)
def test_a_foreign_host_is_refused(host: str) -> None:
    with pytest.raises(BadRequest) as refused:
        LOCAL.check_host(request(host=host))
    assert refused.value.status == 403


def test_beyond_loopback_addresses_and_listed_names_are_answered() -> None:
    for host in ("10.0.0.4:8700", "[2001:db8::1]:8700", "Monitor.Internal:8700"):
        REMOTE.check_host(request(host=host))
    with pytest.raises(BadRequest):
        REMOTE.check_host(request(host="evil.example:8700"))


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8701", "http://localhost:8700"])
def test_a_foreign_origin_is_refused(origin: str) -> None:
    with pytest.raises(BadRequest) as refused:
        LOCAL.check_host(request(origin=origin))
    assert refused.value.status == 403


def test_the_pages_own_origin_is_answered() -> None:
    LOCAL.check_host(request(origin="http://127.0.0.1:8700"))
    # behind a proxy that ends TLS
    LOCAL.check_host(request(origin="https://127.0.0.1:8700"))


def test_a_request_that_another_page_makes_is_refused() -> None:
    for site in ("cross-site", "same-site"):
        with pytest.raises(BadRequest):
            LOCAL.check_same_site(request(sec_fetch_site=site))
    LOCAL.check_same_site(request(sec_fetch_site="same-origin"))
    LOCAL.check_same_site(request())


def test_a_post_needs_an_origin_or_the_token_in_its_head() -> None:
    with pytest.raises(BadRequest):
        REMOTE.check_same_site(request("POST"))
    REMOTE.check_same_site(request("POST", origin="http://127.0.0.1:8700"))
    REMOTE.check_same_site(request("POST", authorization=f"Bearer {TOKEN}"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        *({"authorization": text} for text in ("Bearer wrong", TOKEN, f"Basic {TOKEN}", "Bearer \xe4")),
        *({"cookie": text} for text in (f"penstock_8700={TOKEN}", "penstock_8700=", "penstock_8701=x")),
    ],
)
def test_a_missing_or_wrong_token_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(BadRequest) as refused:
        REMOTE.check_token(request(**headers))
    assert refused.value.status == 401


def test_the_token_is_accepted_in_the_head_and_as_the_logins_cookie() -> None:
    REMOTE.check_token(request(authorization=f"Bearer {TOKEN}"))
    REMOTE.check_token(request(authorization=f"bearer {TOKEN}"))
    REMOTE.check_token(request(cookie=f"other=1; penstock_8700={REMOTE.session()}"))
    LOCAL.check_token(request())


def test_the_cookie_does_not_tell_the_token() -> None:
    assert TOKEN not in REMOTE.session()
    assert REMOTE.session() != PageAccess("0.0.0.0", 8700, TOKEN + "x").session()


@pytest.mark.parametrize("family", ["127.0.0.1", "::1"])
def test_the_user_of_the_other_end_is_known(family: str) -> None:
    kind = socket.AF_INET6 if ":" in family else socket.AF_INET
    try:
        listener = socket.create_server((family, 0), family=kind)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener, socket.create_connection(listener.getsockname()[:2]):
        accepted, _ = listener.accept()
        with accepted:
            assert peer_uid(accepted) == os.geteuid()
            LOCAL.check_user(accepted)


def test_another_user_of_this_machine_is_refused_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = socket.socketpair()
    with own, other:
        for uid in (os.geteuid() + 1, None):
            monkeypatch.setattr(access_module, "peer_uid", lambda sock, uid=uid: uid)
            with pytest.raises(BadRequest) as refused:
                LOCAL.check_user(own)
            assert refused.value.status == 403
            PageAccess("127.0.0.1", 8700, TOKEN).check_user(own)


def test_a_socket_that_its_process_has_closed_is_no_users() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        socket.create_connection(listener.getsockname()).close()
        accepted, _ = listener.accept()
        with accepted:
            assert peer_uid(accepted) is None


def test_loopback_is_told_from_other_addresses() -> None:
    assert all(
        is_loopback(each) for each in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "::ffff:127.0.0.1")
    )
    assert not any(is_loopback(each) for each in ("0.0.0.0", "::", "10.0.0.1", "example.com", "", "localhost.example"))
