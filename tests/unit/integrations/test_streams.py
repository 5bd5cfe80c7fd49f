"""start_server with a gate, over real sockets: served clients, shed clients, and no task for these."""

import asyncio
import math

import pytest

from penstock.integrations.streams import Handling, start_server, start_unix_server
from penstock.pressure.admission.gate import Gate
from penstock.pressure.overload.sheds import all_sheds
from tests.support.waiting import until

REFUSAL = b"busy\n"


class Shop:
    """A handler that greets, and keeps each client until it has sent a line or disconnected."""

    def __init__(self):
        self.served = 0
        self.tasks = set()

    async def __call__(self, reader, writer):
        self.served += 1
        self.tasks.add(asyncio.current_task())
        writer.write(b"hello\n")
        await reader.readline()
        writer.close()


class Client:
    """A connection to the server."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, server):
        return cls(*await asyncio.open_connection(*server.sockets[0].getsockname()[:2]))

    async def hears(self):
        return await self.reader.readline()

    async def ends(self):
        self.writer.write(b"bye\n")
        rest = await self.reader.read()
        self.writer.close()
        return rest


def counts(gate):
    """Return the number of sheds by reason, without zeros."""
    return {reason: count for reason, count in gate.statistics().sheds.items() if count}


async def test_a_connection_beyond_the_most_is_sent_the_refusal_and_closed():
    shop = Shop()
    server = await start_server(shop, "127.0.0.1", 0, max_connections=2, refusal=REFUSAL)
    async with server:
        clients = [await Client.of(server) for _ in range(2)]
        assert [await client.hears() for client in clients] == [b"hello\n"] * 2
        before = len(asyncio.all_tasks())
        before_sheds = all_sheds()
        refused = await Client.of(server)
        assert await refused.reader.read() == REFUSAL
        assert len(asyncio.all_tasks()) == before and shop.served == 2
        assert all_sheds() - before_sheds == {("connections", "limit"): 1}
        refused.writer.close()
        await clients[0].ends()
        await until(lambda: sum(not task.done() for task in shop.tasks) == 1)
        again = await Client.of(server)
        assert await again.hears() == b"hello\n"
        for client in (clients[1], again):
            await client.ends()


async def test_what_the_gate_refuses_is_sent_the_refusal_and_has_no_task():
    shop, gate = Shop(), Gate(1, max_wait_s=0)
    async with await start_server(shop, "127.0.0.1", 0, gate=gate, refusal=REFUSAL) as server:
        client = await Client.of(server)
        assert await client.hears() == b"hello\n"
        before = len(asyncio.all_tasks())
        refused = await Client.of(server)
        assert await refused.reader.read() == REFUSAL
        assert len(asyncio.all_tasks()) == before
        refused.writer.close()
        await client.ends()
        await until(lambda: gate.statistics().inflight == 0)
        assert counts(gate) == {"limit": 1}


async def test_a_connection_that_waits_for_its_permit_is_served_in_its_turn():
    shop, gate = Shop(), Gate(1, max_wait_s=math.inf)
    async with await start_server(shop, "127.0.0.1", 0, gate=gate) as server:
        first = await Client.of(server)
        assert await first.hears() == b"hello\n"
        second = await Client.of(server)
        await until(lambda: gate.statistics().queued == 1)
        await first.ends()
        assert await second.hears() == b"hello\n"
        await second.ends()
        await until(lambda: gate.statistics().inflight == 0)


async def test_a_client_that_leaves_while_it_waits_is_not_served():
    shop, gate = Shop(), Gate(1, max_wait_s=math.inf)
    async with await start_server(shop, "127.0.0.1", 0, gate=gate) as server:
        first = await Client.of(server)
        assert await first.hears() == b"hello\n"
        second = await Client.of(server)
        await until(lambda: gate.statistics().queued == 1)
        second.writer.close()
        await second.writer.wait_closed()
        await first.ends()
        await until(lambda: (gate.statistics().inflight, gate.statistics().queued) == (0, 0))
        assert shop.served == 1


async def test_one_that_waited_too_long_is_sent_the_refusal():
    gate = Gate(1, max_wait_s=0.01)
    async with await start_server(Shop(), "127.0.0.1", 0, gate=gate, refusal=REFUSAL) as server:
        first = await Client.of(server)
        assert await first.hears() == b"hello\n"
        second = await Client.of(server)
        assert await second.reader.read() == REFUSAL
        second.writer.close()
        await first.ends()


async def test_a_unix_socket_has_the_same_door(tmp_path):
    path = str(tmp_path / "x.sock")
    async with await start_unix_server(Shop(), path, max_connections=1, refusal=REFUSAL):
        first = Client(*await asyncio.open_unix_connection(path))
        assert await first.hears() == b"hello\n"
        second = Client(*await asyncio.open_unix_connection(path))
        assert await second.reader.read() == REFUSAL
        second.writer.close()
        await first.ends()


async def test_a_failing_handler_gives_its_permit_back():
    async def broken(reader, writer):
        writer.close()
        raise ZeroDivisionError

    gate, told = Gate(1, max_wait_s=0), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with await start_server(broken, "127.0.0.1", 0, gate=gate) as server:
        client = await Client.of(server)
        assert await client.reader.read() == b""
        client.writer.close()
        await until(lambda: gate.statistics().inflight == 0)


@pytest.mark.parametrize("end", ["cancel", "close", "run"])
def test_a_handler_that_never_takes_its_first_step_gives_back_what_it_holds(run, end):
    given_back = []

    async def body():
        given_back.append("by itself")

    async def main():
        handling = Handling(body(), lambda: given_back.append("for it"))
        if end == "close":
            handling.close()
            return
        task = asyncio.ensure_future(handling)
        if end == "cancel":
            task.cancel()
        await asyncio.wait([task])

    run(main())
    assert given_back == ["by itself" if end == "run" else "for it"]


def test_no_connection_at_all_is_not_a_bound():
    with pytest.raises(ValueError, match="max_connections=0"):
        asyncio.run(start_server(Shop(), max_connections=0))
