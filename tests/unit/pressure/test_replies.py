"""Replies: what a client is told of a refusal, by HTTP and by gRPC."""

import json
import math

import pytest

from penstock.errors import Overloaded
from penstock.pressure.replies import grpc_reply, http_reply

STATE = ("limit", "wait", "expired", "deadline", "lag", "tasks", "memory", "full", "closed", "left")


def refusal(reason, retry_after_s=None):
    return Overloaded("told", reason=reason, queued=77, limit=99, retry_after_s=retry_after_s)


def headers(reply):
    assert len({name for name, _ in reply.headers}) == len(reply.headers)
    assert all(name == name.lower() for name, _ in reply.headers)
    return dict(reply.headers)


@pytest.mark.parametrize("reason", STATE)
def test_the_services_state_is_503(reason):
    assert http_reply(refusal(reason)).status == 503


@pytest.mark.parametrize("reason", ["share", "throttled"])
def test_what_the_client_alone_brought_on_itself_is_429(reason):
    assert http_reply(refusal(reason)).status == 429


@pytest.mark.parametrize(
    ("told_s", "header"),
    [
        (None, b"1"),
        (0.0, b"1"),
        (0.02, b"1"),
        (1.0, b"1"),
        (1.01, b"2"),
        (30, b"30"),
        (-5.0, b"1"),
        (math.nan, b"1"),
        (math.inf, b"3600"),
        (1e9, b"3600"),
    ],
)
def test_retry_after_is_whole_seconds_and_at_least_one(told_s, header):
    assert headers(http_reply(refusal("wait", told_s)))[b"retry-after"] == header


def test_the_body_is_one_line_with_the_reason_and_no_count():
    reply = http_reply(refusal("wait", 2))
    assert reply.body == b"overloaded: wait\n"
    assert headers(reply)[b"content-length"] == b"%d" % len(reply.body)
    assert headers(reply)[b"content-type"].startswith(b"text/plain")
    assert headers(reply)[b"cache-control"] == b"no-store"


def test_as_json_the_body_has_reason_and_time():
    reply = http_reply(refusal("limit", 2), as_json=True)
    assert json.loads(reply.body) == {"error": "overloaded", "reason": "limit", "retry_after_s": 2}
    assert reply.body.count(b"\n") == 1
    assert headers(reply)[b"content-type"] == b"application/json"
    assert headers(reply)[b"content-length"] == b"%d" % len(reply.body)


def test_the_connection_is_closed_when_asked_or_when_the_service_ends():
    assert b"connection" not in headers(http_reply(refusal("wait")))
    assert headers(http_reply(refusal("wait"), close=True))[b"connection"] == b"close"
    assert headers(http_reply(refusal("closed")))[b"connection"] == b"close"


def test_text_headers_are_the_same_headers():
    reply = http_reply(refusal("wait"), close=True)
    assert {name.encode(): value.encode() for name, value in reply.text_headers.items()} == headers(reply)


def test_a_reply_is_made_once():
    assert http_reply(refusal("wait", 0.01)) is http_reply(refusal("wait", 0.5))


def test_grpc_is_resource_exhausted_with_the_time_in_the_trailers():
    reply = grpc_reply(refusal("wait", 0.25))
    assert (reply.code, reply.details) == ("RESOURCE_EXHAUSTED", "overloaded: wait")
    assert dict(reply.trailers) == {
        "overloaded-reason": "wait",
        "retry-delay": "0.250s",
        "grpc-retry-pushback-ms": "250",
    }


def test_grpc_sends_clients_of_a_closed_gate_elsewhere():
    assert grpc_reply(refusal("closed")).code == "UNAVAILABLE"


@pytest.mark.parametrize(("told_s", "delay"), [(None, "1.000s"), (0.0, "0.001s"), (math.inf, "3600.000s")])
def test_grpcs_delay_is_neither_nothing_nor_endless(told_s, delay):
    assert dict(grpc_reply(refusal("wait", told_s)).trailers)["retry-delay"] == delay
