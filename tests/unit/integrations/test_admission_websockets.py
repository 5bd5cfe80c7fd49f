"""Admission of WebSockets, and of the server's lifespan messages."""

import asyncio
import math

import pytest

from penstock.integrations.admission import AdmissionMiddleware
from penstock.pressure.admission.gate import Gate
from penstock.pressure.client.deadline import remaining_s
from tests.unit.integrations.asgi_driven import Client, scope_of, settle


def patient(limit=1):
    return Gate(limit, max_wait_s=math.inf)


def strict(limit=1):
    return Gate(limit, max_wait_s=0)


def counts(gate):
    """Return the number of sheds by reason, without zeros."""
    return {reason: count for reason, count in gate.statistics().sheds.items() if count}


WITH_ANSWER = {"extensions": {"websocket.http.response": {}}}


async def chat(scope, receive, send):
    """Accept a WebSocket and keep it open until its client asks for the end."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


def chatting(gate, **how):
    admission = AdmissionMiddleware(chat, gate, **how)

    def connect(**scope):
        client = Client({"type": "websocket.connect"})
        steps = admission(scope_of("websocket", **scope), client.receive, client.send)
        return client, asyncio.get_running_loop().create_task(steps)

    return connect


async def test_a_refused_websocket_is_answered_by_http_where_the_server_can():
    gate = strict()
    gate.close()
    client, task = chatting(gate)(**WITH_ANSWER)
    await task
    assert [message["type"] for message in client.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert (client.status, client.body, client.asked) == (503, b"overloaded: closed\n", 0)


async def test_a_refused_websocket_is_closed_before_it_is_accepted_elsewhere():
    gate = strict()
    gate.close()
    client, task = chatting(gate)()
    await task
    assert client.sent == [{"type": "websocket.close", "code": 1013, "reason": "overloaded: closed"}]


async def test_a_websocket_holds_its_permit_for_its_handshake():
    gate = strict()
    client, task = chatting(gate)()
    assert gate.statistics().inflight == 0
    await settle()
    assert client.sent == [{"type": "websocket.accept"}] and not task.done()
    assert gate.statistics().inflight == 0, "it was given back"
    assert counts(gate) == {}
    client.says(type="websocket.disconnect")
    await task
    assert gate.statistics().inflight == 0, "and not twice"


async def test_a_websocket_may_hold_its_permit_while_it_is_connected():
    gate = strict()
    connect = chatting(gate, websockets="connection")
    client, task = connect()
    await settle()
    assert gate.statistics().inflight == 1
    other, refused = connect()
    await refused
    assert other.sent[0]["code"] == 1013
    client.says(type="websocket.disconnect")
    await task
    assert gate.statistics().inflight == 0


async def test_websockets_may_need_no_permit():
    gate = strict()
    gate.close()
    client, task = chatting(gate, websockets="none")()
    client.says(type="websocket.disconnect")
    await task
    assert client.sent == [{"type": "websocket.accept"}]


async def test_a_websocket_that_waits_begins_with_connect():
    gate = patient()
    connect = chatting(gate, websockets="connection")
    first, holding = connect()
    await settle()
    client, task = connect()
    gone, left = connect()
    await settle()
    assert gate.statistics().queued == 2
    gone.says(type="websocket.disconnect")
    await left
    # for servers that want each handshake ended
    assert gone.sent == [{"type": "websocket.close", "code": 1013}]
    first.says(type="websocket.disconnect")
    await holding
    await settle()
    assert client.sent == [{"type": "websocket.accept"}]
    client.says(type="websocket.disconnect")
    await task
    assert (gate.statistics().inflight, gate.statistics().queued) == (0, 0)


# the server's start and end


async def living(scope, receive, send):
    assert scope["type"] == "lifespan"
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def live(admission):
    client = Client({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    return client, admission({"type": "lifespan"}, client.receive, client.send)


async def test_the_lifespan_is_passed_on_and_the_gate_closed_at_its_end():
    admission = AdmissionMiddleware(living, limit=3)
    client, steps = live(admission)
    await steps
    assert [message["type"] for message in client.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    late = Client()
    await admission(scope_of(), late.receive, late.send)
    assert (late.status, late.body) == (503, b"overloaded: closed\n")
    assert late.headers[b"connection"] == b"close"


async def test_a_gate_of_the_programs_own_is_left_open():
    gate = strict()
    _, steps = live(AdmissionMiddleware(living, gate))
    await steps
    async with gate.entry():
        pass


def test_a_gate_and_the_making_of_one_exclude_each_other():
    with pytest.raises(ValueError, match="own limit"):
        AdmissionMiddleware(living, strict(), limit=3)
    with pytest.raises(ValueError, match="'handshake', 'connection' or 'none'"):
        AdmissionMiddleware(living, strict(), websockets="always")


async def test_a_websocket_that_began_in_time_may_stay():
    left = []

    async def app(scope, receive, send):
        left.append(remaining_s())

    await AdmissionMiddleware(app, Gate(1, deadline_s=50))(scope_of("websocket"), None, None)
    assert left == [None]
