"""The application that is reloaded: an answer costs RELOADED_WORK_S seconds of one worker, and workers count them.

A worker's counts are in the file `RELOADED_COUNTS/<pid>-<start>`, mapped, so that they outlive its SIGKILL. The file
appears when the lifespan's startup ends, which takes RELOADED_START_S seconds.
"""

import asyncio
import mmap
import os
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

__all__ = ["LAYOUT", "PROBE", "STARTED", "app", "stat_fields"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY = b"done"
# is answered at once and not counted
PROBE = "/probe"
# the index of the start among the fields of stat
STARTED = 19
LAYOUT = struct.Struct("=QQ")


def stat_fields(pid: int | str) -> list[str]:
    """Return the fields of a process from its state on, as in proc_pid_stat(5). Raises OSError if there is none."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def own_name() -> str:
    """Return this process's number and its start, in ticks since the boot: a long soak uses a number twice."""
    return f"{os.getpid()}-{stat_fields('self')[STARTED]}"


class Counts:
    """Requests begun and ended by this worker, in a file that the harness reads."""

    def __init__(self, file: Path) -> None:
        scratch = file.with_suffix(".new")
        with scratch.open("w+b") as stream:
            stream.truncate(LAYOUT.size)
            self._words = memoryview(mmap.mmap(stream.fileno(), LAYOUT.size)).cast("Q")
        # no reader sees a file that is shorter
        scratch.rename(file)

    def begin(self) -> None:
        self._words[0] += 1

    def end(self) -> None:
        self._words[1] += 1


class Application:
    """An ASGI application that does one request at a time, for a known time."""

    def __init__(self) -> None:
        self._work_s = float(os.environ.get("RELOADED_WORK_S", "0"))
        self._free = asyncio.Semaphore(1)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["path"] == PROBE:
            await reply(send)
        else:
            await self._work(send)

    async def _work(self, send: Send) -> None:
        self._counts.begin()
        async with self._free:
            await asyncio.sleep(self._work_s)
        await reply(send)
        self._counts.end()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.sleep(float(os.environ.get("RELOADED_START_S", "0")))
        self._counts = Counts(Path(os.environ["RELOADED_COUNTS"]) / own_name())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


async def reply(send: Send) -> None:
    headers = [(b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


app = Application()
