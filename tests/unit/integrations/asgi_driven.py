"""A driver of ASGI applications: the test sends a server's messages and reads the application's."""

import asyncio


def scope_of(kind="http", path="/", headers=(), **more):
    scope = {"type": kind, "path": path, "headers": list(headers), "http_version": "1.1"}
    return scope | ({"method": "GET"} if kind == "http" else {}) | more


class Client:
    """A request as its server sees it. `receive` waits as a server's does; `asked` counts its calls."""

    def __init__(self, *messages):
        self.messages = asyncio.Queue()
        self.sent = []
        self.asked = 0
        for message in messages:
            self.messages.put_nowait(message)

    async def receive(self):
        self.asked += 1
        return await self.messages.get()

    async def send(self, message):
        self.sent.append(message)

    def says(self, **message):
        self.messages.put_nowait(message)

    def leaves(self):
        self.says(type="http.disconnect")

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def headers(self):
        return dict(self.sent[0]["headers"])

    @property
    def body(self):
        return b"".join(message["body"] for message in self.sent[1:])


BODY = {"type": "http.request", "body": b"", "more_body": False}


async def answer(send, status=200, body=b"done"):
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def settle():
    """Run enough turns for every ready callback."""
    for _ in range(10):
        await asyncio.sleep(0)


class Service:
    """An application that holds each request until the test lets it answer."""

    def __init__(self):
        self.scopes = []
        self.bodies = []
        self.held = []

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        go = asyncio.get_running_loop().create_future()
        self.held.append(go)
        await go
        if scope["type"] == "http":
            body = b""
            while True:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            self.bodies.append(body)
            await answer(send)

    def finish(self, at=0):
        self.held.pop(at).set_result(None)
