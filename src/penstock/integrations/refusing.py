"""uvicorn refuses before there is a task: at once, in the turn that reads the request, not behind all that is ready.

A task, its context and its turn cost more than the refusal does. This reaches into uvicorn's httptools protocol, where
a request's task is made; where that is not as expected, the middleware refuses in its task, as under any server.

What the loop itself turns away is not even read: the protocol says what is answered then, and whether it can be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.errors import Overloaded
from penstock.pressure.replies import http_reply

if TYPE_CHECKING:
    import uvicorn

    from penstock.integrations.admission import AdmissionMiddleware

__all__ = ["refuse_early", "refuse_unread"]

NEEDED = ("_start_asgi_task", "_unset_keepalive_if_required")
UNREAD = http_reply(Overloaded(reason="lag"), close=True).to_bytes()


def refuse_unread(config: uvicorn.Config) -> None:
    """Have a loaded config's server say what a client is answered that the loop turns away."""
    config.http_protocol_class = _answering(config.http_protocol_class)


def _answering(protocol: Any) -> Any:
    class Answering(protocol):  # type: ignore[misc]
        """uvicorn's protocol, between two requests as long as nothing is answered."""

        @property
        def overload_reply(self) -> bytes | None:
            """503; None while a request, or one behind it, is worked on."""
            cycle = self.cycle
            return UNREAD if cycle is None or (cycle.response_complete and not cycle.more_body) else None

    return Answering


def refuse_early(config: uvicorn.Config, admission: AdmissionMiddleware) -> bool:
    """Have a loaded config's server refuse early what `admission`, its outermost application, refuses.

    False, and nothing is changed, with a protocol or a version of uvicorn that cannot.
    """
    protocol: Any = config.http_protocol_class
    if not all(hasattr(protocol, name) for name in NEEDED):
        return False
    config.http_protocol_class = _refusing(protocol, admission)
    return True


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
                self._answer(cycle, refusal)

        def _has_room(self) -> bool:
            # then the answer, far less than what makes a transport pause, is written without waiting
            return not self.transport.is_closing() and self.transport.get_write_buffer_size() == 0

        def _answer(self, cycle: Any, refusal: Any) -> None:
            cycle.transport = gathered = Gathered()
            self._is_answering = True
            steps = cycle.run_asgi(refusal)
            try:
                steps.send(None)
            except StopIteration:
                self.transport.write(b"".join(gathered.parts))
                if gathered.is_closing:
                    self.transport.close()
                return
            finally:
                self._is_answering = False
            steps.close()
            self.transport.abort()

    return Refusing


class Gathered:
    """Stands in for a transport while a refusal is written: head and body then go out together."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.is_closing = False

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.parts.append(data)

    def close(self) -> None:
        """Note it."""
        self.is_closing = True
