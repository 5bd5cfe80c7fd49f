"""Numeric names: look-ups without a name server answer as `socket` does, and need no thread."""

import asyncio
import random
import socket
import sys
import threading

import pytest

HOSTS = [
    *("127.0.0.1", "0.0.0.0", "255.255.255.255", "10.1.2.3", b"192.168.1.1", b"::1", "::", "::1", "fe80::1"),
    *("2001:DB8:0:0:0:0:0:1", "2001:db8::1.2.3.4", "::ffff:1.2.3.4", "::1.2.3.4", "FE80::1%lo", "fe80::1%1", "::1%9"),
    *("127.1", "0x7f.0.0.1", "010.0.0.1", "01.2.3.4", "1", "", "*", "1.2.3.4.", " 1.2.3.4", "1.2.3.4 ", "1:2", ":::"),
    *("١.2.3.4", "１.2.3.4", "1.2.3.4\0", b"\xff", None, 1, 1.5, bytearray(b"1.2.3.4")),  # noqa: RUF001
]
# these, and the others that are numbers to no reader, would be names: only with AI_NUMERICHOST is no server asked
SERVED_NOWHERE = ("256.1.1.1", "1.2.3.4.5", "a::b::c", "not-a-number", "fe80::1%nowhere")
PORTS = [
    *(0, 1, 80, 443, 65535, 65536, 70000, -1, 2**31, 2**63, 2**70, True, None),
    *("0", "80", "00080", "65535", "65536", "99999", "123456", "-1", "+80", " 80", "80 ", "", "8 0", "٨٠", "80\0"),
    *(b"80", b"", b"80x", "http", "domain", b"https", "no-such-service", 80.0, bytearray(b"80")),
]
FAMILIES = [0, 0, 0, socket.AF_INET, socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 99, -1, 2**40, None, "x"]
TYPES = [
    0,
    0,
    socket.SOCK_STREAM,
    socket.SOCK_STREAM,
    1,
    socket.SOCK_DGRAM,
    socket.SOCK_RAW,
    socket.SOCK_SEQPACKET,
    99,
    -1,
]
PROTOCOLS = [0, 0, 0, socket.IPPROTO_TCP, socket.IPPROTO_UDP, 41, 132, 136, 255, 999, -1, 2.5]
FLAGS = [
    *(0, 0, socket.AI_PASSIVE, socket.AI_NUMERICHOST, socket.AI_NUMERICSERV, socket.AI_CANONNAME),
    *(socket.AI_PASSIVE | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV, socket.AI_V4MAPPED, socket.AI_ADDRCONFIG),
    *(socket.AI_V4MAPPED | socket.AI_ALL, 0x4000, 0x8000_0000, -1, "x"),
]
NUMERIC_INFO = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


def drawn(count, seed):
    """Draw arguments of `getaddrinfo`."""
    source = random.Random(seed)
    for _ in range(count):
        host = source.choice([*HOSTS, *SERVED_NOWHERE])
        options = {
            "family": source.choice(FAMILIES),
            "type": source.choice(TYPES),
            "proto": source.choice(PROTOCOLS),
            "flags": source.choice(FLAGS),
        }
        if is_served(host) and isinstance(options["flags"], int):
            options["flags"] = int(socket.AI_NUMERICHOST)
        yield host, source.choice(PORTS), options


def is_served(host):
    """Whether a name server might be asked: the C library reads no number in it."""
    if isinstance(host, bytes):
        host = host.decode("latin-1")
    if not isinstance(host, str):
        return False
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):
        return True
    return False


def asked(host, port, options):
    """Ask the C library, through Python."""
    try:
        return socket.getaddrinfo(host, port, **options)
    except Exception as error:
        return type(error), error.args


async def answered(loop, host, port, options):
    try:
        return await loop.getaddrinfo(host, port, **options)
    except Exception as error:
        return type(error), error.args


@pytest.mark.parametrize("seed", range(4))
async def test_a_look_up_answers_as_the_socket_module(loop, seed):
    for host, port, options in drawn(600, seed):
        expected = asked(host, port, options)
        for _ in range(2):
            found = await answered(loop, host, port, options)
            assert found == expected, (host, port, options)
        if isinstance(found, list):
            assert [[type(part) for part in entry] for entry in found] == [
                [type(part) for part in entry] for entry in expected
            ]


async def test_each_answer_is_a_list_of_its_own(loop):
    first = await loop.getaddrinfo("127.0.0.1", 80)
    first.clear()
    assert await loop.getaddrinfo("127.0.0.1", 80) == socket.getaddrinfo("127.0.0.1", 80)


@pytest.mark.parametrize("sockaddr", [("127.0.0.1", 80), ("::1", 80, 0, 0), ("fe80::1", 1, 5, 1), ("::1", 80, 0, 9)])
async def test_a_numeric_name_of_an_address_is_that_of_the_socket_module(loop, sockaddr):
    for flags in (NUMERIC_INFO, NUMERIC_INFO | socket.NI_DGRAM):
        assert await loop.getnameinfo(sockaddr, flags) == socket.getnameinfo(sockaddr, flags)


@pytest.mark.parametrize("sockaddr", [("name", 80), ("127.0.0.1", -1), ("127.0.0.1",), "text", None])
async def test_a_wrong_address_has_no_name_and_the_same_error(loop, sockaddr):
    with pytest.raises(Exception) as expected:
        socket.getnameinfo(sockaddr, NUMERIC_INFO)
    with pytest.raises(expected.type) as found:
        await loop.getnameinfo(sockaddr, NUMERIC_INFO)
    assert found.value.args == expected.value.args


async def test_a_replaced_getaddrinfo_is_called(loop, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: ["replaced"])
    assert await loop.getaddrinfo("127.0.0.1", 80) == ["replaced"]


async def test_a_look_up_raises_its_audit_event(loop):
    heard = []
    active = True
    sys.addaudithook(lambda event, args: heard.append(args) if active and event == "socket.getaddrinfo" else None)
    try:
        for _ in range(2):
            await loop.getaddrinfo("127.0.0.1", 80, family=socket.AF_INET, type=socket.SOCK_STREAM, proto=6)
    finally:
        active = False
    assert heard == [("127.0.0.1", 80, 2, 1, 6)] * 2
    assert [type(part) for part in heard[1][2:]] == [int, int, int]


def test_a_numeric_look_up_needs_no_thread_and_no_turn(loop):
    if type(loop).__module__.startswith("asyncio"):
        pytest.skip("asyncio asks a thread")
    before = threading.active_count()
    for call in (
        loop.getaddrinfo("127.0.0.1", 80),
        loop.getaddrinfo("::1", "80", type=socket.SOCK_STREAM),
        loop.getaddrinfo(None, 80, flags=socket.AI_PASSIVE),
        loop.getnameinfo(("127.0.0.1", 80), NUMERIC_INFO),
    ):
        assert asyncio.iscoroutine(call)
        with pytest.raises(StopIteration):
            call.send(None)
    assert threading.active_count() == before
