"""Each ordeal: a server, an attack of some size for some time, and what has to hold meanwhile and after it.

The same ordeals run short in tests/e2e and long in tests/soak; the bounds say what a busy machine may add.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.net.build import build

from tests.soak.abuse import (
    PATIENCE_S,
    Probe,
    Server,
    Slowloris,
    connected,
    never_reading,
    serving,
    stopped_now_and_then,
    storm_of_resets,
)
from tests.soak.stress import slope

LOAD = Path(__file__).parents[2] / "benchmarks" / "pressure"
CALM_S = 1.0
RECEIVE_S, SLOW_READER_S = 1.0, 1.0
# several times what a loop holds reads for
STALL_S = 0.15
# what is put up in a process that has served its first thousands of requests
GROWTH_BYTES = 32 << 20
FEW_DESCRIPTORS = 64


class TooSlow(AssertionError):
    """A latency beyond its bound. Once it may be the machine's doing; what is so each time is the attack's."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The latency of nine in ten answers under attack: so many times that in calm, and so much more."""

    times: float
    more_s: float

    def check(self, calm_s: float, attacked_s: float) -> None:
        most_s = self.times * calm_s + self.more_s
        if attacked_s > most_s:
            raise TooSlow(f"{attacked_s * 1000:.1f} ms under attack, {calm_s * 1000:.1f} ms in calm")


async def _attacked(
    server: Server,
    attack: AbstractAsyncContextManager[Any],
    seconds: float,
    bound: Bound,
    within: Callable[[], object] = lambda: None,
    may_fail: float = 0.0,
) -> None:
    """`within` is what has to hold during the attack; of the requests of a client that behaves `may_fail` may fail."""
    probe = Probe(server.address)
    try:
        calm_s = await probe.run_for(CALM_S)
        async with attack:
            attacked_s = await probe.run_for(seconds)
            print(f"nine answers in ten within {attacked_s * 1e3:.2f} ms under attack, {calm_s * 1e3:.2f} ms in calm")
            bound.check(calm_s, attacked_s)
            await asyncio.to_thread(within)
        asked = len(probe.latencies_s)
        assert probe.failures.total() <= may_fail * asked, (
            f"of {asked} requests of a client that behaves failed: {dict(probe.failures)}"
        )
    finally:
        await probe.close()


def slow_senders(count: int, seconds: float, bound: Bound, receive_s: float = RECEIVE_S) -> None:
    """Connections that do not end their requests: the others are served as before, and each of them is cut in time."""
    with serving(f"pressure.receive_s={receive_s}") as server:
        before = server.sockets()
        attack = Slowloris(server.address, count)

        def closed() -> None:
            assert attack.begun >= count * max(1.0, seconds / (receive_s + 3)), f"{attack.begun} were cut and came anew"
            attack.renews = False
            # the probe's connection is one
            server.wait_until_sockets(before + 1)

        asyncio.run(_attacked(server, attack, seconds, bound, closed))
        server.wait_until_sockets(before)


def stalls(count: int, seconds: float, bound: Bound) -> None:
    """The machine takes the processor away now and then, beside connections that drip: nobody is told to come later.

    But one in a hundred: where there is less of a processor than what drips takes, that is overload.
    """
    with serving() as server:
        attack = stopped_now_and_then(server, count, STALL_S)
        asyncio.run(_attacked(server, attack, seconds, replace(bound, more_s=bound.more_s + STALL_S), may_fail=0.01))


def resets(per_s: int, seconds: float, bound: Bound) -> None:
    """Connections that are reset with a request in them: the others are served, nothing is left of those."""
    with serving() as server:
        before = server.sockets()
        attack = storm_of_resets(server.address, per_s)
        asyncio.run(_attacked(server, attack, seconds, bound))
        server.wait_until_sockets(before)
        balanced(server)


def readers_that_do_not_read(count: int, seconds: float, bound: Bound) -> None:
    """They are disconnected, and what is buffered for them meanwhile is bounded."""
    keys = (f"pressure.slow_reader_s={SLOW_READER_S}", "pressure.buffer_bytes=8388608")
    # each of them holds a permit until it is disconnected
    with serving(*keys, limit=str(2 * count)) as server:
        before, rss_bytes = server.sockets(), server.rss_bytes()

        def bounded() -> None:
            assert server.rss_bytes() - rss_bytes < GROWTH_BYTES, f"{server.rss_bytes() - rss_bytes} bytes more"
            server.wait_until_sockets(before + 1)

        asyncio.run(_attacked(server, never_reading(server.address, count), seconds, bound, bounded))
        server.wait_until_sockets(before)
        balanced(server)


def no_descriptors_left(seconds: float, bound: Bound) -> None:
    """More connections than the process may open: those that are open are served, and it does not spin."""
    with serving() as server:
        before = server.sockets()
        server.allow_descriptors(FEW_DESCRIPTORS)
        began = server.cpu_s(), time.monotonic()

        def idles() -> None:
            assert len(server.descriptors()) >= FEW_DESCRIPTORS - 2, "the attack has left some free"
            # the probe's requests are in it, and a try each second
            share = (server.cpu_s() - began[0]) / (time.monotonic() - began[1])
            assert share < 0.6, f"{share:.0%} of a processor while no descriptor is free"

        attack = connected(server.address, 3 * FEW_DESCRIPTORS)
        asyncio.run(_attacked(server, attack, seconds, bound, idles))
        server.wait_until_sockets(before)
        assert server.get("/") == b"done\n", "it serves again once there are descriptors"


def overload(rate_per_s: int, seconds: float, growth: Callable[[list[tuple[float, int]]], None]) -> None:
    """Ten times what it can do: memory as `growth` allows, each permit back, each connection closed."""
    with serving("pressure.lag_high_s=0.01", limit="4", deadline_s=0.1) as server:
        _load(server, 500, 1.0)
        server.wait_until_sockets(before := server.sockets())
        samples = _load(server, rate_per_s, seconds)
        growth(samples)
        server.wait_until_sockets(before)
        balanced(server)


def balanced(server: Server) -> None:
    """Wait until the gate holds nothing but the request that asks, and has let out all that it let in.

    A request of a client that has left ends after its descriptor is closed.
    """
    deadline_s = time.monotonic() + PATIENCE_S
    while (found := _left_in_gate(server)) != (1, 0, 1):
        assert time.monotonic() < deadline_s, f"in the gate, in its queue, entered and not left: {found}"
        time.sleep(0.05)


def _left_in_gate(server: Server) -> tuple[int, int, int]:
    gate = server.gate()
    return gate["inflight"], gate["queued"], gate["admitted"] - gate["finished"]


def stands_still(samples: list[tuple[float, int]]) -> None:
    """The resident memory grows by less than a megabyte a minute."""
    assert slope(samples) * 60 < 1_000_000, f"{slope(samples) * 60:.0f} bytes per minute"


def grows_little(samples: list[tuple[float, int]]) -> None:
    """In seconds there is no slope to be seen; an unbounded queue would be."""
    assert samples[-1][1] - samples[0][1] < GROWTH_BYTES


def _load(server: Server, rate_per_s: int, seconds: float) -> list[tuple[float, int]]:
    """Open-loop load; the resident memory in bytes by the time in seconds, from a quarter of a second on."""
    phase = f"load,{rate_per_s},{seconds},/work"
    command = [build("load", LOAD), str(server.address[1]), "1", "100", "4096", phase]
    samples: list[tuple[float, int]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        began_s = time.monotonic()
        while time.monotonic() - began_s < seconds:
            time.sleep(min(1.0, seconds / 8))
            samples.append((time.monotonic() - began_s, server.rss_bytes()))
        output, _ = client.communicate(timeout=30)
    found = json.loads(output)["phases"][0]
    assert client.returncode == 0 and found["good"], found
    return samples
