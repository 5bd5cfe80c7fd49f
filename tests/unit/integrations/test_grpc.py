"""Admission before a real grpc.aio server, and the errors of its clients, over real sockets."""

import asyncio
import math
import pickle

import pytest

from tests.support.waiting import until

pytest.importorskip("grpc")

import grpc
import grpc.aio

from penstock.errors import Overloaded
from penstock.integrations.grpc import AdmissionInterceptor, client_interceptors
from penstock.pressure.admission.gate import Gate
from penstock.pressure.admission.healthchecks import HealthChecks
from penstock.pressure.client.deadline import deadline, remaining_s
from penstock.pressure.client.throttle import Throttle

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Servicer:
    """A servicer of the four kinds of call, which echo their requests; `/x/held` waits for the test."""

    def __init__(self):
        self.begun = 0
        self.go = asyncio.Event()
        self.remaining_s = []

    async def unary_unary(self, request, context):
        self.begun += 1
        self.remaining_s.append((context.time_remaining(), remaining_s()))
        return request

    async def unary_stream(self, request, context):
        self.begun += 1
        self.remaining_s.append((context.time_remaining(), remaining_s()))
        for at in range(2):
            yield request + b"%d" % at

    async def stream_unary(self, requests, context):
        self.begun += 1
        return b"".join([request async for request in requests])

    async def stream_stream(self, requests, context):
        self.begun += 1
        async for request in requests:
            await context.write(request)

    async def held(self, request, context):
        self.begun += 1
        await self.go.wait()
        return request

    async def endless(self, request, context):
        self.begun += 1
        while True:
            yield request
            await self.go.wait()

    async def overloaded(self, request, context):
        raise Overloaded(reason="full", retry_after_s=0.5)

    def plain(self, request, context):
        return request

    def service(self, call):
        name = call.method.rpartition("/")[2]
        kind = {"endless": "unary_stream"}.get(name, name if name in KINDS else "unary_unary")
        return getattr(grpc, f"{kind}_rpc_method_handler")(getattr(self, name)) if hasattr(self, name) else None


class Served:
    """A server with the gate, and a channel to it."""

    def __init__(self, gate, interceptors=(), **how):
        self.gate, self.how = gate, how
        self.interceptors = interceptors
        self.servicer = Servicer()

    async def __aenter__(self):
        self.server = grpc.aio.server(interceptors=[AdmissionInterceptor(self.gate, **self.how)])
        self.server.add_generic_rpc_handlers((self.servicer,))
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", interceptors=self.interceptors)
        return self

    async def __aexit__(self, *error):
        self.servicer.go.set()
        await self.channel.close()
        await self.server.stop(0)

    async def call(self, name, kind="unary_unary", **how):
        method = getattr(self.channel, kind)(f"/x/{name}")
        given = iter((b"a", b"b")) if kind.startswith("stream") else b"a"
        call = method(given, **how)
        return [response async for response in call] if kind.endswith("stream") else await call

    async def hold(self, name="held"):
        """Begin a call that keeps its permit."""
        begun = self.servicer.begun
        task = asyncio.ensure_future(self.call(name))
        await until(lambda: self.servicer.begun > begun)
        return task


async def test_every_kind_of_call_is_served_and_gives_its_permit_back():
    async with Served(Gate(1, max_wait_s=0)) as served:
        expected = b"a", [b"a0", b"a1"], b"ab", [b"a", b"b"]
        for kind, answer in zip(KINDS, expected, strict=True):
            assert await served.call(kind, kind) == answer
            await until(lambda: served.gate.statistics().inflight == 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_call_is_refused_with_resource_exhausted(kind):
    async with Served(Gate(1, max_wait_s=0)) as served:
        holding = await served.hold()
        method = getattr(served.channel, kind)("/x/" + kind)
        # nothing is sent on a stream: a write that meets the end of its call may hide that end
        call = method() if kind.startswith("stream") else method(b"a")
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await call.details() == "overloaded: limit"
        trailers = dict(await call.trailing_metadata())
        assert trailers["overloaded-reason"] == "limit"
        assert trailers["retry-delay"].endswith("s")
        assert int(trailers["grpc-retry-pushback-ms"]) > 0
        assert served.servicer.begun == 1
        served.servicer.go.set()
        await holding


async def test_a_call_that_waits_is_served_in_its_turn():
    async with Served(Gate(1, max_wait_s=math.inf)) as served:
        holding = await served.hold()
        waiting = asyncio.ensure_future(served.call("unary_unary"))
        await until(lambda: served.gate.statistics().queued == 1)
        served.servicer.go.set()
        assert await asyncio.gather(holding, waiting) == [b"a", b"a"]


async def test_a_call_that_is_cancelled_while_it_waits_leaves_the_queue():
    async with Served(Gate(1, max_wait_s=math.inf)) as served:
        holding = await served.hold()
        waiting = asyncio.ensure_future(served.call("unary_unary"))
        await until(lambda: served.gate.statistics().queued == 1)
        waiting.cancel()
        await until(lambda: served.gate.statistics().queued == 0)
        served.servicer.go.set()
        await holding
        assert served.servicer.begun == 1


async def test_a_stream_that_its_client_cancels_gives_its_permit_back():
    async with Served(Gate(1, max_wait_s=0)) as served:
        call = served.channel.unary_stream("/x/endless")(b"a")
        assert await call.read() == b"a"
        assert served.gate.statistics().inflight == 1
        call.cancel()
        await until(lambda: served.gate.statistics().inflight == 0)


class Asked:
    """A gate that records the arguments of its entries and admits all of them."""

    deadline_s = None

    def __init__(self):
        self.entries = []

    def entry(self, **how):
        self.entries.append(how)
        return self

    async def __aenter__(self):
        pass

    async def __aexit__(self, *error):
        pass


async def test_the_clients_deadline_is_the_deadline():
    async with Served(Asked(), key=lambda details: details.method) as served:
        await served.call("unary_unary", timeout=5.0)
        await served.call("unary_unary")
        first, second = served.gate.entries
        assert 0 < first["deadline_s"] < 6.0, "5 s, as its clock has them"
        assert second["deadline_s"] is None
        assert first["key"] == "/x/unary_unary"


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
async def test_a_handler_inherits_the_sooner_of_the_two_deadlines(kind):
    async with Served(Gate(1, deadline_s=100)) as served:
        await served.call(kind, kind, timeout=50)
        await served.call(kind, kind)
        await served.call(kind, kind, timeout=500)
        lefts = [left_s for _, left_s in served.servicer.remaining_s]
        assert [round(left_s, -1) for left_s in lefts] == [50, 100, 100]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_clients_calls_have_what_is_left_of_its_deadline(kind):
    gate = Asked()
    async with Served(gate, client_interceptors()) as served:
        with deadline(50):
            await served.call(kind, kind)
            await served.call(kind, kind, timeout=20)
            await served.call(kind, kind, timeout=500)
        await served.call(kind, kind)
        told = [entry["deadline_s"] for entry in gate.entries]
        assert [None if told_s is None else round(told_s, -1) for told_s in told] == [50, 20, 50, None]


async def test_a_clients_throttle_learns_from_what_the_server_refuses():
    throttle, gate = Throttle(seed=1), Gate(1, max_wait_s=0)
    async with Served(gate, client_interceptors(throttle)) as served:
        assert await served.call("unary_unary") == b"a"
        assert (throttle.statistics().requests, throttle.statistics().accepts) == (1, 1)
        gate.close()
        told = set()
        while grpc.StatusCode.RESOURCE_EXHAUSTED not in told:
            with pytest.raises(grpc.RpcError) as caught:
                await served.call("unary_unary")
            told.add(caught.value.code())
        # what is not made is both: what programs of gRPC catch, and what all of penstock raises
        assert told == {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
        for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
            assert isinstance(error, Overloaded) and isinstance(error, grpc.aio.AioRpcError)
            assert (error.reason, str(error)) == ("throttled", error.details())
            assert ("overloaded-reason", "throttled") in tuple(error.trailing_metadata())
        assert throttle.statistics().accepts == 1
        assert throttle.statistics().refused == 1


async def test_health_checks_pass_a_full_gate():
    async with Served(Gate(1, max_wait_s=0), health=["/x/unary_unary", "/x/unary_stream"]) as served:
        holding = await served.hold()
        assert await served.call("unary_unary") == b"a"
        assert await served.call("unary_stream", "unary_stream")
        assert served.gate.statistics().inflight == 1
        served.servicer.go.set()
        await holding


async def test_beyond_the_bound_health_checks_are_served_from_the_reserve(monkeypatch):
    monkeypatch.setattr(HealthChecks, "enter", lambda checks: False)

    async with Served(Gate(1, max_wait_s=0, reserve=1), health=["/x/unary_unary"]) as served:
        holding = await served.hold()
        assert await served.call("unary_unary") == b"a"
        served.servicer.go.set()
        await holding


async def test_an_overload_within_a_handler_is_told_too():
    async with Served(Gate(1)) as served:
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await served.call("overloaded")
        assert told.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        retry_s = float(dict(told.value.trailing_metadata())["retry-delay"].removesuffix("s"))
        assert 0.5 <= retry_s < 1.0


async def test_a_method_nobody_serves_stays_unimplemented():
    async with Served(Gate(1)) as served:
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await served.call("nothing")
        assert told.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_plain_function_is_not_held_a_permit_for(caplog):
    async with Served(Gate(1)) as served:
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await served.call("plain")
        assert told.value.code() is grpc.StatusCode.UNKNOWN
        assert "make it async" in told.value.details() + caplog.text


async def test_a_call_whose_responses_go_on_gives_its_permit_back():
    gate = Gate(1, max_wait_s=0)
    async with Served(gate, stream_after_s=0.02) as served:
        call = served.channel.unary_stream("/x/endless")(b"a")
        assert await call.read() == b"a"
        await until(lambda: gate.statistics().streams == 1)
        assert gate.statistics().inflight == 0
        assert await served.call("unary_unary") == b"a"
        call.cancel()
        await until(lambda: gate.statistics().streams == 0)
