"""The access log of gunicorn for ASGI: one record a request or WebSocket, in gunicorn's format."""

from __future__ import annotations

import time
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["AccessLog"]


class AccessLog:
    """An application around another one that has gunicorn's logger write each request at its end."""

    def __init__(self, app: Any, log: Any) -> None:
        self._app, self._log = app, log

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        # gunicorn's logger reads these of its own responses
        response = SimpleNamespace(status="500", sent=0, headers=[])

        async def note(message: Message) -> None:
            _note(response, message)
            await send(message)

        began_s = time.monotonic()
        try:
            await self._app(scope, receive, note)
        finally:
            passed = timedelta(seconds=time.monotonic() - began_s)
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
            self._log.access(response, SimpleNamespace(headers=headers), _environ(scope, headers), passed)


def _note(response: SimpleNamespace, message: Message) -> None:
    kind = message["type"]
    if kind in {"http.response.start", "websocket.http.response.start"}:
        response.status = str(message["status"])
    elif kind == "websocket.accept":
        response.status = "101"
    elif kind == "websocket.close" and response.status == "500":
        response.status = "403"
    elif kind in {"http.response.body", "websocket.http.response.body"}:
        response.sent += len(message.get("body", b""))
    if "headers" in message:
        response.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]


def _environ(scope: Message, headers: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the variables of WSGI that gunicorn's formats read."""
    query = scope.get("query_string", b"").decode("latin-1")
    path = scope["raw_path"].decode("latin-1") if scope.get("raw_path") else quote(scope["path"])
    client = scope.get("client")
    return {
        "REMOTE_ADDR": client[0] if client else "-",
        "REQUEST_METHOD": scope.get("method", "GET"),
        "RAW_URI": f"{path}?{query}" if query else path,
        "PATH_INFO": scope["path"],
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": f"HTTP/{scope.get('http_version', '1.1')}",
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers},
    }
