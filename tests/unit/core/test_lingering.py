"""Clients that send more than was read before they were answered read the answer, and no reset. Real sockets."""

import asyncio
import gc
import os
import socket
import weakref

import pytest

from penstock._core.net import listen
from penstock._core.overload.lag import Lag
from penstock.loop import EventLoop
from penstock.loop.native import native_core
from tests.loop.test_servers import no_more_descriptors
from tests.loop.wire import Recorder
from tests.unit.core.test_holding import HOUR_NS, Noting, accepted, end, until, watch
from tests.unit.core.test_parking import no_descriptor_is_left
from tests.unit.core.test_turning_away import (
    REPLY,
    MadeTelling,
    Telling,
    behind,
    connect,
    full,
    full_of_parked,
    hold_too_long,
    parked_with_an_answer,
)

__all__ = ["no_descriptor_is_left"]

MEGABYTE = 1024 * 1024
MS = 1_000_000


def upload(client, size_bytes=MEGABYTE):
    """Return the response to a client that sends its whole request before it reads, in a thread."""
    client.setblocking(True)
    client.settimeout(20)
    client.sendall(bytes(size_bytes))
    got = b""
    while piece := client.recv(65536):
        got += piece
    client.close()
    return got


async def uploaded(loop, *clients):
    """The same of several, each in a thread; something is always ready meanwhile."""
    tasks = [loop.run_in_executor(None, upload, client) for client in clients]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
    return [task.result() for task in tasks]


async def no_more(loop):
    await until(lambda: not native_core(loop).sheds.lingering.count)


async def test_a_connection_that_is_turned_away_while_it_sends_a_megabyte_reads_its_answer(loop):
    protocols = [Telling() for _ in range(4)]
    server, clients = await full(loop, *protocols)
    assert await uploaded(loop, *clients[1:]) == [REPLY] * 4
    assert native_core(loop).shed_unread_count == 4
    await no_more(loop)
    await end(server, clients)


async def test_so_does_a_new_one_at_a_full_line(loop):
    server, clients, other = await full_of_parked(loop, MadeTelling())
    assert await uploaded(loop, *[connect(server) for _ in range(8)]) == [REPLY] * 8
    assert (native_core(loop).shed_unread_count, native_core(loop).deferred_accepts.total) == (8, 0)
    await no_more(loop)
    await end(server, clients)
    await end(other)


async def test_so_does_one_that_was_silent_when_it_came(loop):
    server, clients, other = await full_of_parked(loop, MadeTelling())
    late = connect(server, b"")
    await until(lambda: native_core(loop).deferred_accepts.total)
    assert await uploaded(loop, late) == [REPLY]
    assert native_core(loop).deferred_accepts.shed == 1
    await no_more(loop)
    await end(server, clients)
    await end(other)


async def test_so_do_parked_ones_that_have_waited_too_long(loop):
    server, known, clients = await parked_with_an_answer(loop, MadeTelling(), 3)
    await behind(loop, defer_ns=1)
    assert await uploaded(loop, *clients) == [REPLY] * 3
    await no_more(loop)
    await end(server, [known])


async def lingering(loop, *, most=None, linger_ns=None):
    """A server whose loop is calm, one connection of which was answered for the last time, and its client."""
    if most is not None:
        native_core(loop).sheds.lingering.most = most
    if linger_ns is not None:
        native_core(loop).sheds.lingering.linger_ns = linger_ns
    protocols = [Recorder(loop) for _ in range(3)]
    server, clients = await accepted(loop, *protocols)
    for protocol in protocols:
        protocol.transport.write(REPLY)
        protocol.transport.linger()
        protocol.transport.close()
    for protocol in protocols:
        await protocol.until_event("lost")
    return server, clients, protocols


async def test_its_protocol_has_lost_a_lingering_connection_already(loop):
    server, clients, protocols = await lingering(loop)
    assert [protocol.error for protocol in protocols] == [None] * 3
    assert (native_core(loop).sheds.lingering.count, server.sockets[0].fileno() in native_core(loop).sources()) == (
        3,
        True,
    )
    assert [await loop.run_in_executor(None, upload, client) for client in clients] == [REPLY] * 3
    await no_more(loop)
    assert (native_core(loop).sheds.lingering.total, native_core(loop).sheds.lingering.cut) == (3, 0)
    await end(server, clients)


async def test_one_whose_client_has_ended_already_does_not_linger(loop):
    server, clients = await accepted(loop, Noting())
    (protocol,) = [source._protocol for source in native_core(loop).sources().values() if hasattr(source, "_protocol")]
    protocol.transport.pause_reading()
    clients[0].shutdown(socket.SHUT_WR)
    protocol.transport.linger()
    protocol.transport.close()
    await until(lambda: "lost" in protocol.events)
    assert native_core(loop).sheds.lingering.total == 0
    await end(server, clients)


async def test_a_client_that_does_not_end_is_closed_in_time_although_nothing_else_wakes_the_loop(loop):
    server, clients, _ = await lingering(loop, linger_ns=30 * MS)
    began_s = loop.time()
    ended = loop.create_future()
    loop.add_reader(clients[0], lambda: ended.done() or ended.set_result(clients[0].recv(100)))
    assert await ended == REPLY
    loop.remove_reader(clients[0])
    while native_core(loop).sheds.lingering.count:
        await asyncio.sleep(0.005)
    assert loop.time() - began_s >= 0.02
    assert native_core(loop).sheds.lingering.cut == 3
    await end(server, clients)


async def test_beyond_the_bound_the_oldest_is_closed(loop):
    server, clients, _ = await lingering(loop, most=2)
    assert (
        native_core(loop).sheds.lingering.count,
        native_core(loop).sheds.lingering.total,
        native_core(loop).sheds.lingering.cut,
    ) == (2, 3, 1)
    assert [await loop.run_in_executor(None, upload, client) for client in clients[1:]] == [REPLY] * 2
    await no_more(loop)
    await end(server, clients)


async def test_the_bound_cannot_change_once_one_has_lingered(loop):
    server, clients, _ = await lingering(loop)
    with pytest.raises(ValueError, match="before the first"):
        native_core(loop).sheds.lingering.most = 100_000
    with pytest.raises(ValueError, match="1 or more"):
        native_core(loop).sheds.lingering.most = 0
    await end(server, clients)


async def test_who_sends_without_end_is_cut(loop):
    server, clients, _ = await lingering(loop)

    def flood():
        with pytest.raises(ConnectionError):
            upload(clients[0], 100 * MEGABYTE)

    await loop.run_in_executor(None, flood)
    assert native_core(loop).sheds.lingering.cut == 1
    await end(server, clients)


async def test_an_abort_does_not_linger(loop):
    protocol = Recorder(loop)
    server, clients = await accepted(loop, protocol)
    clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    protocol.transport.write(bytes(8 * MEGABYTE))
    protocol.transport.linger()
    protocol.transport.close()
    protocol.transport.abort()
    await protocol.until_event("lost")
    assert native_core(loop).sheds.lingering.total == 0
    await end(server, clients)


@pytest.mark.parametrize("asks_for_socket", [False, True])
async def test_what_is_queued_goes_out_before_it_lingers(loop, asks_for_socket):
    protocol = Recorder(loop)
    server, clients = await accepted(loop, protocol)
    if asks_for_socket:
        protocol.transport.get_extra_info("socket")
    protocol.transport.write(bytes(8 * MEGABYTE))
    protocol.transport.linger()
    protocol.transport.close()
    got = await loop.run_in_executor(None, upload, clients[0])
    assert len(got) == 8 * MEGABYTE
    await no_more(loop)
    assert native_core(loop).sheds.lingering.total == 1
    await end(server, clients)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # from 3.15 on it is raised before the fork
async def test_a_forked_child_ends_none_of_its_parents(loop):
    server, clients, _ = await lingering(loop)
    child = os.fork()
    if child == 0:
        native_core(loop).sheds.lingering.__class__  # noqa: B018 - the child has the parent's object
        native_core(loop).dispose()
        os._exit(0)
    os.waitpid(child, 0)
    assert native_core(loop).sheds.lingering.count == 3
    assert [await loop.run_in_executor(None, upload, client) for client in clients] == [REPLY] * 3
    await no_more(loop)
    await end(server, clients)


def test_a_closed_loop_keeps_none(loop, run):
    async def main():
        return await lingering(loop)

    server, clients, _ = run(main())
    assert native_core(loop).sheds.lingering.count == 3
    server.close()
    for client in clients:
        client.close()


def test_where_descriptors_run_out_they_make_room_for_the_next_client_at_once(loop, run, monkeypatch):
    monkeypatch.setattr(listen, "ACCEPT_RETRY_DELAY", 3600.0)
    told = []

    async def main():
        protocols = [Recorder(loop) for _ in range(4)]
        server = await loop.create_server(iter(protocols).__next__, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        watch(loop)
        loop.set_exception_handler(lambda loop, context: told.append(context["message"]))
        clients = [socket.create_connection(address) for _ in range(3)]
        for protocol in protocols[:3]:
            await protocol.until_event("made")
            protocol.transport.linger()
            protocol.transport.close()
        await until(lambda: native_core(loop).sheds.lingering.count == 3)
        clients.append(socket.socket())
        with no_more_descriptors():
            clients[-1].connect(address)
            await protocols[3].until_event("made")
            assert (native_core(loop).sheds.lingering.count, native_core(loop).sheds.lingering.cut) == (0, 3)
        native_core(loop).watch_lag(None)
        await end(server, clients)

    run(main())
    assert told == ["socket.accept() out of system resource"]


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_a_loop_dropped_with_lingering_connections_is_collected():
    def leave():
        loop = EventLoop()
        server, clients, _ = loop.run_until_complete(lingering(loop))
        assert native_core(loop).sheds.lingering.count == 3
        server.close()
        loop.run_until_complete(server.wait_closed())
        for client in clients:
            client.close()
        return weakref.ref(loop)

    weak = leave()
    gc.collect()
    assert weak() is None


async def test_each_client_is_told_another_one_of_several_answers(loop):
    replies = b"1", b"2", b"3"

    class Several(Telling):
        reply = replies

    class MadeSeveral(MadeTelling):
        def __call__(self):
            self.protocols.append(Several(self.order))
            return self.protocols[-1]

    server, clients, other = await full_of_parked(loop, MadeSeveral())
    told = await uploaded(loop, *[connect(server) for _ in range(9)])
    assert set(told) == set(replies)
    server_of_held, held = await accepted(loop, *[Several() for _ in range(3)])
    await end(server, clients)
    await end(server_of_held, held)
    await end(other)


@pytest.mark.parametrize("reply", [(), ("text",), (b"1", None)])
async def test_answers_that_are_no_bytes_are_told_to_the_exception_handler(loop, reply):
    told = []
    loop.set_exception_handler(lambda loop, context: told.append(context))
    protocol = type("Wrong", (Telling,), {"reply": reply})()
    server, clients = await accepted(loop, Noting(), protocol)
    native_core(loop).watch_lag(Lag(high_ns=1, low_ns=1, for_ns=HOUR_NS, defer_ns=1))
    for _ in range(3):
        await asyncio.sleep(0)
    await hold_too_long(loop, clients[0])
    told.clear()
    clients[1].sendall(b"data")
    await until(lambda: len(native_core(loop).deferred_reads) == 2)
    assert native_core(loop).shed_unread_count == 0
    assert [type(context["exception"]) for context in told] == ([] if reply == () else [TypeError])
    await protocol.until_bytes(4)
    await end(server, clients)
