"""Streams: they hold no permit, have a bound of their own, and their durations do not move the limit `auto`."""

import asyncio
import math

import pytest

from penstock.errors import Overloaded
from penstock.integrations.admission import AdmissionMiddleware
from penstock.pressure.admission.gate import Gate
from penstock.pressure.admission.paths import PathSet
from penstock.testing import run as run_virtually
from tests.unit.integrations.asgi_driven import BODY, Client, answer, scope_of, settle

EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]


class Streaming:
    """An application that sends a head, then a chunk at each word of the test. /plain is answered at once."""

    def __init__(self, headers=()):
        self.headers = list(headers)
        self.go, self.end = asyncio.Event(), asyncio.Event()
        self.begun = self.ended = 0

    async def __call__(self, scope, receive, send):
        if scope["path"] == "/plain":
            await answer(send)
            return
        self.begun += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.headers})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await self.end.wait()
            await send({"type": "http.response.body", "body": b"last"})
        finally:
            self.ended += 1


def requesting(admission):
    def request(path="/stream"):
        client = Client(BODY)
        task = asyncio.get_running_loop().create_task(admission(scope_of(path=path), client.receive, client.send))
        return client, task

    return request


async def test_event_streams_hold_no_permit():
    gate, app = Gate(1, max_wait_s=0), Streaming(EVENTS)
    request = requesting(AdmissionMiddleware(app, gate))
    streams = [request() for _ in range(10)]
    await settle()
    assert (gate.statistics().inflight, gate.statistics().streams) == (0, 10)
    client, task = request("/plain")
    await task
    assert client.status == 200
    app.end.set()
    await asyncio.gather(*(task for _, task in streams))
    assert [client.body for client, _ in streams] == [b"firstlast"] * 10
    assert (gate.statistics().inflight, gate.statistics().streams) == (0, 0)
    assert sum(gate.statistics().sheds.values()) == 0


def test_an_answer_is_a_stream_once_it_has_gone_on_for_a_while():
    async def main():
        gate, app = Gate(1, max_wait_s=0), Streaming()
        request = requesting(AdmissionMiddleware(app, gate, stream_after_s=2.0))
        _, task = request()
        await asyncio.sleep(1.9)
        assert (gate.statistics().inflight, gate.statistics().streams) == (1, 0)
        await asyncio.sleep(0.2)
        assert (gate.statistics().inflight, gate.statistics().streams) == (0, 1)
        app.end.set()
        await task
        assert (gate.statistics().inflight, gate.statistics().streams) == (0, 0)

    run_virtually(main)


def test_three_quick_chunks_hold_their_permit_to_their_end():
    async def main():
        gate = Gate(1, max_wait_s=0)
        held = []

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for more in (True, True, False):
                await asyncio.sleep(0.1)
                held.append(gate.statistics().inflight)
                await send({"type": "http.response.body", "body": b"chunk", "more_body": more})

        client, task = requesting(AdmissionMiddleware(app, gate))()
        await task
        await asyncio.sleep(5)
        assert (held, client.body) == ([1, 1, 1], b"chunk" * 3)
        assert (gate.statistics().inflight, gate.statistics().streams) == (0, 0)
        assert gate.statistics().service.count == 1

    run_virtually(main)


def test_an_answer_that_has_not_begun_holds_its_permit_however_long_it_takes():
    """A long poll cannot be distinguished from work: its path must be exempt."""

    async def main():
        gate = Gate(1, max_wait_s=0)

        async def poll(scope, receive, send):
            await asyncio.sleep(60)
            await answer(send)

        _, task = requesting(AdmissionMiddleware(poll, gate))()
        await asyncio.sleep(59)
        assert (gate.statistics().inflight, gate.statistics().streams) == (1, 0)
        await task

    run_virtually(main)


async def test_what_is_exempt_is_not_admitted_at_all():
    gate = Gate(1, max_wait_s=0)
    gate.close()
    admission = AdmissionMiddleware(Streaming(), gate, exempt=["/poll", "/events/*"])
    for path, status in (("/poll", 200), ("/events/7", 200), ("/events", 503), ("/poll/1", 503), ("/plain", 503)):
        assert admission.ask_early(scope_of(path=path)) is None or status == 503
        client, task = requesting(admission)(path)
        await settle()
        assert client.status == status, path
        task.cancel()
    assert gate.statistics().admitted == 0


async def test_streams_beyond_their_bound_are_refused_before_they_begin():
    gate, app = Gate(10, max_streams=2), Streaming(EVENTS)
    request = requesting(AdmissionMiddleware(app, gate))
    kept = [request() for _ in range(2)]
    await settle()
    client, task = request()
    await task
    assert (client.status, client.body) == (503, b"overloaded: streams\n")
    statistics = gate.statistics()
    assert (statistics.inflight, statistics.streams, statistics.sheds["streams"]) == (0, 2, 1)
    app.end.set()
    await asyncio.gather(*(task for _, task in kept))
    client, task = request()
    await task
    assert client.status == 200


@pytest.mark.parametrize("keeps_it", [True, False])
async def test_a_framework_that_answers_the_failed_send_itself_refuses_all_the_same(keeps_it):
    gate = Gate(10, max_streams=0)
    inner = Streaming(EVENTS)

    async def framework(scope, receive, send):
        try:
            await inner(scope, receive, send)
        except Overloaded as error:
            if not keeps_it:
                raise ExceptionGroup("in a task group", [error]) from None

    client, task = requesting(AdmissionMiddleware(framework, gate))()
    await task
    assert client.status == 503


def test_a_long_answer_beyond_the_bound_keeps_its_permit_until_there_is_room():
    async def main():
        gate, app = Gate(10, max_streams=1), Streaming()
        request = requesting(AdmissionMiddleware(app, gate))
        _, first = request()
        await asyncio.sleep(0.5)
        _, second = request()
        await asyncio.sleep(3)
        assert (gate.statistics().inflight, gate.statistics().streams) == (1, 1)
        first.cancel()
        await asyncio.sleep(1.1)
        assert (gate.statistics().inflight, gate.statistics().streams) == (0, 1)
        app.end.set()
        await second
        assert (gate.statistics().inflight, gate.statistics().streams) == (0, 0)

    run_virtually(main)


async def test_a_stream_whose_client_leaves_is_counted_no_more():
    gate = Gate(1, max_wait_s=0)
    _, task = requesting(AdmissionMiddleware(Streaming(EVENTS), gate))()
    await settle()
    assert gate.statistics().streams == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (gate.statistics().inflight, gate.statistics().streams) == (0, 0)


def test_the_lifetime_of_streams_teaches_auto_nothing():
    async def main():
        gate = Gate("auto")
        app = Streaming(EVENTS)
        request = requesting(AdmissionMiddleware(app, gate))
        streams = [request() for _ in range(200)]
        await asyncio.sleep(3600)
        app.end.set()
        await asyncio.gather(*(task for _, task in streams))
        assert gate.statistics().service.count == 0

    run_virtually(main)


async def test_an_accepted_websocket_is_a_stream_and_one_beyond_the_bound_is_refused():
    async def chat(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    gate = Gate(1, max_wait_s=math.inf, max_streams=1)
    admission = AdmissionMiddleware(chat, gate)
    first, second = Client({"type": "websocket.connect"}), Client({"type": "websocket.connect"})
    kept = asyncio.ensure_future(admission(scope_of("websocket"), first.receive, first.send))
    await settle()
    assert (gate.statistics().inflight, gate.statistics().streams) == (0, 1)
    await admission(scope_of("websocket"), second.receive, second.send)
    assert second.sent == [{"type": "websocket.close", "code": 1013, "reason": "overloaded: streams"}]
    first.says(type="websocket.disconnect")
    await kept
    assert gate.statistics().streams == 0


async def test_only_an_entry_that_is_inside_becomes_a_stream():
    gate = Gate(1)
    entry = gate.entry()
    with pytest.raises(RuntimeError, match="has no permit"):
        gate.stream(entry)
    await entry.enter()
    stream = gate.stream(entry)
    assert stream is not None
    with pytest.raises(RuntimeError, match="has no permit"):
        entry.leave()
    stream.leave()
    stream.leave()
    assert (gate.statistics().inflight, gate.statistics().streams) == (0, 0)


def test_a_beginning_of_paths_stands_for_all_below_it():
    paths = PathSet(["/a", "/b/*"])
    assert [path in paths for path in ("/a", "/a/b", "/b", "/b/", "/b/c/d", "/bc")] == [
        True,
        False,
        False,
        True,
        True,
        False,
    ]
    assert "/a" in PathSet("/a")
    assert "/a" not in PathSet(())
