"""A load generator in a process of its own: clients with pauses between requests, which account for every request.

`python -m tests.soak.askers ADDRESS CLIENTS PER_S` runs until its stdin is closed, lets each request end that has
begun, and prints what became of all requests as JSON. ADDRESS is HOST:PORT or the path of a Unix socket. Half of the
clients keep their connection. The loop is asyncio's: nothing of penstock is in it.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from contextlib import suppress

__all__ = ["Askers", "main"]

KEPT = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
NEW = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
# A server that stops closes an idle connection after half a second of silence, and a client has to expect it: this one
# opens another connection in time.
LONGEST_SILENCE_S = 0.3
ANSWER_S = 120.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Lost(Exception):
    """A request that was accepted and not answered whole, told in a word or two."""


class Askers:
    """Clients that together send `per_s` requests a second, if no answer takes longer than a client's period."""

    def __init__(self, address: str, clients: int, per_s: float) -> None:
        self._address = address
        self._clients = clients
        self._period_s = clients / per_s
        self._is_ending = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.longest_s = 0.0

    async def run(self, end: "asyncio.Future[object]") -> None:
        """Ask until `end` is done and the last answer is there."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._clients):
                group.create_task(self._client(is_kept=number % 2 == 0))
            await end
            self._is_ending.set()

    async def _client(self, *, is_kept: bool) -> None:
        streams: Streams | None = None
        used_s = time.monotonic()
        await self._pause(random.random() * self._period_s)
        while not self._is_ending.is_set():
            if streams is not None and (streams[0].at_eof() or time.monotonic() - used_s > LONGEST_SILENCE_S):
                await _close(streams)
                streams = None
            began_s = time.monotonic()
            if streams is None:
                streams = await self._connected()
            if streams is not None and not await self._ask(streams, is_kept=is_kept):
                await _close(streams)
                streams = None
            used_s = time.monotonic()
            await self._pause(began_s + random.uniform(0.5, 1.5) * self._period_s - used_s)
        if streams is not None:
            await _close(streams)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._is_ending.wait()

    async def _connected(self) -> Streams | None:
        try:
            if "/" in self._address:
                return await asyncio.open_unix_connection(self._address)
            host, _, port = self._address.rpartition(":")
            return await asyncio.open_connection(host, int(port))
        except BlockingIOError:
            # a Unix socket's way to say that its queue is full; over TCP the kernel asks again by itself
            self.counts["queue full"] += 1
        except OSError as error:
            self.counts[f"not connected: {type(error).__name__}"] += 1
        return None

    async def _ask(self, streams: Streams, *, is_kept: bool) -> bool:
        """Send a request and account for its answer. Return whether the connection can be used again."""
        self.counts["accepted"] += 1
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_S):
                status, may_stay = await self._exchange(streams, KEPT if is_kept else NEW)
                if not is_kept:
                    await _expect_end(streams[0])
        except Lost as lost:
            self.counts[f"lost, {'kept' if is_kept else 'new'}: {lost}"] += 1
            return False
        except TimeoutError:
            self.counts["lost: no answer"] += 1
            return False
        self.counts[f"answered {status}"] += 1
        self.longest_s = max(self.longest_s, time.monotonic() - began_s)
        return may_stay and is_kept

    async def _exchange(self, streams: Streams, request: bytes) -> tuple[int, bool]:
        reader, writer = streams
        head = b""
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            await reader.readexactly(int(fields[b"content-length"]))
        except asyncio.IncompleteReadError as error:
            raise Lost("cut answer" if head or error.partial else "empty answer") from error
        except OSError as error:
            raise Lost(f"{type(error).__name__} {'within' if head else 'before'} the answer") from error
        return int(head.split(b" ", 2)[1]), fields.get(b"connection") != b"close"


async def _expect_end(reader: asyncio.StreamReader) -> None:
    try:
        if await reader.read(1):
            raise Lost("more than the answer")
    except OSError as error:
        raise Lost(f"{type(error).__name__} after the answer") from error


async def _close(streams: Streams) -> None:
    streams[1].close()
    with suppress(OSError):
        await streams[1].wait_closed()


async def main(address: str, clients: str, per_s: str) -> None:
    askers = Askers(address, int(clients), float(per_s))
    began_s = time.monotonic()
    await askers.run(asyncio.get_running_loop().run_in_executor(None, sys.stdin.read))
    took_s = time.monotonic() - began_s
    print(json.dumps({"counts": askers.counts, "took_s": took_s, "longest_s": askers.longest_s}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
