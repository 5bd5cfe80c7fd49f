"""A gate before an ASGI application: requests that it cannot serve in time are shed at once. For any framework.

The middleware makes no task. A shed request is answered with its body unread. A request that waits for its permit
listens meanwhile for its client to disconnect. Deadlines come by header, the time of arrival by a context variable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from penstock.errors import Overloaded
from penstock.integrations.body_drain import drain
from penstock.integrations.client_watch import ReadAhead
from penstock.integrations.deadline_scope import client_timeout_s, deadline_scope, earlier_s
from penstock.integrations.sending import Sender
from penstock.pressure.admission.gate import Entry, Gate, Priority
from penstock.pressure.admission.healthchecks import PATHS, HealthChecks
from penstock.pressure.admission.paths import PathSet
from penstock.pressure.admission.replies import CLOSE, HttpReply, http_reply
from penstock.pressure.admission.streams import STREAM_AFTER_S
from penstock.pressure.overload.loop import arrived_at

if TYPE_CHECKING:
    from penstock.pressure.admission.core import Waiter
    from penstock.pressure.limits import Limit

__all__ = ["AdmissionMiddleware", "Refusal", "refusal"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
# the entry, its waiter, the deadline and the time that the deadline counts from
Asked: TypeAlias = tuple[Entry, "Waiter | None", float | None, float | None]

# up to this size the server reads a refused request's body, so that the connection can be used again
UNREAD_BYTES = 65536
# a WebSocket's close code for "try again later"
TRY_AGAIN_LATER = 1013
# the scope's key of an answer that was asked for before the request's task was made
ASKED = "penstock.asked"


class AdmissionMiddleware:
    """An ASGI application that admits requests to another one through a gate.

    Without a `gate` it makes one of `limit` ("auto"), `initial` (the first limit of auto), `max_wait_s` and
    `deadline_s`, in seconds, with `reserve` permits for critical requests, and closes it when the server ends.
    `health` are the paths of health checks: a bounded number of them passes the gate, the others are critical.
    `exempt` are the paths that need no permit; `/events/*` stands for all below it. An answer that goes on for
    `stream_after_s` seconds is a stream: it gives its permit back, and there may be `max_streams` of them.
    `priority(scope)` returns a request's priority class, `key(scope)` the key of its fair share. A WebSocket holds its
    permit for its `handshake`, for the whole `connection`, or needs `none`. Refusals are one line of text, or of JSON
    with `as_json`. Raises ValueError for options that contradict each other.
    """

    def __init__(
        self,
        app: App,
        gate: Gate | None = None,
        *,
        limit: int | Literal["auto"] | Limit | None = None,
        initial: int | None = None,
        max_wait_s: float | None = None,
        deadline_s: float | None = None,
        reserve: int = 4,
        priority: Callable[[Scope], Priority] | None = None,
        key: Callable[[Scope], object] | None = None,
        health: Iterable[str] = PATHS,
        exempt: Iterable[str] = (),
        max_streams: int | None = None,
        stream_after_s: float = STREAM_AFTER_S,
        websockets: Literal["handshake", "connection", "none"] = "handshake",
        as_json: bool = False,
    ) -> None:
        if gate is not None and (limit, initial, max_wait_s, deadline_s, max_streams) != (None,) * 5:
            raise ValueError(
                "a given gate has its own limit, initial, max_wait_s, deadline_s and max_streams: "
                "give them to the gate, or give no gate"
            )
        if websockets not in {"handshake", "connection", "none"}:
            raise ValueError(f"websockets={websockets!r}: allowed is 'handshake', 'connection' or 'none'")
        self._app = app
        self._owns_gate = gate is None
        self.gate = gate or Gate(
            "auto" if limit is None else limit,
            initial=initial,
            max_streams=max_streams,
            max_wait_s=max_wait_s,
            deadline_s=deadline_s,
            reserve=reserve,
            name="asgi",
        )
        self._priority, self._key = priority, key
        self._health = HealthChecks(health)
        self._exempt = PathSet(exempt)
        self._stream_after_s = stream_after_s
        self._websockets = websockets
        self._as_json = as_json

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, shed it, or pass the server's lifespan messages on."""
        kind = scope["type"]
        if kind != "lifespan" and self._is_exempt(scope):
            await self._app(scope, receive, send)
        elif kind == "http" or (kind == "websocket" and self._websockets != "none"):
            await self._serve(scope, receive, send)
        elif kind == "lifespan" and self._owns_gate:
            await self._app(scope, self._until_shutdown(receive), send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_health_check(scope) and self._health.enter():
            await self._run(scope, receive, Sender(send), self._health.leave)
            return
        try:
            early = scope.pop(ASKED, None)
            entry, waiter, deadline_s, arrived_s = self._ask(scope) if early is None else early.take()
            if waiter is not None:
                receive = ahead = ReadAhead(receive)
                if not await ahead.wait(entry, waiter):
                    await self._end_disconnected(scope, send)
                    return
        except Overloaded as refused:
            await self._answer(refused)(scope, receive, send)
            return
        is_websocket = scope["type"] == "websocket"
        may_stream = not is_websocket or self._websockets == "handshake"
        sender = Sender(send, self.gate, entry if may_stream else None, self._stream_after_s)
        # the deadline of a WebSocket bounds its handshake only
        await self._run(scope, receive, sender, entry.abandon, None if is_websocket else deadline_s, arrived_s)

    async def _end_disconnected(self, scope: Scope, send: Send) -> None:
        """Count a client that disconnected while it waited. It reads no answer, but servers want a handshake ended."""
        self.gate.count_disconnected()
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})

    async def _run(
        self,
        scope: Scope,
        receive: Receive,
        sender: Sender,
        leave: Callable[[], None],
        deadline_s: float | None = None,
        arrived_s: float | None = None,
    ) -> None:
        try:
            refused = await self._refusal_within(scope, receive, sender, deadline_s, arrived_s)
            if refused is not None:
                await self._answer(refused)(scope, receive, sender.send)
        finally:
            sender.end()
            leave()

    async def _refusal_within(
        self, scope: Scope, receive: Receive, sender: Sender, deadline_s: float | None, arrived_s: float | None
    ) -> Overloaded | None:
        """Run the application. Return the Overloaded to answer: of a gate or lane within it, or of a shed stream."""
        try:
            with deadline_scope(deadline_s, arrived_s):
                await self._app(scope, receive, sender)
        except Exception as error:
            # frameworks may raise something else after a send that has raised
            refused = error if isinstance(error, Overloaded) else sender.refused
            if refused is None or sender.has_begun:
                raise
            return refused
        return None if sender.has_begun else sender.refused

    def ask_early(self, scope: Scope) -> Refusal | None:
        """Ask before the server makes a task for the request. Return its refusal, or None to make the task."""
        if self._is_health_check(scope) or self._is_exempt(scope):
            return None
        try:
            scope[ASKED] = EarlyAsk(self._ask(scope))
        except Overloaded as refused:
            return self._answer(refused)
        except Exception:
            # `priority` or `key` failed: it will fail again in the task, where failures are logged
            scope.pop(ASKED, None)
        return None

    def _ask(self, scope: Scope) -> Asked:
        """Ask the gate. Return the entry, its waiter if it must wait, the deadline in seconds and when that began.

        Raises Overloaded.
        """
        # a deferred read counts: the request is older than its first byte here
        arrived_s = arrived_at.get(None)
        deadline_s = earlier_s(self.gate.deadline_s, client_timeout_s(scope["headers"]))
        if deadline_s is not None and arrived_s is None:
            arrived_s = asyncio.get_running_loop().time()
        if self._is_health_check(scope):
            priority = Priority.CRITICAL
        else:
            priority = Priority.NORMAL if self._priority is None else self._priority(scope)
        key = None if self._key is None else self._key(scope)
        entry = self.gate.entry(priority=priority, key=key, arrived_s=arrived_s, deadline_s=deadline_s)
        return entry, entry.ask(), deadline_s, arrived_s

    def _is_health_check(self, scope: Scope) -> bool:
        if scope["type"] != "http":
            return False
        method = scope["method"]
        return self._health.is_one(method, scope["path"]) or self._health.is_one(method, _below_root(scope))

    def _is_exempt(self, scope: Scope) -> bool:
        return scope["path"] in self._exempt or _below_root(scope) in self._exempt

    def _answer(self, refused: Overloaded) -> Refusal:
        return Refusal(refused, as_json=self._as_json)

    def _until_shutdown(self, receive: Receive) -> Receive:
        async def receive_and_close() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self.gate.close()
            return message

        return receive_and_close


class EarlyAsk:
    """An answer of the gate to a request that has no task yet. Its permit or place is given up if no task takes it."""

    __slots__ = ("_asked",)

    def __init__(self, asked: Asked) -> None:
        self._asked: Asked | None = asked

    def take(self) -> Asked:
        """Return the answer, which is the caller's from now on."""
        asked, self._asked = self._asked, None
        assert asked is not None
        return asked

    def __del__(self) -> None:
        if self._asked is not None:
            self._asked[0].abandon()


class Refusal:
    """An ASGI application that answers any request with one `Overloaded`. Starlette accepts it as a response."""

    def __init__(self, refused: Overloaded, *, as_json: bool = False) -> None:
        self._refused = refused
        self._as_json = as_json

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the refusal, then read and discard the rest of a long body."""
        if scope["type"] == "http":
            rest = receive if _is_http_1(scope) and _sends_body(scope) else None
            await _send(self.reply(scope), scope, send, "http", rest)
        elif "websocket.http.response" in (scope.get("extensions") or {}):
            await _send(http_reply(self._refused, as_json=self._as_json), scope, send, "websocket.http")
        else:
            # before the handshake: most servers answer 403
            reason = f"overloaded: {self._refused.reason}"
            await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": reason})

    def reply(self, scope: Scope, *, close: bool = False) -> HttpReply:
        """Return the reply to an HTTP request; with `close` it always ends the connection."""
        close = close or (_is_http_1(scope) and _has_long_body(scope))
        return http_reply(self._refused, as_json=self._as_json, close=close)


async def _send(reply: HttpReply, scope: Scope, send: Send, kind: str, rest: Receive | None = None) -> None:
    """Send the reply, and its end after the body from `rest` is drained."""
    headers = [header for header in reply.headers if header != CLOSE or _is_http_1(scope)]
    await send({"type": f"{kind}.response.start", "status": reply.status, "headers": headers})
    body = b"" if scope.get("method") == "HEAD" else reply.body
    if rest is not None:
        await send({"type": f"{kind}.response.body", "body": body, "more_body": True})
        await drain(rest)
        body = b""
    await send({"type": f"{kind}.response.body", "body": body})


def _is_http_1(scope: Scope) -> bool:
    version: str = scope.get("http_version", "1.1")
    return version.startswith("1")


def _has_long_body(scope: Scope) -> bool:
    """Return whether reading the body would take longer than a new connection."""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return True
        if name == b"content-length":
            return not value.isdigit() or int(value) > UNREAD_BYTES
    return False


def _sends_body(scope: Scope) -> bool:
    """Return whether the client sends the body unasked: without `Expect: 100-continue`."""
    return _has_long_body(scope) and all(name != b"expect" for name, _ in scope["headers"])


async def refusal(request: object, refused: Overloaded) -> Refusal:
    """Return the refusal of an `Overloaded` that is raised within a request, as an exception handler.

    In Starlette and FastAPI: `app.add_exception_handler(Overloaded, refusal)`. Without it they answer 500 before the
    middleware sees the exception.
    """
    return Refusal(refused)


def _below_root(scope: Scope) -> str:
    """Return the path without the root: uvicorn puts its `--root-path` in front of the client's path."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and path.startswith(root + "/") else path
