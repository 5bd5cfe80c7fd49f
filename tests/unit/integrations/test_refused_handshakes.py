"""Shed and disconnected WebSockets log no ERROR, with each of uvicorn's protocols. Real sockets."""

import asyncio
import logging
import math

import pytest

from tests.support.waiting import until

pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

from penstock.integrations.uvicorn.shedding import complete_handshakes
from penstock.pressure.admission.gate import Gate
from tests.unit.integrations.test_admission_served import Served

UPGRADE = (
    b"GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
# the older protocol is on what websockets calls legacy
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*implementation is deprecated")

LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "websockets", "websockets.server", "asyncio")
both_protocols = pytest.mark.parametrize("ws", ["websockets", "websockets-sansio"])


@pytest.fixture
def told(caplog):
    """Return `told()`, the records from WARNING on, also of loggers that do not propagate."""
    kept = {name: logging.getLogger(name).propagate for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).addHandler(caplog.handler)
        logging.getLogger(name).propagate = False
    yield lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    for name, propagates in kept.items():
        logging.getLogger(name).removeHandler(caplog.handler)
        logging.getLogger(name).propagate = propagates


class Chatting(Served):
    """uvicorn with one of its protocols on websockets; one client is admitted, and the gate is full."""

    def __init__(self, gate, ws):
        super().__init__(gate, websockets="connection", ws=ws)
        config = self.server.config
        config.load()
        complete_handshakes(config)

    async def __aenter__(self):
        await super().__aenter__()
        self.reader, self.writer = await self.upgrade()
        assert (await self.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        return self

    async def __aexit__(self, *error):
        self.writer.close()
        await until(lambda: self.gate.inflight == 0)
        await super().__aexit__(*error)

    async def upgrade(self):
        reader, writer = await self.connect()
        writer.write(UPGRADE)
        return reader, writer

    async def is_idle(self):
        """Return whether the first client's task is the only one."""
        await until(lambda: len(self.server.server_state.tasks) <= 1)


def sheds(gate):
    return {reason: count for reason, count in gate.statistics().sheds.items() if count}


@both_protocols
@pytest.mark.parametrize(("max_wait_s", "reason"), [(0, "limit"), (0.02, "expired")])
def test_a_refused_handshake_is_a_503_and_no_error(run, ws, max_wait_s, reason, told):
    async def main():
        gate = Gate(1, max_wait_s=max_wait_s)
        async with Chatting(gate, ws) as served:
            reader, writer = await served.upgrade()
            answered = await reader.read()
            assert answered.startswith(b"HTTP/1.1 503 ") and b"retry-after: " in answered.lower()
            writer.close()
            await served.is_idle()
        assert sheds(gate) == {reason: 1}

    run(main())
    assert told() == []


@both_protocols
def test_a_client_that_leaves_while_its_handshake_waits_is_no_error(run, ws, told):
    async def main():
        gate = Gate(1, max_wait_s=math.inf)
        async with Chatting(gate, ws) as served:
            _, writer = await served.upgrade()
            await until(lambda: gate.queued() == 1)
            writer.transport.abort()
            if ws == "websockets-sansio":
                await until(lambda: gate.queued() == 0)
            else:
                # this one tells of no end before the handshake's: when its turn comes, it has left
                await asyncio.sleep(0.05)
                served.writer.close()
            await served.is_idle()
            await until(lambda: gate.inflight <= 1)
        return gate

    gate = run(main())
    assert gate.queued() == 0
    assert told() == []
