"""Tests of the replies to shed requests, in HTTP and gRPC."""

import json
import math
import random

import pytest

from penstock.errors import Overloaded
from penstock.pressure.admission.replies import RETRY_STEPS, grpc_reply, http_replies, http_reply

STATE = ("limit", "wait", "expired", "deadline", "lag", "tasks", "memory", "full", "closed", "left")


def refusal(reason, retry_after_s=None):
    return Overloaded("shed", reason=reason, queued=77, limit=99, retry_after_s=retry_after_s)


def headers(reply):
    assert len({name for name, _ in reply.headers}) == len(reply.headers)
    assert all(name == name.lower() for name, _ in reply.headers)
    return dict(reply.headers)


@pytest.mark.parametrize("reason", STATE)
def test_the_services_state_is_503(reason):
    assert http_reply(refusal(reason)).status == 503


@pytest.mark.parametrize("reason", ["share", "throttled"])
def test_a_shed_for_the_clients_own_load_is_429(reason):
    assert http_reply(refusal(reason)).status == 429


@pytest.mark.parametrize(
    ("retry_s", "first_s", "last_s"),
    [
        (None, 1, 3),
        (0.0, 1, 3),
        (0.02, 1, 3),
        (1.0, 1, 3),
        (1.01, 2, 4),
        (30, 30, 45),
        (-5.0, 1, 3),
        (math.nan, 1, 3),
        (3599, 3599, 3600),
        (math.inf, 3600, 3600),
        (1e9, 3600, 3600),
    ],
)
def test_retry_after_is_the_estimate_in_whole_seconds_or_some_time_more(retry_s, first_s, last_s):
    allowed = [b"%d" % whole_s for whole_s in range(first_s, last_s + 1)]
    values = [headers(http_reply(refusal("wait", retry_s)))[b"retry-after"] for _ in range(2000)]
    # all values occur equally often: of 2000, one in 16 is 125, and half of that is five deviations away
    assert set(values) == set(allowed)
    assert min(map(values.count, allowed)) > 2000 / len(allowed) / 2
    assert [headers(reply)[b"retry-after"] for reply in http_replies(refusal("wait", retry_s))] == allowed


def test_the_programs_own_random_numbers_are_not_used():
    random.seed(1)
    before = random.getstate()
    http_reply(refusal("wait"))
    grpc_reply(refusal("wait"))
    assert random.getstate() == before


def test_the_body_is_one_line_with_the_reason_and_no_count():
    reply = http_reply(refusal("wait", 2))
    assert reply.body == b"overloaded: wait\n"
    assert headers(reply)[b"content-length"] == b"%d" % len(reply.body)
    assert headers(reply)[b"content-type"].startswith(b"text/plain")
    assert headers(reply)[b"cache-control"] == b"no-store"


def test_as_json_the_body_has_reason_and_time():
    reply = http_reply(refusal("limit", 2), as_json=True)
    retry_s = int(headers(reply)[b"retry-after"])
    assert json.loads(reply.body) == {"error": "overloaded", "reason": "limit", "retry_after_s": retry_s}
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


def test_a_reply_is_made_once_for_each_time():
    assert len({id(http_reply(refusal("wait", 0.01))) for _ in range(200)}) == 3


def test_grpc_is_resource_exhausted_with_the_time_in_the_trailers():
    reply = grpc_reply(refusal("wait", 0.25))
    assert (reply.code, reply.details) == ("RESOURCE_EXHAUSTED", "overloaded: wait")
    trailers = dict(reply.trailers)
    assert trailers.pop("overloaded-reason") == "wait"
    retry_ms = int(trailers.pop("grpc-retry-pushback-ms"))
    assert trailers == {"retry-delay": f"{retry_ms / 1000:.3f}s"}


def test_grpcs_delay_is_the_estimate_or_up_to_twice_as_long():
    values = {dict(grpc_reply(refusal("wait", 0.25)).trailers)["grpc-retry-pushback-ms"] for _ in range(1000)}
    assert len(values) == RETRY_STEPS
    assert min(map(int, values)) == 250
    assert max(map(int, values)) < 500


def test_grpc_sends_clients_of_a_closed_gate_elsewhere():
    assert grpc_reply(refusal("closed")).code == "UNAVAILABLE"


@pytest.mark.parametrize(("retry_s", "delay"), [(0.0, "0.001s"), (math.inf, "3600.000s")])
def test_grpcs_delay_is_neither_nothing_nor_endless(retry_s, delay):
    assert dict(grpc_reply(refusal("wait", retry_s)).trailers)["retry-delay"] == delay
