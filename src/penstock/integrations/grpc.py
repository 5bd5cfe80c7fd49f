"""A gate before a grpc.aio server, and deadlines and a throttle behind its clients. Extra `grpc`.

`grpc.aio.server(interceptors=[AdmissionInterceptor(gate)])`, first in the list: what it refuses, no other one sees. A
client's own deadline is the deadline; a call whose client cancels it while it waits leaves the queue.
"""

from __future__ import annotations

import inspect
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from penstock.errors import Overloaded
from penstock.integrations.inherited import inherited, sooner_s
from penstock.pressure.gate import Gate, Priority
from penstock.pressure.replies import grpc_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["AdmissionInterceptor"]

HEALTH = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch")


class AdmissionInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Lets calls into their handlers as the gate says; a refused one ends with RESOURCE_EXHAUSTED.

    `priority` and `key` are given the call's details (`method`, `invocation_metadata`). `health` are methods that are
    critical. The permit is held until the call ends, for streams too. Handlers must be async: a plain function, which
    gRPC would run in a thread, raises TypeError.
    """

    def __init__(
        self,
        gate: Gate,
        *,
        priority: Callable[[grpc.HandlerCallDetails], Priority] | None = None,
        key: Callable[[grpc.HandlerCallDetails], object] | None = None,
        health: Iterable[str] = HEALTH,
    ) -> None:
        self.gate = gate
        self._priority, self._key = priority, key
        self._health = frozenset(health)

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        """The handler with the gate before it; None where nobody serves the method."""
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
                deadline_s = self._deadline_s(context)
                async with self._entry(details, deadline_s):
                    with inherited(deadline_s):
                        return await behaviour(request, context)
            except Overloaded as refused:
                await _abort(context, refused)

        return admit

    def _streaming(self, behaviour: Any, details: grpc.HandlerCallDetails) -> Any:
        # Not a generator: one that is left suspended when its call is cancelled gives its permit back when collected.
        async def admit(request: Any, context: Any) -> None:
            try:
                deadline_s = self._deadline_s(context)
                async with self._entry(details, deadline_s):
                    with inherited(deadline_s):
                        await _stream(behaviour, request, context)
            except Overloaded as refused:
                await _abort(context, refused)

        return admit

    def _deadline_s(self, context: Any) -> float | None:
        return sooner_s(self.gate.deadline_s, context.time_remaining())

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
        raise TypeError(
            f"{method} is served by a plain function, which a gate cannot hold a permit for: make it an async one"
        )


async def _abort(context: Any, refused: Overloaded) -> None:
    reply = grpc_reply(refused)
    await context.abort(grpc.StatusCode[reply.code], reply.details, reply.trailers)
