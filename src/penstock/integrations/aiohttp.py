"""A gate before an aiohttp.web application: `web.Application(middlewares=[admission_middleware(gate)])`.

Put it first, so that no other middleware sees a shed request; its body is not read. Before it may come
`receiving_middleware()`, which reports the progress of requests for `pressure.receive_s`. Extra `aiohttp`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from penstock.errors import Overloaded
from penstock.integrations.deadline_scope import client_timeout_s, deadline_scope, earlier_s
from penstock.pressure.admission.gate import Entry, Gate, Priority
from penstock.pressure.admission.healthchecks import PATHS, HealthChecks
from penstock.pressure.admission.paths import PathSet
from penstock.pressure.admission.replies import http_reply
from penstock.pressure.admission.streams import STREAM_AFTER_S, Passage
from penstock.pressure.overload.connections import expect_request, set_receiving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["admission_middleware", "receiving_middleware"]

# nginx's code for a client that closed the connection; no client reads it
CLIENT_CLOSED_REQUEST = 499


def admission_middleware(
    gate: Gate,
    *,
    priority: Callable[[web.Request], Priority] | None = None,
    key: Callable[[web.Request], object] | None = None,
    health: Iterable[str] = PATHS,
    exempt: Iterable[str] = (),
    stream_after_s: float = STREAM_AFTER_S,
    as_json: bool = False,
) -> Any:
    """Return the middleware. `priority(request)` and `key(request)` return a request's class and fair-share key.

    `health` are the paths of health checks, `exempt` the paths that need no permit. A response that has begun and goes
    on after `stream_after_s` seconds gives its permit back and is one of the gate's streams; a WebSocket is one from
    its beginning. A request whose client disconnected while it waited is not handled. An `Overloaded` of a handler is
    answered too.
    """
    admission = _Admission(gate, priority, key, HealthChecks(health), stream_after_s)
    exempted = PathSet(exempt)

    async def admit(request: web.Request, handler: Any) -> Any:
        if request.path in exempted:
            return await handler(request)
        try:
            return await admission.serve(request, handler)
        except Overloaded as refused:
            return _answer(request, refused, as_json)

    return web.middleware(admit)


class _Admission:
    """A gate before aiohttp's handlers."""

    def __init__(
        self,
        gate: Gate,
        priority: Callable[[web.Request], Priority] | None,
        key: Callable[[web.Request], object] | None,
        checks: HealthChecks,
        stream_after_s: float,
    ) -> None:
        self._gate, self._priority, self._key = gate, priority, key
        self._checks, self._stream_after_s = checks, stream_after_s

    async def serve(self, request: web.Request, handler: Any) -> Any:
        """Serve a request when the gate admits it. Raises Overloaded when it is shed."""
        is_check = self._checks.is_one(request.method, request.path)
        if is_check and self._checks.enter():
            try:
                return await handler(request)
            finally:
                self._checks.leave()
        deadline_s = earlier_s(self._gate.deadline_s, client_timeout_s(request.raw_headers))
        entry = self._entry(request, is_check, deadline_s)
        arrived_s = asyncio.get_running_loop().time()
        async with Passage(self._gate, entry, self._stream_after_s) as passage:
            if _is_disconnected(request):
                self._gate.count_disconnected()
                return web.Response(status=CLIENT_CLOSED_REQUEST)
            if _is_websocket(request):
                passage.become_stream()
                return await handler(request)
            passage.watch(lambda: _has_begun(request))
            with deadline_scope(deadline_s, arrived_s):
                return await handler(request)

    def _entry(self, request: web.Request, is_check: bool, deadline_s: float | None) -> Entry:
        if is_check:
            priority = Priority.CRITICAL
        else:
            priority = Priority.NORMAL if self._priority is None else self._priority(request)
        key = None if self._key is None else self._key(request)
        return self._gate.entry(priority=priority, key=key, deadline_s=deadline_s)


def receiving_middleware() -> Any:
    """Return a middleware that reports to `pressure.receive_s` when a request's body is complete.

    A body that stops arriving is disconnected; a slow handler is not, and nothing is expected on a WebSocket. aiohttp
    has no hook for partial headers, for which the loop estimates as before.
    """

    async def report(request: web.Request, handler: Any) -> Any:
        transport, body = request.transport, request.content
        if transport is None or not set_receiving(transport, not body.is_eof()):
            return await handler(request)
        is_answered = False

        def on_complete() -> None:
            if is_answered:
                expect_request(transport)
            else:
                set_receiving(transport, False)

        if not body.is_eof():
            body.on_eof(on_complete)
        try:
            return await handler(request)
        finally:
            is_answered = True
            if body.is_eof():
                expect_request(transport)

    return web.middleware(report)


def _is_disconnected(request: web.Request) -> bool:
    transport = request.transport
    return transport is None or bool(transport.is_closing())


def _has_begun(request: web.Request) -> bool:
    writer = request.writer
    return writer is not None and writer.output_size > 0


def _is_websocket(request: web.Request) -> bool:
    return bool(request.headers.get("Upgrade", "").lower() == "websocket")


def _answer(request: web.Request, refused: Overloaded, as_json: bool) -> web.Response:
    reply = http_reply(refused, as_json=as_json)
    headers = {name: value for name, value in reply.text_headers.items() if name != "content-length"}
    response = web.Response(status=reply.status, headers=headers, body=reply.body)
    if request.can_read_body:
        # otherwise aiohttp reads the rest of the body to use the connection again
        response.force_close()
    return response
