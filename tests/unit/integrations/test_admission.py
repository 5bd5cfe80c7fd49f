"""Admission before an ASGI application, driven by the test: admitted and shed requests, and the bytes read."""

import asyncio
import math

import pytest

from penstock.errors import Overloaded
from penstock.integrations.admission import AdmissionMiddleware, refusal
from penstock.integrations.client_watch import AHEAD_BYTES
from penstock.pressure.admission.gate import Gate, Priority
from penstock.pressure.admission.healthchecks import MOST_AT_ONCE, HealthChecks
from penstock.pressure.client.deadline import remaining_s
from penstock.pressure.overload.loop import arrived_at
from tests.unit.integrations.asgi_driven import BODY, Client, Service, answer, scope_of, settle


def counts(gate):
    """Return the number of sheds by reason, without zeros."""
    return {reason: count for reason, count in gate.statistics().sheds.items() if count}


class Driven:
    """A middleware over a service; its requests are tasks, as a server makes them."""

    def __init__(self, gate, **how):
        self.gate = gate
        self.service = Service()
        self.app = AdmissionMiddleware(self.service, gate, **how)

    def request(self, client, **scope):
        return asyncio.get_running_loop().create_task(self.app(scope_of(**scope), client.receive, client.send))

    async def busy(self):
        """Take a permit and keep it."""
        client = Client(BODY)
        task = self.request(client)
        await settle()
        return task, client


def patient(limit=1):
    return Gate(limit, max_wait_s=math.inf)


def strict(limit=1, **more):
    return Gate(limit, max_wait_s=0, **more)


async def test_a_request_is_served_and_its_permit_comes_back():
    driven = Driven(strict())
    task, client = await driven.busy()
    assert driven.gate.statistics().inflight == 1
    driven.service.finish()
    await task
    assert (client.status, client.body) == (200, b"done")
    assert driven.gate.statistics().inflight == 0


async def test_a_refused_request_is_answered_with_nothing_read_and_no_task_made():
    driven = Driven(strict())
    task, _ = await driven.busy()
    client = Client({"type": "http.request", "body": b"x" * 1000, "more_body": True})
    # run to its end without a turn of the loop: it never waits
    steps = driven.app(scope_of(), client.receive, client.send)
    before = len(asyncio.all_tasks())
    with pytest.raises(StopIteration):
        steps.send(None)
    assert len(asyncio.all_tasks()) == before
    assert (client.status, client.body, client.asked) == (503, b"overloaded: limit\n", 0)
    assert client.headers[b"retry-after"] in {b"1", b"2", b"3"}
    driven.service.finish()
    await task


async def test_a_request_that_is_let_in_at_once_makes_no_task_and_reads_nothing_ahead():
    driven = Driven(strict())
    client = Client()
    steps = driven.app(scope_of(), client.receive, client.send)
    before = len(asyncio.all_tasks())
    waited_for = steps.send(None)
    assert waited_for is driven.service.held[0]
    assert (len(asyncio.all_tasks()), client.asked) == (before, 0)
    steps.close()
    assert driven.gate.statistics().inflight == 0


async def test_a_request_that_waits_is_served_in_its_turn_with_all_of_its_body():
    driven = Driven(patient())
    first, _ = await driven.busy()
    client = Client({"type": "http.request", "body": b"ab", "more_body": True})
    second = driven.request(client)
    await settle()
    assert driven.gate.statistics().queued == 1
    client.says(type="http.request", body=b"cd", more_body=True)
    await settle()
    assert client.asked == 3, "it listens for the end of its client"
    driven.service.finish()
    await first
    await settle()
    assert driven.gate.statistics().inflight == 1
    client.says(type="http.request", body=b"ef", more_body=False)
    driven.service.finish()
    await second
    assert driven.service.bodies[1] == b"abcdef"
    assert driven.gate.statistics().inflight == 0


async def test_a_request_that_waits_makes_no_task():
    driven = Driven(patient())
    first, _ = await driven.busy()
    before = len(asyncio.all_tasks())
    second = driven.request(Client(BODY))
    await settle()
    assert driven.gate.statistics().queued == 1
    assert len(asyncio.all_tasks()) == before + 1, "the server's own for the request"
    driven.service.finish()
    await settle()
    driven.service.finish()
    await asyncio.gather(first, second)


async def test_a_client_that_leaves_while_its_request_waits_is_dropped():
    driven = Driven(patient())
    first, _ = await driven.busy()
    client = Client(BODY)
    second = driven.request(client)
    await settle()
    client.leaves()
    await second
    assert client.sent == [] and len(driven.service.scopes) == 1
    assert driven.gate.statistics().queued == 0
    assert counts(driven.gate) == {"left": 1}
    driven.service.finish()
    await first
    assert driven.gate.statistics().inflight == 0


async def test_a_client_that_leaves_in_the_turn_of_its_permit_loses_none():
    driven = Driven(patient())
    for leaves_first in (True, False):
        first, _ = await driven.busy()
        client = Client(BODY)
        second = driven.request(client)
        await settle()
        if leaves_first:
            client.leaves()
            driven.service.finish()
        else:
            driven.service.finish()
            await asyncio.sleep(0)
            client.leaves()
        await settle()
        while driven.service.held:
            driven.service.finish()
        await asyncio.gather(first, second)
        assert (driven.gate.statistics().inflight, driven.gate.statistics().queued) == (0, 0)


@pytest.mark.parametrize("turns", range(8))
async def test_a_request_cancelled_at_any_step_gives_its_place_back(turns):
    driven = Driven(patient())
    first, _ = await driven.busy()
    second = driven.request(Client(BODY))
    await settle()
    driven.service.finish()
    for _ in range(turns):
        await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    await first
    assert (driven.gate.statistics().inflight, driven.gate.statistics().queued) == (0, 0)


async def test_a_long_body_is_read_ahead_to_a_bound():
    driven = Driven(patient())
    first, _ = await driven.busy()
    chunk = AHEAD_BYTES // 2
    parts = [{"type": "http.request", "body": bytes([at]) * chunk, "more_body": at < 9} for at in range(10)]
    client = Client(*parts)
    second = driven.request(client)
    await settle()
    assert client.asked == 3
    driven.service.finish()
    await first
    await settle()
    driven.service.finish()
    await second
    assert driven.service.bodies[1] == b"".join(part["body"] for part in parts)


async def test_a_request_that_has_waited_too_long_is_refused():
    driven = Driven(Gate(1, max_wait_s=0.01))
    first, _ = await driven.busy()
    client = Client(BODY)
    await driven.request(client)
    assert client.status == 503
    assert client.body in {b"overloaded: expired\n", b"overloaded: wait\n"}
    driven.service.finish()
    await first
    assert driven.gate.statistics().queued == 0


async def test_a_failure_of_the_application_gives_the_permit_back_and_goes_on():
    async def broken(scope, receive, send):
        raise ZeroDivisionError

    gate = strict()
    with pytest.raises(ZeroDivisionError):
        await AdmissionMiddleware(broken, gate)(scope_of(), None, None)
    assert gate.statistics().inflight == 0


async def test_a_failure_of_the_servers_receive_gives_the_place_back():
    driven = Driven(patient())
    first, _ = await driven.busy()
    client = Client()

    async def receive():
        raise ConnectionResetError

    client.receive = receive
    with pytest.raises(ConnectionResetError):
        await driven.request(client)
    assert driven.gate.statistics().queued == 0
    driven.service.finish()
    await first


async def test_an_overload_within_the_application_is_answered_unless_its_answer_has_begun():
    async def early(scope, receive, send):
        raise Overloaded(reason="full", retry_after_s=3)

    async def late(scope, receive, send):
        await answer(send)
        raise Overloaded(reason="full")

    client = Client()
    await AdmissionMiddleware(early, strict())(scope_of(), client.receive, client.send)
    assert client.status == 503
    assert client.headers[b"retry-after"] in {b"3", b"4", b"5"}
    client = Client()
    with pytest.raises(Overloaded):
        await AdmissionMiddleware(late, strict())(scope_of(), client.receive, client.send)
    assert client.status == 200


async def test_health_checks_pass_a_full_gate_and_others_are_refused():
    driven = Driven(strict(1), health=("/up",))
    first, _ = await driven.busy()
    client, other = Client(BODY), Client(BODY)
    health = driven.request(client, path="/up")
    await driven.request(other)
    await settle()
    assert other.status == 503
    driven.service.finish(1)
    await health
    assert client.status == 200
    driven.service.finish()
    await first


@pytest.mark.parametrize("how", [{"method": "POST", "path": "/up"}, {"path": "/up/"}, {"path": "/"}])
async def test_only_gets_of_the_very_path_are_health_checks(how):
    driven = Driven(strict(1), health=("/up",))
    first, _ = await driven.busy()
    client = Client(BODY)
    await driven.request(client, **how)
    assert client.status == 503
    driven.service.finish()
    await first


@pytest.mark.parametrize("path", ["/shop/up", "/up", "/shop/events/1", "/events/1"])
async def test_a_root_path_before_the_path_hides_neither_health_checks_nor_exempt_paths(path):
    driven = Driven(strict(1), health=("/up",), exempt=("/events/*",))
    first, _ = await driven.busy()
    client, other = Client(BODY), Client(BODY)
    passed = driven.request(client, path=path, root_path="/shop")
    await driven.request(other, path="/shopping/up", root_path="/shop")
    await settle()
    assert other.status == 503
    driven.service.finish(1)
    await passed
    assert client.status == 200
    driven.service.finish()
    await first


async def test_beyond_the_bound_health_checks_wait_for_the_gate_with_its_reserve():
    driven = Driven(strict(1, reserve=1), health=("/up",))
    first, _ = await driven.busy()
    passed = [driven.request(Client(BODY), path="/up") for _ in range(MOST_AT_ONCE)]
    await settle()
    assert driven.gate.statistics().inflight == 1
    reserved = driven.request(Client(BODY), path="/up")
    await settle()
    assert driven.gate.statistics().inflight == 2
    refused = Client(BODY)
    await driven.request(refused, path="/up")
    assert refused.status == 503
    while driven.service.held:
        driven.service.finish()
    await asyncio.gather(first, reserved, *passed)


async def test_a_health_check_that_another_gate_refuses_is_answered():
    async def app(scope, receive, send):
        raise Overloaded(reason="full")

    client = Client()
    await AdmissionMiddleware(app, strict())(scope_of(path="/livez"), client.receive, client.send)
    assert client.status == 503


class Asked:
    """A gate that records the arguments of its entries and admits all of them."""

    deadline_s = None

    def __init__(self):
        self.entries = []

    def entry(self, **how):
        self.entries.append(how)
        return self

    def ask(self):
        return None

    def abandon(self):
        pass


async def test_priority_and_key_come_from_the_scope(monkeypatch):
    monkeypatch.setattr(HealthChecks, "enter", lambda checks: False)

    async def app(scope, receive, send):
        pass

    gate = Asked()
    admission = AdmissionMiddleware(
        app, gate, priority=lambda scope: Priority.LOW, key=lambda scope: scope["client"][0], health="/up"
    )
    await admission(scope_of(client=("1.2.3.4", 5)), None, None)
    await admission(scope_of(path="/up", client=("1.2.3.4", 5)), None, None)
    assert [entry["priority"] for entry in gate.entries] == [Priority.LOW, Priority.CRITICAL]
    assert [entry["key"] for entry in gate.entries] == ["1.2.3.4"] * 2


async def test_a_request_that_was_read_late_is_as_old_as_it_is():
    async def app(scope, receive, send):
        await answer(send)

    gate = Asked()
    await AdmissionMiddleware(app, gate)(scope_of(), None, Client().send)
    arrived_at.set(12.5)
    await AdmissionMiddleware(app, gate)(scope_of(), None, Client().send)
    assert [entry["arrived_s"] for entry in gate.entries] == [None, 12.5]
    client = Client()
    arrived_at.set(asyncio.get_running_loop().time() - 60)
    await AdmissionMiddleware(app, Gate(1, deadline_s=30))(scope_of(), client.receive, client.send)
    assert client.body == b"overloaded: deadline\n"


def in_a_minute(at_s):
    return None if at_s is None else round(at_s, -1)


@pytest.mark.parametrize(
    ("header", "own_s", "expected_s"),
    [
        (None, None, None),
        (b"30000", None, 30),
        (b"30000", 50, 30),
        (b"70000", 50, 50),
        (None, 50, 50),
        (b"soon", 50, 50),
    ],
)
async def test_a_request_has_the_sooner_of_its_clients_deadline_and_the_gates(header, own_s, expected_s):
    left = []

    async def app(scope, receive, send):
        left.append(in_a_minute(remaining_s()))

    headers = [(b"host", b"x"), *([(b"x-request-timeout-ms", header)] if header else [])]
    await AdmissionMiddleware(app, Gate(1, deadline_s=own_s))(scope_of(headers=headers), None, None)
    asked = Asked()
    asked.deadline_s = own_s
    await AdmissionMiddleware(app, asked)(scope_of(headers=headers), None, None)
    assert [entry["deadline_s"] for entry in asked.entries] == [expected_s]
    assert left == [expected_s] * 2
    assert remaining_s() is None


async def test_a_deadline_counts_from_the_arrival():
    left = []

    async def app(scope, receive, send):
        left.append(in_a_minute(remaining_s()))

    arrived_at.set(asyncio.get_running_loop().time() - 20)
    await AdmissionMiddleware(app, Gate(1, deadline_s=50))(scope_of(), None, None)
    assert left == [30]


async def test_a_request_that_nobody_waits_for_any_more_is_refused():
    client, driven = Client(), Driven(Gate(1))
    await driven.app(scope_of(headers=[(b"x-request-timeout-ms", b"0")]), client.receive, client.send)
    assert client.body == b"overloaded: deadline\n"
    assert driven.service.scopes == []


@pytest.mark.parametrize(
    ("headers", "closes"),
    [
        ([], False),
        ([(b"content-length", b"10")], False),
        ([(b"content-length", b"10000000")], True),
        ([(b"content-length", b"odd")], True),
        ([(b"transfer-encoding", b"chunked")], True),
    ],
)
def test_a_refusal_closes_the_connection_only_for_a_long_unread_body(run, headers, closes):
    client = Client()
    answer_it = run(refusal(None, Overloaded(reason="limit")))
    run(answer_it(scope_of(headers=headers), client.receive, client.send))
    assert (client.headers.get(b"connection") == b"close") is closes
    # the answer's end waits for that of the body, which would be reset
    assert [message.get("more_body", False) for message in client.sent[1:]] == [True, False][not closes :]
    assert client.asked == closes


def test_http_2_has_no_connection_header(run):
    client = Client()
    answer_it = run(refusal(None, Overloaded(reason="closed")))
    run(answer_it(scope_of(http_version="2", headers=[(b"content-length", b"99999999")]), client.receive, client.send))
    assert b"connection" not in client.headers and client.status == 503


def test_head_is_answered_without_a_body(run):
    client = Client()
    run(run(refusal(None, Overloaded(reason="limit")))(scope_of(method="HEAD"), client.receive, client.send))
    assert (client.status, client.body) == (503, b"")
