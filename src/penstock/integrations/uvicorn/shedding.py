"""Sheds requests in uvicorn's protocol before a task exists, in the turn that reads them.

A task with its context costs more than a refusal, and so do ASGI messages. The hook is in uvicorn's httptools protocol,
where it makes a request's task. With any other protocol the middleware refuses in the request's task, as under any
server. The loop itself sheds requests unread: the protocol provides the answer, if it can be sent.
"""

from __future__ import annotations

import sys
from inspect import signature
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string

from penstock.errors import Overloaded
from penstock.loop.lingering import close_lingering
from penstock.pressure.admission.replies import HttpReply, http_replies

if TYPE_CHECKING:
    import uvicorn

    from penstock.integrations.admission import AdmissionMiddleware

__all__ = ["complete_handshakes", "shed_early", "shed_unread"]

NEEDED = ("_start_asgi_task", "_unset_keepalive_if_required")
# arguments that uvicorn's request class must have for a request to be answered here
CYCLE = {"keep_alive", "access_log", "access_logger", "default_headers", "on_response"}
# sent in rotation
UNREAD = tuple(reply.to_bytes() for reply in http_replies(Overloaded(reason="lag"), close=True))


def shed_unread(config: uvicorn.Config) -> None:
    """Let the server of a loaded config provide the answer to connections that the loop sheds unread."""
    config.http_protocol_class = _answering(config.http_protocol_class)


def _answering(protocol: Any) -> Any:
    class Answering(protocol):  # type: ignore[misc]
        """uvicorn's protocol with an answer for the time between two requests."""

        @property
        def overload_reply(self) -> tuple[bytes, ...] | None:
            """The 503s, each with its own Retry-After; None while a request is in progress."""
            cycle = self.cycle
            return UNREAD if cycle is None or (cycle.response_complete and not cycle.more_body) else None

    return Answering


def complete_handshakes(config: uvicorn.Config) -> None:
    """Complete the handshake of WebSockets that are answered by an HTTP response, on the server of a loaded config.

    Some of uvicorn's protocols do not, and log an error of the application for each.
    """
    if config.ws_protocol_class is not None:
        config.ws_protocol_class = _completing(config.ws_protocol_class)


def _completing(protocol: Any) -> Any:
    class Completing(protocol):  # type: ignore[misc]
        """uvicorn's protocol; the end of an HTTP response completes its handshake."""

        async def send(self, message: Any) -> None:
            await super().send(message)
            if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
                self.handshake_complete = True

    # the protocol for websockets' legacy API sends by another method, and does not need this
    return protocol if hasattr(protocol, "asgi_send") else Completing


def shed_early(config: uvicorn.Config, admission: AdmissionMiddleware) -> bool:
    """Shed requests early that `admission`, the outermost application of a loaded config, would refuse.

    Return False, and change nothing, for a protocol or a version of uvicorn without the hook.
    """
    protocol: Any = config.http_protocol_class
    if not (all(hasattr(protocol, name) for name in NEEDED) and _cycle_arguments(protocol) >= CYCLE):
        return False
    config.http_protocol_class = _shedding(protocol, admission)
    return True


def _cycle_arguments(protocol: Any) -> set[str]:
    """Return the arguments of the protocol's request class. It is in the module of the protocol or of a base."""
    modules = [sys.modules[kind.__module__] for kind in protocol.__mro__]
    cycles = [module.RequestResponseCycle for module in modules if hasattr(module, "RequestResponseCycle")]
    return set(signature(cycles[0]).parameters) if cycles else set()


def _shedding(protocol: Any, admission: AdmissionMiddleware) -> Any:
    class Shedding(protocol):  # type: ignore[misc]
        """uvicorn's protocol; it asks the gate before it makes a task."""

        # an answer begins the next request of a pipeline: that one gets a task, so that answers do not nest
        _is_answering = False

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            # a request that was answered here has set it, and the same data begins another request
            self._unset_keepalive_if_required()
            refusal = None
            if app is admission and not self._is_answering and self._has_room():
                refusal = admission.ask_early(cycle.scope)
            if refusal is None:
                super()._start_asgi_task(cycle, app)
            else:
                self._answer(cycle, refusal.reply(cycle.scope, close=not cycle.keep_alive))

        def _has_room(self) -> bool:
            # an answer is far shorter than the high watermark: it is written without a pause
            return not self.transport.is_closing() and self.transport.get_write_buffer_size() == 0

        def _answer(self, cycle: Any, reply: HttpReply) -> None:
            """Answer as the request's own task would, in one write."""
            cycle.keep_alive = not reply.closes
            if cycle.access_log:
                _log(cycle, reply.status)
            with_body = cycle.scope["method"] != "HEAD"
            self.transport.write(reply.to_bytes(cycle.default_headers, with_body=with_body))
            cycle.response_started = cycle.response_complete = True
            if not cycle.keep_alive:
                close_lingering(self.transport)
            self._is_answering = True
            try:
                cycle.on_response()
            finally:
                self._is_answering = False
                # breaks a reference cycle: the protocol keeps its last request
                cycle.on_response = None

    return Shedding


def _log(cycle: Any, status: int) -> None:
    """Write uvicorn's access log line; its formatter needs these five arguments."""
    scope = cycle.scope
    client, path = get_client_addr(scope), get_path_with_query_string(scope)
    cycle.access_logger.info('%s - "%s %s HTTP/%s" %d', client, scope["method"], path, scope["http_version"], status)
