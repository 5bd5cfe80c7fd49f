"""uvicorn refuses before there is a task: at once, in the turn that reads the request, not behind all that is ready.

A task, its context and its turn cost more than the refusal does, and so does an answer made of messages. This reaches
into uvicorn's httptools protocol, where a request's task is made; where that is not as expected, the middleware refuses
in its task, as under any server.

What the loop itself turns away is not even read: the protocol says what is answered then, and whether it can be.
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
# what a request that is answered here has to have
CYCLE = {"keep_alive", "access_log", "access_logger", "default_headers", "on_response"}
# given in turn
UNREAD = tuple(reply.to_bytes() for reply in http_replies(Overloaded(reason="lag"), close=True))


def shed_unread(config: uvicorn.Config) -> None:
    """Have a loaded config's server say what a client is answered that the loop turns away."""
    config.http_protocol_class = _answering(config.http_protocol_class)


def _answering(protocol: Any) -> Any:
    class Answering(protocol):  # type: ignore[misc]
        """uvicorn's protocol, between two requests as long as nothing is answered."""

        @property
        def overload_reply(self) -> tuple[bytes, ...] | None:
            """503, each with its own time to come back; None while a request, or one behind it, is worked on."""
            cycle = self.cycle
            return UNREAD if cycle is None or (cycle.response_complete and not cycle.more_body) else None

    return Answering


def complete_handshakes(config: uvicorn.Config) -> None:
    """Have a loaded config's WebSockets know that one which was answered by HTTP has had its handshake.

    Some of uvicorn's protocols do not, and log an error of the application's for each.
    """
    if config.ws_protocol_class is not None:
        config.ws_protocol_class = _ending(config.ws_protocol_class)


def _ending(protocol: Any) -> Any:
    class Ending(protocol):  # type: ignore[misc]
        """uvicorn's protocol, whose handshake is complete with the end of an answer."""

        async def send(self, message: Any) -> None:
            await super().send(message)
            if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
                self.handshake_complete = True

    # the one on the older half of websockets sends by another name, and needs none of this
    return protocol if hasattr(protocol, "asgi_send") else Ending


def shed_early(config: uvicorn.Config, admission: AdmissionMiddleware) -> bool:
    """Have a loaded config's server refuse early what `admission`, its outermost application, refuses.

    False, and nothing is changed, with a protocol or a version of uvicorn that cannot.
    """
    protocol: Any = config.http_protocol_class
    if not (all(hasattr(protocol, name) for name in NEEDED) and _asked_of_cycle(protocol) >= CYCLE):
        return False
    config.http_protocol_class = _refusing(protocol, admission)
    return True


def _asked_of_cycle(protocol: Any) -> set[str]:
    """What the class behind a protocol's requests is made of: it stands beside the protocol's, or beside a base's."""
    modules = [sys.modules[kind.__module__] for kind in protocol.__mro__]
    cycles = [module.RequestResponseCycle for module in modules if hasattr(module, "RequestResponseCycle")]
    return set(signature(cycles[0]).parameters) if cycles else set()


def _refusing(protocol: Any, admission: AdmissionMiddleware) -> Any:
    class Refusing(protocol):  # type: ignore[misc]
        """uvicorn's protocol, with the question asked first."""

        # while one is answered, the next of a pipeline is begun: that one has a task, so that this does not nest
        _is_answering = False

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            # of a request answered while the same data brings another one
            self._unset_keepalive_if_required()
            refusal = None
            if app is admission and not self._is_answering and self._has_room():
                refusal = admission.ask_early(cycle.scope)
            if refusal is None:
                super()._start_asgi_task(cycle, app)
            else:
                self._answer(cycle, refusal.reply(cycle.scope, close=not cycle.keep_alive))

        def _has_room(self) -> bool:
            # then the answer, far less than what makes a transport pause, is written without waiting
            return not self.transport.is_closing() and self.transport.get_write_buffer_size() == 0

        def _answer(self, cycle: Any, reply: HttpReply) -> None:
            """As the request's own task would, in one write."""
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
                # which keeps the protocol, as the protocol keeps its last request
                cycle.on_response = None

    return Refusing


def _log(cycle: Any, status: int) -> None:
    """uvicorn's line of access, whose five arguments its formatter knows."""
    scope = cycle.scope
    who, what = get_client_addr(scope), get_path_with_query_string(scope)
    cycle.access_logger.info('%s - "%s %s HTTP/%s" %d', who, scope["method"], what, scope["http_version"], status)
