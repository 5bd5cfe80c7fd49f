"""Rows of threads: calls into the loop from its own thread and from another one, and the default executor."""

from __future__ import annotations

import threading

from benchmarks.micro.case import Case, Loop, nothing
from benchmarks.micro.scheduling import chain

__all__ = ["CASES"]


def threadsafe_own(loop: Loop, count: int) -> None:
    chain(loop, count, loop.call_soon_threadsafe)


def threadsafe_other(loop: Loop, count: int) -> None:
    def post() -> None:
        for _ in range(count - 1):
            loop.call_soon_threadsafe(nothing)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=post)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()


def threadsafe_ping(loop: Loop, count: int) -> None:
    """Let a thread post to the loop, and the loop wake the thread, in turns."""
    turn = threading.Lock()
    turn.acquire()

    def post() -> None:
        for _ in range(count):
            loop.call_soon_threadsafe(turn.release)
            turn.acquire()
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=post)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()


def executor(loop: Loop, count: int) -> None:
    async def main() -> None:
        for _ in range(count):
            await loop.run_in_executor(None, nothing)

    loop.run_until_complete(main())


CASES: dict[str, Case] = {
    "threadsafe call, own thread": Case(threadsafe_own),
    "threadsafe call, other thread": Case(threadsafe_other),
    "threadsafe ping-pong": Case(threadsafe_ping),
    "run_in_executor": Case(executor, counted=400),
}
