"""Deferred connections at the end of their server or service: a drain serves them, else they are closed."""

import asyncio
import socket
import sys

import pytest

from penstock.loop.native import native_core
from penstock.loop.servers import connection_count
from tests.unit.core.test_holding import end
from tests.unit.core.test_parking import Made, begin, no_descriptor_is_left, park, serving
from tests.unit.runtime.child import TERM, Child

__all__ = ["no_descriptor_is_left"]

PROGRAM = """
import asyncio, penstock
from penstock.loop.native import native_core
from penstock._core.overload.lag import Lag

async def serve(reader, writer):
    writer.write(await reader.readline())
    writer.close()

async def main():
    loop, spins = asyncio.get_running_loop(), True
    def drains(loop):
        nonlocal spins
        spins = {spins}
        print("drains", len(native_core(loop).deferred_accepts))
    loop.add_drain_hook(drains)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    # behind whenever anything has been ready for a nanosecond
    native_core(loop).watch_lag(Lag(high_ns=1, low_ns=1, for_ns=10**13))
    print("port", server.sockets[0].getsockname()[1])
    while len(native_core(loop).deferred_accepts) < 2:
        await asyncio.sleep(0)
    print("ready")
    while spins:
        await asyncio.sleep(0)
    await asyncio.Event().wait()

penstock.run(main(), config=penstock.Config(signals=penstock.SignalsConfig(drain_s={drain_s})))
"""


def reset(client):
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio's servers have it from 3.13 on")
@pytest.mark.parametrize("how", ["abort_clients", "close_clients"])
async def test_a_server_that_ends_its_clients_ends_those_that_are_parked_and_serves_on(loop, how):
    make = Made()
    server, clients = await begin(loop, make, 2)
    getattr(server, how)()
    assert (len(native_core(loop).deferred_accepts), connection_count(server), make.protocols) == (0, 0, [])
    for client in clients:
        reset(client)
    assert server.is_accepting()
    clients += await park(loop, server)
    await make.until_made(1)
    await make.protocols[0].until_bytes(4)
    await end(server, clients)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio's servers have it from 3.13 on")
async def test_a_full_server_whose_parked_clients_are_ended_accepts_again(loop):
    make = Made()
    server = await serving(loop, make)
    server.max_connections = 2
    clients = await park(loop, server, 2)
    assert not server.is_accepting()
    server.abort_clients()
    assert server.is_accepting()
    await end(server, clients)


async def test_a_closed_server_waits_for_whom_it_serves_and_not_for_those_that_are_parked(loop):
    make = Made()
    server = await serving(loop, make)
    clients = await park(loop, server)
    await make.until_made(1)
    await make.protocols[0].until_event("made")
    clients += await park(loop, server, 2)
    server.close()
    waiting = asyncio.ensure_future(server.wait_closed())
    for client in clients[1:]:
        reset(client)
    clients[0].close()
    await make.protocols[0].until_event("lost")
    await waiting
    assert (len(make.protocols), connection_count(server), len(native_core(loop).deferred_accepts)) == (1, 0, 0)
    for client in clients:
        client.close()


@pytest.mark.parametrize("how", ["is served by a drain", "is closed when the time for it is up"])
def test_who_is_parked_when_a_signal_comes(how):
    is_served = how == "is served by a drain"
    with Child(PROGRAM.format(spins=not is_served, drain_s=10 if is_served else 0.2)) as child:
        address = "127.0.0.1", int(child.expect("port").split()[1])
        with socket.create_connection(address, 20) as one, socket.create_connection(address, 20) as two:
            for client in (one, two):
                client.sendall(b"asked\n")
            child.expect("ready")
            child.send(TERM)
            child.expect("drains 2")
            for client in (one, two):
                if is_served:
                    assert client.makefile("rb").read() == b"asked\n"
                else:
                    reset(client)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, 20)
        assert child.ended().returncode == 143
