"""Tests of deadlines: inherited, never later than an outer one, sent in headers, safe from malformed headers."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.pressure.client.deadline import deadline, expires_at, remaining_s
from penstock.pressure.client.headers import (
    GRPC_HEADER,
    HTTP_HEADER,
    format_grpc_timeout,
    from_headers,
    parse_grpc_timeout,
    to_headers,
)

pytestmark = pytest.mark.runner("virtual")


async def test_without_a_deadline_there_is_none() -> None:
    assert expires_at() is remaining_s() is None
    with deadline(None) as at_s:
        assert at_s is expires_at() is None
    assert to_headers() == to_headers(grpc=True) == {}


async def test_time_passes_to_nothing_and_not_below() -> None:
    with deadline(1.0) as at_s:
        assert at_s == expires_at() == 1.0
        await asyncio.sleep(0.25)
        assert remaining_s() == pytest.approx(0.75)
        await asyncio.sleep(2)
        assert remaining_s() == 0.0
    assert remaining_s() is None


async def test_a_nested_deadline_only_shortens() -> None:
    with deadline(1.0):
        with deadline(5.0):
            assert remaining_s() == 1.0
        with deadline(0.5):
            assert remaining_s() == 0.5
        with deadline(None):
            assert remaining_s() == 1.0
        assert remaining_s() == 1.0


async def test_tasks_inherit_it_and_their_own_does_not_come_back() -> None:
    async def child() -> float | None:
        with deadline(0.1):
            await asyncio.sleep(0.05)
            return remaining_s()

    with deadline(1.0):
        assert await asyncio.create_task(child()) == pytest.approx(0.05)
        assert remaining_s() == pytest.approx(0.95)


def test_a_thread_sees_it_where_no_loop_runs() -> None:
    async def main() -> float | None:
        with deadline(60.0):
            return await asyncio.to_thread(remaining_s)

    left_s = asyncio.run(main())
    assert left_s is not None
    assert 50 < left_s <= 60


async def test_with_async_the_block_ends_when_the_time_is_up() -> None:
    with pytest.raises(TimeoutError):
        async with deadline(1.0):
            await asyncio.sleep(10)
    assert asyncio.get_running_loop().time() == pytest.approx(1.0)
    assert remaining_s() is None
    async with deadline(None):
        await asyncio.sleep(10)


async def test_an_outer_deadline_ends_an_inner_block() -> None:
    with deadline(1.0), pytest.raises(TimeoutError):
        async with deadline(9.0):
            await asyncio.sleep(10)
    assert asyncio.get_running_loop().time() == pytest.approx(1.0)


@pytest.mark.parametrize("seconds", [-1.0, math.nan])
def test_an_invalid_time_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be at least 0 or None"):
        deadline(seconds)


async def test_a_deadline_is_entered_once() -> None:
    one = deadline(1.0)
    with one, pytest.raises(RuntimeError, match="entered only once"):
        one.__enter__()


@pytest.mark.parametrize("grpc", [False, True])
async def test_the_remaining_time_is_sent_in_headers(grpc: bool) -> None:
    with deadline(0.25):
        await asyncio.sleep(0.1)
        headers = to_headers(grpc=grpc)
        assert list(headers) == [GRPC_HEADER if grpc else HTTP_HEADER]
        left_s = from_headers(headers)
        assert left_s is not None
        assert 0.148 <= left_s <= 0.15
        with deadline(left_s):
            assert remaining_s() == left_s
        await asyncio.sleep(1)
        assert from_headers(to_headers(grpc=grpc)) == 0.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("100m", 0.1), ("1S", 1), ("2M", 120), ("3H", 10800), ("50u", 5e-5), ("7n", 7e-9), ("0m", 0), ("99999999m", None)],
)
def test_grpcs_syntax_is_read(value: str, seconds: float | None) -> None:
    found = parse_grpc_timeout(value)
    assert found is seconds is None or found == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "m",
        "100",
        "-1m",
        "+1m",
        " 1m",
        "1m ",
        "1m\n",
        "1 m",
        "1.5S",
        "1e3m",
        "123456789m",
        "1s",
        "1d",
        "٣m",
        "99999999H",
        "nan",
    ],
)
def test_a_malformed_grpc_timeout_is_ignored(value: str) -> None:
    assert parse_grpc_timeout(value) is None
    assert from_headers({"grpc-timeout": value}) is None


@pytest.mark.parametrize(
    "value", ["", "-5", "+5", "5.0", "1e3", " 5", "5\n", "٣", "nan", "inf", "0x10", "9" * 11, "9" * 5000]
)
def test_hostile_milliseconds_are_ignored(value: str) -> None:
    assert from_headers({HTTP_HEADER: value}) is None


def test_more_than_a_day_is_no_deadline() -> None:
    assert from_headers({HTTP_HEADER: "86400000"}) == 86_400
    assert from_headers({HTTP_HEADER: "86400001"}) is None


def test_of_several_headers_the_shortest_counts_in_any_form() -> None:
    assert from_headers([(b"Host", b"x"), (b"X-Request-Timeout-Ms", b"200"), (b"grpc-timeout", b"100m")]) == 0.1
    assert from_headers({"X-REQUEST-TIMEOUT-MS": "50", "x-envoy-expected-rq-timeout-ms": "20"}) == 0.02
    assert from_headers({"x-envoy-expected-rq-timeout-ms": "0"}) is None
    assert from_headers([(b"x-request-timeout-ms", b"\xff\xfe")]) is None
    assert from_headers({}) is None


@given(st.floats(0, 1e12))
def test_a_formatted_timeout_is_never_longer_and_hardly_shorter(seconds: float) -> None:
    text = format_grpc_timeout(seconds)
    assert len(text) <= 9
    unit_s = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}[text[-1]]
    found = int(text[:-1]) * unit_s
    assert found <= seconds
    if seconds <= 3.5e11:
        assert seconds - found <= max(1e-6, seconds * 1e-5) + 1e-9


NAMES = st.sampled_from([b"x-request-timeout-ms", b"Grpc-Timeout", b"x-envoy-expected-rq-timeout-ms", b"\xff"])


@given(st.lists(st.tuples(NAMES, st.binary(max_size=12)), max_size=4))
def test_no_headers_raise(headers: list[tuple[bytes, bytes]]) -> None:
    left_s = from_headers(headers)
    assert left_s is None or 0 <= left_s <= 86_400


@given(st.text(max_size=12))
def test_no_value_raises(value: str) -> None:
    left_s = from_headers({HTTP_HEADER: value, GRPC_HEADER: value})
    assert left_s is None or 0 <= left_s <= 86_400
