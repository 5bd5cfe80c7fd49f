"""A request beyond a full backlog is answered unread, over real sockets. A loop that is always busy is behind."""

import asyncio
import socket
import time

import pytest

from penstock._core.overload.lag import Lag
from penstock.loop.native import native_core
from penstock.loop.servers import connection_count
from tests.loop.wire import Recorder
from tests.unit.core.test_holding import (
    HOUR_NS,
    Noting,
    accepted,
    arrived_at,
    end,
    reset,
    send_to_be_held,
    turns,
    until,
)
from tests.unit.core.test_parking import Made, descriptors, no_descriptor_is_left, park

__all__ = ["no_descriptor_is_left"]

REPLY = b"come again later"
# What the kernel takes at once.
LONG_BYTES = 40 * 1024


class Telling(Noting):
    """Has an answer ready, as long as `reply` is one."""

    reply = REPLY

    @property
    def overload_reply(self):
        return self.reply


class Failing(Telling):
    @property
    def overload_reply(self):
        raise OSError("no answer today")


class MadeTelling(Made):
    def __call__(self):
        self.protocols.append(Telling(self.order))
        return self.protocols[-1]


async def behind(loop, defer_ns=HOUR_NS):
    """Behind whenever anything has been ready for a nanosecond. With `defer_ns=1` what is held is soon too late."""
    lag = Lag(high_ns=1, low_ns=1, for_ns=HOUR_NS, defer_ns=defer_ns)
    native_core(loop).watch_lag(lag, arrived_at)
    for _ in range(3):
        await asyncio.sleep(0)
    return lag


async def hold_too_long(loop, client):
    """Held by `behind(defer_ns=1)`, for longer than the one turn that may be a stall."""
    await send_to_be_held(loop, client)
    await turns(2)


async def full(loop, *protocols):
    """Connections of a loop that is behind; one more, whose protocol has no answer, is held for too long already."""
    server, clients = await accepted(loop, Noting(), *protocols)
    await behind(loop, defer_ns=1)
    await hold_too_long(loop, clients[0])
    return server, clients


async def read_all(loop, client):
    """All that a client is sent, until its connection ends; something is always ready meanwhile."""
    client.setblocking(False)
    got = b""
    while True:
        try:
            piece = client.recv(65536)
        except BlockingIOError:
            await asyncio.sleep(0)
            continue
        if not piece:
            return got
        got += piece


async def test_who_comes_to_a_full_line_is_answered_unread(loop):
    protocol = Telling()
    server, clients = await full(loop, protocol)
    clients[1].sendall(b"request")
    assert await read_all(loop, clients[1]) == REPLY
    await protocol.until_event("lost")
    assert (
        protocol.data,
        protocol.error,
        native_core(loop).shed_unread_count,
        len(native_core(loop).deferred_reads),
    ) == (b"", None, 1, 1)
    await end(server, clients)


async def test_a_long_request_is_answered_too_and_not_reset(loop):
    protocol = Telling()
    server, clients = await full(loop, protocol)
    clients[1].sendall(bytes(LONG_BYTES))
    assert await read_all(loop, clients[1]) == REPLY
    await end(server, clients)


async def test_one_stall_turns_nobody_away(loop):
    """The backlog waited for a loop that was suspended, not for one at its capacity."""

    protocols = [Telling(), Telling()]
    server, clients = await accepted(loop, *protocols)
    await behind(loop, defer_ns=200_000_000)
    await send_to_be_held(loop, clients[0])
    time.sleep(0.3)
    await send_to_be_held(loop, clients[1])
    assert (len(native_core(loop).deferred_reads), native_core(loop).shed_unread_count) == (2, 0)
    for protocol in protocols:
        await protocol.until_bytes(4)
    await end(server, clients)


@pytest.mark.parametrize("make", [Noting, type("Silent", (Telling,), {"reply": None})])
async def test_without_an_answer_it_is_held(loop, make):
    protocol = make()
    server, clients = await full(loop, protocol)
    await send_to_be_held(loop, clients[1])
    assert (len(native_core(loop).deferred_reads), native_core(loop).shed_unread_count) == (2, 0)
    await protocol.until_bytes(4)
    await end(server, clients)


@pytest.mark.parametrize("make", [Failing, type("Text", (Telling,), {"reply": "text"})])
async def test_an_answer_that_cannot_be_made_is_told_and_the_read_held(loop, make):
    told = []
    loop.set_exception_handler(lambda loop, context: told.append(context))
    protocol = make()
    server, clients = await full(loop, protocol)
    told.clear()
    await send_to_be_held(loop, clients[1])
    assert (len(native_core(loop).deferred_reads), native_core(loop).shed_unread_count) == (2, 0)
    assert [context["message"] for context in told] == ["protocol.overload_reply failed"]
    assert told[0]["protocol"] is protocol
    await protocol.until_bytes(4)
    await end(server, clients)


async def test_a_property_that_closes_its_connection_turns_nobody_away(loop):
    class Closing(Telling):
        @property
        def overload_reply(self):
            if self.transport is not None:
                self.transport.abort()
            return REPLY

    protocol = Closing()
    server, clients = await full(loop, protocol)
    clients[1].sendall(b"request")
    await until(lambda: "lost" in protocol.events)
    assert native_core(loop).shed_unread_count == 0
    await end(server, clients)


async def test_one_that_was_reset_meanwhile_is_only_closed(loop):
    protocol = Telling()
    server, clients = await full(loop, protocol)
    clients[1].sendall(b"request")
    reset(clients[1])
    await until(lambda: "lost" in protocol.events)
    assert (protocol.data, native_core(loop).shed_unread_count) == (b"", 0)
    await end(server, clients)


async def test_what_is_written_before_goes_out_before_the_answer(loop):
    protocol = Telling()
    server, clients = await full(loop, protocol)
    protocol.transport.write(b"the former answer, ")
    protocol.transport.write(b"all of it; ")
    clients[1].sendall(b"request")
    assert await read_all(loop, clients[1]) == b"the former answer, all of it; " + REPLY
    await end(server, clients)


def test_the_oldest_is_read_first_until_it_has_waited_too_long(loop, run):
    async def main(defer_ns):
        order = []
        protocols = [Noting(order) for _ in range(4)]
        server, clients = await accepted(loop, *protocols)
        await behind(loop, defer_ns)
        await send_to_be_held(loop, *clients)
        for protocol in protocols:
            await protocol.until_bytes(4)
        await end(server, clients)
        return [protocols.index(protocol) for protocol in order]

    assert run(main(HOUR_NS)) == [0, 1, 2, 3]
    assert run(main(1)) == [3, 2, 1, 0]


async def test_who_has_waited_far_too_long_is_told_at_last(loop):
    protocols = [Telling() for _ in range(4)]
    server, clients = await accepted(loop, *protocols)
    await behind(loop, defer_ns=HOUR_NS)
    await send_to_be_held(loop, *clients)
    protocols[1].transport.write(b"a former answer; ")
    await behind(loop, defer_ns=1)
    replies = [await read_all(loop, client) for client in clients]
    assert replies == [REPLY, b"a former answer; " + REPLY, REPLY, REPLY]
    assert [protocol.data for protocol in protocols] == [b""] * 4
    assert (native_core(loop).shed_unread_count, len(native_core(loop).deferred_reads)) == (4, 0)
    await end(server, clients)


async def test_who_has_waited_too_long_and_cannot_be_told_is_held_on_and_read(loop):
    protocols = [Telling(), Noting(), Telling()]
    server, clients = await accepted(loop, *protocols)
    await behind(loop, defer_ns=HOUR_NS)
    await send_to_be_held(loop, *clients)
    await behind(loop, defer_ns=1)
    assert await read_all(loop, clients[0]) == REPLY
    assert [client for client, _ in native_core(loop).deferred_reads.snapshot()] == [
        protocols[2].transport,
        protocols[1].transport,
    ]
    for protocol in protocols[1:]:
        await protocol.until_bytes(4)
    await end(server, clients)


async def test_without_a_bound_nobody_is_turned_away(loop):
    first, second = Telling(), Telling()
    server, clients = await accepted(loop, first, second)
    await behind(loop, defer_ns=0)
    await send_to_be_held(loop, *clients)
    assert (len(native_core(loop).deferred_reads), native_core(loop).shed_unread_count) == (2, 0)
    await end(server, clients)


# --- before there is a protocol


async def full_of_parked(loop, make):
    """A server that knows its answer, whose loop is behind; another's connection is held for too long already."""
    other, clients = await accepted(loop, Noting())
    native_core(loop).watch_lag(Lag(high_ns=HOUR_NS, low_ns=HOUR_NS, for_ns=HOUR_NS))
    server = await loop.create_server(make, "127.0.0.1", 0)
    known = connect(server, b"")
    await make.until_made(1)
    await behind(loop, defer_ns=1)
    await hold_too_long(loop, clients[0])
    return server, [known, *clients], other


def connect(server, data=b"request"):
    client = socket.create_connection(server.sockets[0].getsockname())
    if data:
        client.sendall(data)
    return client


async def test_a_connection_beyond_the_line_is_answered_before_anything_is_made_of_it(loop):
    make = MadeTelling()
    server, clients, other = await full_of_parked(loop, make)
    made = len(make.protocols)
    clients.append(connect(server))
    assert await read_all(loop, clients[-1]) == REPLY
    assert (len(make.protocols), native_core(loop).shed_unread_count, native_core(loop).deferred_accepts.abandoned) == (
        made,
        1,
        0,
    )
    await end(server, clients)
    await end(other)


async def test_who_was_silent_at_a_full_line_is_served_when_there_is_no_answer_any_more(loop):
    class Mute(Telling):
        reply = None

    class MadeMute(Made):
        def __call__(self):
            self.protocols.append((Mute if self.protocols else Telling)(self.order))
            return self.protocols[-1]

    make = MadeMute()
    server, clients, other = await full_of_parked(loop, make)
    clients += [connect(server, b"") for _ in range(4)]
    await until(lambda: len(native_core(loop).deferred_accepts) == 4)
    # nothing is ready for a while: the newest is let in, and its protocol has no answer
    while len(make.protocols) < 2:
        await asyncio.sleep(0.001)
    for client in clients[2:]:
        client.sendall(b"late")
    for protocol in make.protocols[1:]:
        await protocol.until_bytes(4)
    assert native_core(loop).shed_unread_count == 0
    await end(server, clients)
    await end(other)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("level", ["off", "time"])
async def test_who_comes_in_the_middle_of_a_long_turn_is_told_in_that_turn(loop, level, debug):
    make = MadeTelling()
    server, clients, other = await full_of_parked(loop, make)
    loop.slow_callback_duration = HOUR_NS / 1e9
    loop.set_debug(debug)
    native_core(loop).probe.set_level({"off": 0, "time": 2}[level])
    told = []

    def come():
        clients.append(connect(server))
        clients[0].sendall(b"request")
        time.sleep(0.0015)

    def look():
        for client in (clients[0], clients[-1]):
            client.setblocking(False)
            told.append(client.recv(100))

    loop.call_soon(come)
    loop.call_soon(look)
    await until(lambda: told)
    assert told == [REPLY, REPLY], "the one that was there, and the new one"
    loop.set_debug(False)
    await end(server, clients)
    await end(other)


async def test_one_that_has_sent_nothing_yet_is_answered_once_it_has(loop):
    make = MadeTelling()
    server, clients, other = await full_of_parked(loop, make)
    made, before = len(make.protocols), native_core(loop).deferred_accepts.total
    clients.append(connect(server, b""))
    await until(lambda: native_core(loop).deferred_accepts.total > before)
    assert native_core(loop).shed_unread_count == 0
    clients[-1].sendall(b"request")
    assert await read_all(loop, clients[-1]) == REPLY
    assert (len(make.protocols), native_core(loop).shed_unread_count, native_core(loop).deferred_accepts.shed) == (
        made,
        1,
        1,
    )
    await end(server, clients)
    await end(other)


async def parked_with_an_answer(loop, make, count):
    """A server of a loop that is behind, the connection that it knows its answer by, and parked connections."""
    server = await loop.create_server(make, "127.0.0.1", 0)
    await behind(loop)
    known = connect(server)
    await make.until_made(1)
    for _ in range(3):
        await asyncio.sleep(0)
    return server, known, await park(loop, server, count)


async def test_parked_ones_that_have_waited_far_too_long_are_told(loop):
    make = MadeTelling()
    server, known, clients = await parked_with_an_answer(loop, make, 3)
    made = len(make.protocols)
    await behind(loop, defer_ns=1)
    assert [await read_all(loop, client) for client in clients] == [REPLY] * 3
    assert (len(make.protocols), native_core(loop).deferred_accepts.shed, len(native_core(loop).deferred_accepts)) == (
        made,
        3,
        0,
    )
    await end(server, [known, *clients])


async def test_one_that_finds_a_place_after_all_is_served(loop):
    make = MadeTelling()
    server, clients, other = await full_of_parked(loop, make)
    before = native_core(loop).deferred_accepts.total
    clients.append(connect(server, b""))
    await until(lambda: native_core(loop).deferred_accepts.total > before)
    native_core(loop).watch_lag(None)
    clients[-1].sendall(b"request")
    await make.until_made(2)
    await make.protocols[1].until_bytes(7)
    assert native_core(loop).shed_unread_count == 0
    await end(server, clients)
    await end(other)


async def test_one_that_resets_before_it_is_answered_is_only_closed(loop):
    make = MadeTelling()
    server, clients, other = await full_of_parked(loop, make)
    client = connect(server, b"")
    reset(client)
    left = native_core(loop).deferred_accepts.abandoned
    clients.append(connect(server))
    assert await read_all(loop, clients[-1]) == REPLY
    assert (native_core(loop).shed_unread_count, native_core(loop).deferred_accepts.abandoned - left) == (1, 0)
    await end(server, clients)
    await end(other)


async def test_a_thousand_are_turned_away_and_their_descriptors_given_back(loop):
    make = MadeTelling()
    server, clients, other = await full_of_parked(loop, make)
    before, made = descriptors(), len(make.protocols)
    for _ in range(1000):
        client = connect(server)
        assert await read_all(loop, client) == REPLY
        client.close()
    assert (native_core(loop).shed_unread_count, len(make.protocols)) == (1000, made)
    await until(lambda: not native_core(loop).sheds.lingering.count)
    # those that linger have an epoll set
    assert descriptors() <= before + 1
    await end(server, clients)
    await end(other)


async def test_a_server_whose_protocols_have_no_answer_parks_all(loop):
    server = await loop.create_server(Recorder, "127.0.0.1", 0)
    await behind(loop, defer_ns=1)
    clients = await park(loop, server, 3)
    assert (len(native_core(loop).deferred_accepts), native_core(loop).shed_unread_count) == (3, 0)
    await end(server, clients)


async def park_numbered(loop, server, numbers):
    clients = []
    for number in numbers:
        clients += await park(loop, server, 1, b"%3d" % number)
    return clients


async def test_parked_from_both_ends_are_all_let_in_once(loop):
    """Oldest first, then as newest: the list wraps, grows and shrinks, and nobody is lost or let in twice."""

    made = []

    def make():
        made.append(Recorder())
        return made[-1]

    server = await loop.create_server(make, "127.0.0.1", 0)
    await behind(loop)
    clients = await park_numbered(loop, server, range(70))
    while len(made) < 40:
        await asyncio.sleep(0.0001)
    clients += await park_numbered(loop, server, range(70, 150))
    native_core(loop).watch_lag(Lag(high_ns=1, low_ns=1, for_ns=HOUR_NS), arrived_at)
    while len(made) < 150:
        await asyncio.sleep(0.0001)
    for protocol in made:
        await protocol.until_bytes(3)
    numbers = [int(protocol.data) for protocol in made]
    assert (numbers[:40], sorted(numbers)) == (list(range(40)), list(range(150)))
    assert numbers[-1] < numbers[-2], "the newest first, in the end"
    await end(server, clients)


async def test_a_tls_client_is_closed_without_an_answer(loop, contexts):
    """An answer in plain text would be no TLS, and one in TLS would take a handshake."""
    held, clients = await accepted(loop, Noting())
    server = await loop.create_server(Telling, "127.0.0.1", 0, ssl=contexts[0])
    client = socket.create_connection(server.sockets[0].getsockname())
    await until(lambda: connection_count(server) == 1)
    await behind(loop, defer_ns=1)
    await hold_too_long(loop, clients[0])
    client.sendall(b"\x16\x03\x01")
    assert await read_all(loop, client) == b""
    assert native_core(loop).shed_unread_count == 1
    server.close()
    client.close()
    await end(held, clients)
