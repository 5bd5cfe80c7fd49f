"""Requests for urgent paths pass the line of a loop that is behind, over real sockets."""

import socket

import pytest

from penstock._core.overload.urgent import UrgentRequests
from penstock.loop.native import native_core
from tests.support.waiting import turns
from tests.unit.core.test_holding import Noting, accepted, end, send_to_be_held, until, watch
from tests.unit.core.test_parking import Made, no_descriptor_is_left, park, serving
from tests.unit.core.test_turning_away import MadeTelling, Telling, full, read_all

__all__ = ["no_descriptor_is_left"]

CHECK = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
BURST = 20


def urgent():
    return UrgentRequests([b"/healthz", b"/health"])


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (CHECK, True),
        (b"HEAD /healthz?full=1 HTTP/1.1\r\n", True),
        (b"GET /health HTTP/1.0\r\n", True),
        (b"POST /healthz HTTP/1.1\r\n", False),
        (b"GET /healthz/ HTTP/1.1\r\n", False),
        (b"GET /healthzz HTTP/1.1\r\n", False),
        (b"GET /shop?next=/healthz HTTP/1.1\r\n", False),
        (b"GET http://x/healthz HTTP/1.1\r\n", False),
        (b"get /healthz HTTP/1.1\r\n", False),
        (b"\x16\x03\x01\x02\x00\x01", False),
        (b"", None),
        (b"GE", None),
        (b"HEAD ", None),
        (b"GET /heal", None),
        (b"GET /healthz", None),
        (b"GETS", False),
    ],
)
def test_the_request_line_alone_tells_what_is_urgent(data, named):
    assert urgent().names_path(data) is named


def test_each_prefix_of_a_check_is_untold_until_its_path_has_ended():
    request = b"HEAD /healthz HTTP/1.1"
    told = request.index(b"HTTP")
    assert [urgent().names_path(request[:size]) for size in range(told)] == [None] * told
    assert urgent().names_path(request[:told]) is True


def test_a_burst_passes_and_no_more_than_the_bound_of_a_second():
    checks = urgent()
    assert [checks.take() for _ in range(BURST)] == [True] * BURST
    # the clock is the machine's: at a hundred a second, at most a few more come while this runs
    later = sum(checks.take() for _ in range(10_000))
    assert later < 10_000 // 2
    assert checks.admitted == BURST + later


@pytest.mark.parametrize("path", [b"healthz", "/healthz", b"/" + bytes(200)])
def test_what_is_no_path_is_an_error(path):
    with pytest.raises(ValueError, match="a path is bytes from / on"):
        UrgentRequests([path])


async def test_a_new_connection_with_an_urgent_request_is_read_before_all_that_wait(loop):
    make = Made()
    server = await serving(loop, make)
    native_core(loop).deferred_accepts.urgent = urgent()
    clients = await park(loop, server, 3)
    clients.append(socket.create_connection(server.sockets[0].getsockname()))
    clients[-1].sendall(CHECK)
    await until(lambda: make.protocols and make.protocols[0].data)
    assert (len(make.protocols), make.protocols[0].data, len(native_core(loop).deferred_accepts)) == (1, CHECK, 3)
    await end(server, clients)


async def test_a_parked_connection_is_let_in_when_its_urgent_request_comes(loop):
    """As a probe does: the connection first, the request a moment later, here in two pieces."""

    make = Made()
    server = await serving(loop, make)
    native_core(loop).deferred_accepts.urgent = urgent()
    clients = await park(loop, server, 3)
    clients += await park(loop, server, 1, data=b"")
    clients[-1].sendall(CHECK[:7])
    before = loop.time()
    await until(lambda: loop.time() > before + 0.03)
    assert (make.protocols, len(native_core(loop).deferred_accepts)) == ([], 4)
    clients[-1].sendall(CHECK[7:])
    await until(lambda: make.protocols and make.protocols[0].data)
    assert (make.protocols[0].data, len(make.protocols), len(native_core(loop).deferred_accepts)) == (CHECK, 1, 3)
    # the others are as they were, in their order
    await make.until_made(4)
    await end(server, clients)


async def test_an_urgent_request_found_by_another_look_is_let_in_by_the_next_turn(loop):
    """The gate of the loop looks for clients that have left; no health check that it finds may be turned away."""

    make = Made()
    server = await serving(loop, make)
    native_core(loop).deferred_accepts.urgent = urgent()
    clients = await park(loop, server, 3)
    clients += await park(loop, server, 1, data=b"")
    clients[-1].sendall(CHECK)
    assert native_core(loop).close_abandoned(1_000_000_000) == 0
    await turns(2)
    assert (len(make.protocols), len(native_core(loop).deferred_accepts)) == (1, 3)
    await end(server, clients)


async def held_beside_a_check(loop):
    """Connect two clients, and have the first one's request held; return their protocols after them."""
    slow, check = Noting(), Noting()
    server, clients = await accepted(loop, slow, check)
    native_core(loop).deferred_accepts.urgent = urgent()
    watch(loop)
    await turns(3)
    await send_to_be_held(loop, clients[0])
    return server, clients, slow, check


async def test_an_urgent_request_on_a_kept_connection_is_not_held(loop):
    server, clients, slow, check = await held_beside_a_check(loop)
    clients[1].sendall(CHECK)
    await until(lambda: check.data)
    assert (check.data, slow.data, len(native_core(loop).deferred_reads)) == (CHECK, b"", 1)
    await end(server, clients)


async def test_a_held_request_that_turns_out_to_be_urgent_is_read(loop):
    server, clients, slow, check = await held_beside_a_check(loop)
    before = native_core(loop).deferred_reads.total
    clients[1].sendall(CHECK[:9])
    await until(lambda: native_core(loop).deferred_reads.total > before)
    clients[1].sendall(CHECK[9:])
    await until(lambda: check.data)
    assert (check.data, slow.data, len(native_core(loop).deferred_reads)) == (CHECK, b"", 1)
    await end(server, clients)


async def test_who_comes_to_a_full_line_with_an_urgent_request_is_served(loop):
    told, check = Telling(), Telling()
    server, clients = await full(loop, told, check)
    native_core(loop).deferred_accepts.urgent = urgent()
    clients[1].sendall(b"request")
    assert await read_all(loop, clients[1]) == Telling.reply
    clients[2].sendall(CHECK)
    await until(lambda: check.data)
    assert (check.data, native_core(loop).shed_unread_count) == (CHECK, 1)
    await end(server, clients)


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_new_connection_to_a_full_line_with_an_urgent_request_is_served(loop, at_once):
    make = MadeTelling()
    blocked, held = await full(loop)
    server = await loop.create_server(make, "127.0.0.1", 0)
    native_core(loop).deferred_accepts.urgent = urgent()
    await learn(loop, server, make)
    clients = [] if at_once else await park(loop, server, 1, data=b"")
    if at_once:
        clients.append(socket.create_connection(server.sockets[0].getsockname()))
    clients[-1].sendall(CHECK)
    await until(lambda: any(protocol.data == CHECK for protocol in make.protocols))
    assert native_core(loop).shed_unread_count == 0
    await end(server, clients)
    await end(blocked, held)


async def learn(loop, server, make):
    """One connection is made of the server's, so that it knows what those are told that it turns away."""
    made = len(make.protocols)
    client = socket.create_connection(server.sockets[0].getsockname())
    client.sendall(CHECK)
    await until(lambda: len(make.protocols) > made and make.protocols[-1].data)
    client.close()
    make.protocols[-1].data = b""


async def test_a_flood_of_urgent_requests_waits_as_any_other(loop):
    make = Made()
    server = await serving(loop, make)
    checks = urgent()
    native_core(loop).deferred_accepts.urgent = checks
    while checks.take():
        pass
    # for a hundredth of a second nothing passes
    clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(100)]
    for client in clients:
        client.sendall(CHECK)
    since_s = loop.time()
    await until(lambda: native_core(loop).deferred_accepts.total + len(make.protocols) >= 100)
    took_s = loop.time() - since_s
    assert checks.admitted <= 2 * BURST + 1 + 100 * (took_s + 1)
    assert native_core(loop).deferred_accepts.total > 0
    await end(server, clients)


async def test_a_parked_connection_whose_client_leaves_before_it_asks_is_closed(loop):
    make = Made()
    server = await serving(loop, make)
    native_core(loop).deferred_accepts.urgent = urgent()
    clients = await park(loop, server, 2, data=b"")
    before = loop.time()
    await until(lambda: loop.time() > before + 0.03)
    clients[0].close()
    await until(lambda: native_core(loop).deferred_accepts.abandoned == 1)
    assert (len(native_core(loop).deferred_accepts), make.protocols) == (1, [])
    await end(server, clients)


async def test_a_server_that_closes_while_an_urgent_request_is_let_in_leaves_nothing(loop):
    """The protocol's factory is Python's code, within the walk over what is parked."""

    server = None

    def make():
        native_core(loop).deferred_accepts.snapshot()
        server.close()
        return Noting()

    server = await serving(loop, make)
    native_core(loop).deferred_accepts.urgent = urgent()
    clients = await park(loop, server, 4, data=b"")
    for client in clients[1:3]:
        client.sendall(CHECK)
    await until(lambda: not len(native_core(loop).deferred_accepts))
    await end(server, clients)


async def test_without_urgent_paths_a_check_waits_as_any_other(loop):
    make = Made()
    server = await serving(loop, make)
    clients = await park(loop, server, 1, data=CHECK)
    await turns(50)
    assert (make.protocols, len(native_core(loop).deferred_accepts)) == ([], 1)
    await end(server, clients)
