"""Clients that send all of a large request before they read get the refusal, and no reset. Real sockets."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from tests.support.waiting import until

pytest.importorskip("uvicorn")

from penstock.integrations import body_drain as draining
from penstock.loop import lingering
from penstock.pressure.admission.gate import Gate
from tests.unit.integrations.test_admission_served import EARLY, PARSERS, Served

SIZES = (200_000, 1_000_000)
HEAD = "POST / HTTP/1.1\r\nhost: x\r\n{}\r\n"
WAYS = [*PARSERS, EARLY]


def head_of(size_bytes):
    return HEAD.format(f"content-length: {size_bytes}\r\n").encode()


def sized(size_bytes):
    return head_of(size_bytes) + bytes(size_bytes)


def chunked(size_bytes):
    piece = b"10000\r\n" + bytes(65536) + b"\r\n"
    return HEAD.format("transfer-encoding: chunked\r\n").encode() + piece * (size_bytes // 65536) + b"0\r\n\r\n"


def send_all_then_read(address, request):
    """Send the whole request before reading the response, as nginx does."""
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(request)
        got = b""
        while piece := client.recv(65536):
            got += piece
    return got


async def asked(served, *requests):
    """Return the answers to several clients, each in a thread."""
    address = served.listener.getsockname()
    return await asyncio.gather(*[asyncio.to_thread(send_all_then_read, address, request) for request in requests])


def is_refusal(answered):
    head, _, body = answered.partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 503 ") and b"connection: close" in head.lower() and body == b"overloaded: limit\n"


@asynccontextmanager
async def full(http):
    """Serve behind a gate whose one permit is held."""
    async with Served(Gate(1, max_wait_s=0), http=http) as served:
        held = await served.hold()
        yield served
        held.close()


async def upload(served):
    return await asyncio.to_thread(send_all_then_read, served.listener.getsockname(), head_of(1_000_000))


@pytest.mark.parametrize("http", WAYS)
@pytest.mark.parametrize("size_bytes", SIZES)
@pytest.mark.parametrize("request_of", [sized, chunked])
async def test_every_refused_upload_reads_its_answer(http, size_bytes, request_of):
    gate = Gate(1, max_wait_s=0)
    async with Served(gate, http=http) as served:
        held = await served.hold()
        answers = await asked(served, *[request_of(size_bytes)] * 12)
        assert [is_refusal(answered) for answered in answers] == [True] * 12
        assert gate.statistics().sheds["limit"] == 12
        assert served.service.begun == ["/held"]
        held.close()


@pytest.mark.parametrize("http", WAYS)
async def test_one_that_waits_to_be_asked_for_its_body_is_not_asked(http):
    async with full(http) as served:
        head = HEAD.format("expect: 100-continue\r\ncontent-length: 1000000\r\n").encode()
        (answered,) = await asked(served, head)
        assert is_refusal(answered) and b" 100 " not in answered


async def test_one_that_sends_its_body_unasked_reads_its_answer_all_the_same():
    async with full(EARLY) as served:
        head = HEAD.format("expect: 100-continue\r\ncontent-length: 1000000\r\n").encode()
        (answered,) = await asked(served, head + bytes(1_000_000))
        assert is_refusal(answered)


@pytest.mark.parametrize("http", WAYS)
async def test_a_client_that_neither_sends_its_body_nor_leaves_is_let_go_in_time(http, monkeypatch):
    monkeypatch.setattr(draining, "IDLE_S", 0.05)
    monkeypatch.setattr(lingering, "LINGER_S", 0.05)

    async with full(http) as served:
        assert is_refusal(await upload(served))
        await until(lambda: len(served.server.server_state.connections) == 1)


@pytest.mark.parametrize("http", PARSERS)
async def test_a_flood_beyond_the_bound_is_closed_at_once(http, monkeypatch):
    monkeypatch.setattr(draining, "MOST_AT_ONCE", 0)

    async with full(http) as served:
        assert is_refusal(await upload(served))


@pytest.mark.parametrize("http", PARSERS)
async def test_a_body_without_end_is_cut(http):
    async with full(http) as served:
        with pytest.raises(ConnectionError):
            await asked(served, sized(64_000_000))
