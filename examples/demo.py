"""`make demo`, the tour: a service on penstock, stock asyncio and uvloop under load, then two faults and their names.

1. examples/app.py on each loop in turn, without a gate: as many requests as it serves.
2. A service of measured capacity under half to ten times as many requests as it can serve.
3. A stall and a leak, while a watch from outside prints what is wrong.
"""

import argparse
import importlib.util
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from urllib.request import urlopen

from tour.measuring import capacity, measure_steps, show_steps, throughput
from tour.servers import Server, serving
from tour.watching import Watch

from penstock.loop import NATIVE

QUIET = ["--log-level", "warning", "--no-access-log"]
# growing sites are looked for in each check, and 24 checks in a row must agree
PENSTOCK = ["--limit", "auto", "--monitor", "127.0.0.1:0", "--set", "tasks.check_s=0.25"]
Say = Callable[[str], None]
LOOPS = ("asyncio", "uvloop")
PAGE_S = 15.0
FAULT_S = 40.0
LEAKS_A_SECOND = 10
# the whole tour; a hang ends it
DEADLINE_S = 300
NEXT = """Try next, after `source .venv/bin/activate`:
  penstock serve examples.app:app     then: curl -N http://127.0.0.1:8000/stream
  penstock run examples/echo.py       any asyncio program, unchanged
  penstock ps                         the processes of this user; penstock report PID: one of them in a file
  penstock doctor                     the machine, the config, advice"""


def main() -> None:
    parser = argparse.ArgumentParser(description="The tour of penstock, about 80 seconds.")
    parser.add_argument("--step", type=float, default=2.5, metavar="S", help="length of each load; default: 2.5")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of the first part; default: 3")
    options = parser.parse_args()
    began_s = time.monotonic()
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(DEADLINE_S)

    def say(line: str) -> None:
        print(f"  {time.monotonic() - began_s:5.1f} s  {line}", flush=True)

    print(f"A service by uvicorn on Python {sys.version.split()[0]}, on three loops\n")
    with started("app:app", []) as servers:
        show_loops(servers)
        ratio = throughput(servers, options.rounds)
    with started("tour.service:app", PENSTOCK) as servers:
        tour(servers, options.step, say)
    print(f"\npenstock serves {ratio:.2f} times as many requests per second as stock asyncio here.\n")
    print(NEXT)


@contextmanager
def started(app: str, extra: list[str]) -> Iterator[dict[str, Server]]:
    """Serve an application on each loop; `extra` are options of `penstock serve`. uvloop may be absent."""
    arms = {"penstock": ["-m", "penstock", "serve", app, *extra, *QUIET]}
    for loop in LOOPS:
        if loop == "asyncio" or importlib.util.find_spec(loop):
            arms[loop] = ["-m", "uvicorn", app, "--loop", loop, *QUIET]
    with ExitStack() as stack:
        yield {name: stack.enter_context(serving(name, line)) for name, line in arms.items()}


def show_loops(servers: dict[str, Server]) -> None:
    for name, server in servers.items():
        with urlopen(f"http://127.0.0.1:{server.port}/json", timeout=10) as answer:
            print(f"  {name:9} {json.load(answer)['loop']}")


def too_late(number: int, frame: FrameType | None) -> None:
    raise SystemExit(f"the tour is not over after {DEADLINE_S} s")


def tour(servers: dict[str, Server], step_s: float, say: Say) -> None:
    """Load the servers, then cause faults on penstock while a watch names them."""
    own = servers["penstock"]
    print(f"\nThe monitor's page, to look at meanwhile: {page_of(own)}", flush=True)
    watch = Watch(own.process.pid, say)
    base = capacity(own, step_s / 4)
    print(
        f"\nOverload: a service that answers {base:,.0f} orders a second; its clients wait for half a second",
        flush=True,
    )
    steps = measure_steps(servers, base, step_s, say)
    print("\nFaults in the service on penstock, with little load", flush=True)
    inject(own, watch, say)
    show_steps(steps, base)


def page_of(server: Server) -> str:
    until_s = time.monotonic() + PAGE_S
    while not server.page:
        if time.monotonic() > until_s or server.process.poll() is not None:
            raise SystemExit(f"the monitor's page did not start:\n{''.join(server.lines)}")
        time.sleep(0.05)
    return server.page


def inject(server: Server, watch: Watch, say: Say) -> None:
    """Cause a stall, then a leak, and wait until each is named; raise SystemExit if one is not."""
    if NATIVE:
        say("a handler calls time.sleep(0.5)")
        # again if the machine was so busy that its own pauses hid the stall
        for _ in range(5):
            get(server, "/stall")
            if watch.wait_for("blocked", FAULT_S / 5) is not None:
                break
        expect(watch, "blocked", "the stall", 0)
    say(f"a handler keeps {LEAKS_A_SECOND} tasks a second that never end")
    until_s = time.monotonic() + FAULT_S
    while "growing" not in watch.seen and time.monotonic() < until_s and not watch.error:
        get(server, "/leak")
        time.sleep(1 / LEAKS_A_SECOND)
    expect(watch, "growing", "the leak", 1.0)
    watch.stop()


def expect(watch: Watch, kind: str, fault: str, within_s: float) -> None:
    if watch.wait_for(kind, within_s) is None:
        watch.stop()
        raise SystemExit(f"{fault} was not named{f': {watch.error}' if watch.error else ''}")


def get(server: Server, path: str) -> None:
    with urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
        answer.read()


if __name__ == "__main__":
    main()
