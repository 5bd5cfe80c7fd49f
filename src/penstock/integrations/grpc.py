"""A gate before a grpc.aio server, and deadlines and a throttle behind its clients. Extra `grpc`.

`grpc.aio.server(interceptors=[AdmissionInterceptor(gate)])`, first in the list, so that no other one sees a
shed call. The client's own deadline applies; a call that its client cancels while it waits leaves the queue.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from penstock.errors import Overloaded
from penstock.integrations.deadline_scope import deadline_scope, earlier_s
from penstock.pressure.admission.gate import Gate, Priority
from penstock.pressure.admission.healthchecks import HealthChecks
from penstock.pressure.admission.replies import grpc_reply
from penstock.pressure.admission.streams import STREAM_AFTER_S, Passage
from penstock.pressure.client.deadline import remaining_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from penstock.pressure.client.throttle import Throttle

__all__ = ["AdmissionInterceptor", "RefusedCall", "client_interceptors"]

HEALTH = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch")


# the status codes of an overloaded backend
REFUSED = frozenset(
    {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
)


class AdmissionInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Admits calls to their handlers through the gate; a shed call ends with RESOURCE_EXHAUSTED.

    `priority` and `key` are called with the call's details (`method`, `invocation_metadata`). A bounded number of calls
    of the `health` methods passes the gate, the others are critical. The permit is held until the call ends. A call
    with a stream of responses gives it back after `stream_after_s` seconds, and is one of the gate's streams from then
    on. Handlers must be async: for a plain function, which gRPC runs in a thread, `intercept_service` raises TypeError.
    """

    def __init__(
        self,
        gate: Gate,
        *,
        priority: Callable[[grpc.HandlerCallDetails], Priority] | None = None,
        key: Callable[[grpc.HandlerCallDetails], object] | None = None,
        health: Iterable[str] = HEALTH,
        stream_after_s: float = STREAM_AFTER_S,
    ) -> None:
        self.gate = gate
        self._stream_after_s = stream_after_s
        self._priority, self._key = priority, key
        self._health, self._checks = frozenset(health), HealthChecks(())

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        """Return the handler with the gate before it; None for a method without one. TypeError for a plain function."""
        handler = await continuation(details)
        if handler is None:
            return None
        kind = ("stream" if handler.request_streaming else "unary") + (
            "_stream" if handler.response_streaming else "_unary"
        )
        behaviour = getattr(handler, kind)
        _require_async(behaviour, details.method)
        admit = self._streaming(behaviour, details) if handler.response_streaming else self._single(behaviour, details)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(admit, handler.request_deserializer, handler.response_serializer)

    def _single(self, behaviour: Any, details: grpc.HandlerCallDetails) -> Any:
        async def admit(request: Any, context: Any) -> Any:
            try:
                if self._passes(details):
                    try:
                        return await behaviour(request, context)
                    finally:
                        self._checks.leave()
                deadline_s, arrived_s = self._deadline_s(context), asyncio.get_running_loop().time()
                async with self._entry(details, deadline_s):
                    with deadline_scope(deadline_s, arrived_s):
                        return await behaviour(request, context)
            except Overloaded as refused:
                await _abort(context, refused)

        return admit

    def _streaming(self, behaviour: Any, details: grpc.HandlerCallDetails) -> Any:
        # not a generator: a suspended one gives its permit back only when it is collected
        async def admit(request: Any, context: Any) -> None:
            try:
                if self._passes(details):
                    # a health watch stays open: only the number of simultaneous beginnings is bounded
                    self._checks.leave()
                    await _stream(behaviour, request, context)
                    return
                deadline_s, arrived_s = self._deadline_s(context), asyncio.get_running_loop().time()
                entry = self._entry(details, deadline_s)
                # a drain does not know gRPC's connections
                async with Passage(self.gate, entry, self._stream_after_s, holds_drain=True) as passage:
                    passage.watch()
                    with deadline_scope(deadline_s, arrived_s):
                        await _stream(behaviour, request, context)
            except Overloaded as refused:
                await _abort(context, refused)

        return admit

    def _passes(self, details: grpc.HandlerCallDetails) -> bool:
        return details.method in self._health and self._checks.enter()

    def _deadline_s(self, context: Any) -> float | None:
        return earlier_s(self.gate.deadline_s, context.time_remaining())

    def _entry(self, details: grpc.HandlerCallDetails, deadline_s: float | None) -> Any:
        if details.method in self._health:
            priority = Priority.CRITICAL
        else:
            priority = Priority.NORMAL if self._priority is None else self._priority(details)
        key = None if self._key is None else self._key(details)
        return self.gate.entry(priority=priority, key=key, deadline_s=deadline_s)


async def _stream(behaviour: Any, request: Any, context: Any) -> None:
    if not inspect.isasyncgenfunction(behaviour):
        await behaviour(request, context)
        return
    async with aclosing(behaviour(request, context)) as responses:
        async for response in responses:
            await context.write(response)


def _require_async(behaviour: Any, method: str) -> None:
    if not (inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)):
        raise TypeError(f"{method} is served by a plain function, for which a gate cannot hold a permit: make it async")


async def _abort(context: Any, refused: Overloaded) -> None:
    reply = grpc_reply(refused)
    await context.abort(grpc.StatusCode[reply.code], reply.details, reply.trailers)


class RefusedCall(Overloaded, grpc.aio.AioRpcError):  # type: ignore[misc,unused-ignore]
    """A call that a throttle shed: an `Overloaded`, and an RpcError for callers that catch gRPC's errors.

    Its code is RESOURCE_EXHAUSTED, as for a call that the server's gate sheds.
    """

    def __init__(self, refused: Overloaded) -> None:
        reply = grpc_reply(refused)
        trailers = grpc.aio.Metadata(*reply.trailers)
        grpc.aio.AioRpcError.__init__(self, grpc.StatusCode[reply.code], grpc.aio.Metadata(), trailers, str(refused))
        self.args = refused.args

    def __reduce__(self) -> tuple[Any, ...]:
        return RefusedCall, (Overloaded(*self.args),)


def client_interceptors(throttle: Throttle | None = None) -> list[grpc.aio.ClientInterceptor]:
    """Return client interceptors, one for each kind of call: `grpc.aio.insecure_channel(target, interceptors=...)`.

    The timeout of a call within a deadline is at most the rest of it; gRPC sends it to the server. Calls with one
    request and one response pass the `throttle`, which raises RefusedCall for a call that it sheds.
    """
    return [_UnaryUnary(throttle), _UnaryStream(), _StreamUnary(), _StreamStream()]


def _with_deadline(details: Any) -> Any:
    timeout_s = earlier_s(details.timeout, remaining_s())
    return details if timeout_s == details.timeout else details._replace(timeout=timeout_s)


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc,unused-ignore]
    def __init__(self, throttle: Throttle | None) -> None:
        self._throttle = throttle

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        if self._throttle is None:
            return await continuation(_with_deadline(details), request)
        try:
            self._throttle.enter()
        except Overloaded as refused:
            raise RefusedCall(refused) from None
        try:
            call = await continuation(_with_deadline(details), request)
            code = await call.code()
        except BaseException as error:
            self._throttle.leave(error)
            raise
        self._throttle.leave(Overloaded(reason="throttled") if code in REFUSED else None)
        return call


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc,unused-ignore]
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(_with_deadline(details), request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc,unused-ignore]
    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(_with_deadline(details), requests)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc,unused-ignore]
    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(_with_deadline(details), requests)
