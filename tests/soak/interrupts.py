"""Ctrl-C at random instants into a busy loop that is run again: no handle, timer, post or byte is lost or doubled.

    python -m tests.soak.interrupts --seconds 20 --seed 1 [--loop asyncio]

What is counted is done by C functions, which no interrupt divides; Python code runs beside them, to be interrupted. The
seed fixes the choices, not the instants. Exit code 1 and a list of what was wrong, if anything was.
"""

import argparse
import asyncio
import random
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import penstock
from penstock.loop import EventLoop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "penstock": EventLoop,
    "product": penstock.new_event_loop,
}
PATIENCE_S = 30.0


class Scope:
    """A run scope: what a run changes in the process, and must put back."""

    inside = False

    def __enter__(self) -> None:
        self.inside = True

    def __exit__(self, *_: object) -> None:
        self.inside = False


class Receiver(asyncio.Protocol):
    """Its `data_received` is set to a C function."""


class Poster(threading.Thread):
    """A thread that posts numbers, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(daemon=True)
        self.loop, self.posted_count, self.arrived, self.over = loop, 0, list[int](), False

    def run(self) -> None:
        while not self.over:
            for _ in range(20):
                self.loop.call_soon_threadsafe(self.arrived.append, self.posted_count)
                self.posted_count += 1
            time.sleep(0.0005)

    def stop(self) -> None:
        self.over = True
        self.join()


class Fuzz:
    """One loop, what was scheduled on it, and what was found wrong."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        self.loop, self.random, self.wrong = loop, random.Random(seed), Counter[str]()
        self.interrupts = self.scheduled_count = self.written_bytes = 0
        self.ran: list[int] = []
        self.chunks: list[bytes] = []
        self.tasks: list[asyncio.Task[None]] = []
        # Debug mode's checks are Python, which an interrupt divides: a call from within a callback may not happen.
        self.calls_from_callbacks = seed % 3 > 0
        loop.set_debug(not self.calls_from_callbacks)
        loop.slow_callback_duration = PATIENCE_S  # type: ignore[attr-defined]
        self.scope: Any = Scope()
        if isinstance(loop, EventLoop) and loop._run_scope is None:
            loop.set_run_scope(lambda: self.scope)
        self.expected_state = self.state()
        signal.signal(signal.SIGALRM, signal.default_int_handler)

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong[what] += 1

    def state(self) -> tuple[object, ...]:
        """The state that a run sets and restores."""
        loop = asyncio._get_running_loop()
        hooks, depth = sys.get_asyncgen_hooks(), sys.get_coroutine_origin_tracking_depth()
        return loop, self.loop.is_running(), tuple(hooks), depth, self.scope.inside, signal.getsignal(signal.SIGINT)

    # --- work

    def connect(self) -> None:
        here, there = socket.socketpair()
        for sock in (here, there):
            sock.setblocking(False)
        receiver = Receiver()
        receiver.data_received = self.chunks.append  # type: ignore[method-assign]
        self.writer, _ = self.finish(self.loop.create_connection(asyncio.Protocol, sock=here))
        self.reader, _ = self.finish(self.loop.create_connection(lambda: receiver, sock=there))

    def next_key(self) -> int:
        self.scheduled_count += 1
        return self.scheduled_count

    def schedule(self) -> None:
        """A handful of everything; what counts is done by C alone."""
        loop, choose = self.loop, self.random
        for _ in range(choose.randrange(60)):
            loop.call_soon(self.ran.append, self.next_key())
            loop.call_later(choose.random() / 500, self.ran.append, self.next_key())
            loop.call_at(loop.time() - choose.random(), self.ran.append, self.next_key())
            loop.call_later(choose.random() / 100, int).cancel()
        if self.calls_from_callbacks:
            for _ in range(choose.randrange(20)):
                loop.call_soon(partial(loop.call_soon, self.ran.append, self.next_key()))
                loop.call_soon(partial(loop.call_later, 0.0005, self.ran.append, self.next_key()))
        for _ in range(choose.randrange(5)):
            loop.call_soon(self.compute)
            future = loop.create_future()
            loop.call_later(choose.random() / 500, future.set_result, None)
            self.tasks.append(loop.create_task(self.wait(future)))
        for _ in range(choose.randrange(4)):
            data = bytes(choose.choice([1, 100, 5000, 100_000]))
            self.written_bytes += len(data)
            loop.call_soon(self.writer.write, data)

    def compute(self) -> None:
        sum(range(self.random.randrange(3000)))

    async def wait(self, future: asyncio.Future[None]) -> None:
        await future
        self.compute()

    # --- runs

    def prepared(self) -> tuple[Any, Callable[[], object]]:
        """One of the ways to run, some milliseconds long, and the handle that ends it."""
        delay_s = self.random.random() / 300
        if self.random.random() < 0.5:
            return self.loop.call_later(delay_s, self.loop.stop), self.loop.run_forever
        future = self.loop.create_future()
        end = self.loop.call_later(delay_s, future.set_result, None)
        return end, partial(self.loop.run_until_complete, future)

    def run_interrupted(self) -> None:
        end, run = self.prepared()
        delay_s = self.random.choice([0.0001, 0.001, 0.004]) * self.random.random() + 1e-6
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, delay_s)
                run()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            self.interrupts += 1
        except RuntimeError as error:
            self.expect(False, f"run: {error}")
        end.cancel()
        self.expect(self.state() == self.expected_state, "something of the run was left behind")

    def finish(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, PATIENCE_S))

    def is_accounted(self) -> bool:
        return (
            len(self.ran) >= self.scheduled_count
            and sum(map(len, self.chunks)) >= self.written_bytes
            and all(task.done() for task in self.tasks)
        )

    async def until_accounted(self, poster: Poster) -> None:
        end_s = time.monotonic() + PATIENCE_S / 2
        while not (self.is_accounted() and len(poster.arrived) >= poster.posted_count) and time.monotonic() < end_s:
            await asyncio.sleep(0.001)

    def run(self, seconds: float) -> None:
        self.connect()
        poster = Poster(self.loop)
        poster.start()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.schedule()
            self.run_interrupted()
        poster.stop()
        self.finish(self.until_accounted(poster))
        self.expect(sorted(self.ran) == list(range(1, self.scheduled_count + 1)), "a handle was lost or ran twice")
        self.expect(poster.arrived == list(range(poster.posted_count)), "a post was lost, doubled or out of order")
        self.expect(sum(map(len, self.chunks)) == self.written_bytes, "bytes were lost or doubled")
        self.expect(all(task.done() for task in self.tasks), "a task was never woken")
        for task in self.tasks:
            if task.done():
                task.exception()
        self.writer.abort()
        self.reader.abort()
        self.finish(asyncio.sleep(0.01))


def fuzz(make: Callable[[], asyncio.AbstractEventLoop], seconds: float, seed: int) -> Fuzz:
    """One run on a fresh loop; `wrong` has what was wrong."""
    loop = make()
    try:
        found = Fuzz(loop, seed)
        found.run(seconds)
    finally:
        loop.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loop", choices=LOOPS, default="penstock")
    options = parser.parse_args()
    runs = max(int(options.seconds // 5), 3)
    wrong, interrupts = Counter[str](), 0
    for seed in range(options.seed, options.seed + runs):
        found = fuzz(LOOPS[options.loop], options.seconds / runs, seed)
        interrupts += found.interrupts
        wrong += found.wrong
    print(f"{interrupts} interrupts on {options.loop}; wrong: {dict(wrong) or 'nothing'}")
    return int(bool(wrong) or not interrupts)


if __name__ == "__main__":
    sys.exit(main())
