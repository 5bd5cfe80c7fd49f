"""Loads on the servers in turn, one at a time, and their numbers as tables."""

import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median

from tour.servers import EXAMPLES, Server, pin

# keep-alive connections of one client process
CONNECTIONS = 32
# one measurement of a server
ROUND_S = 0.8
FACTORS = (0.5, 1, 2, 4, 10)
# more than the load and the patience of its clients
GRACE_S = 30.0
Step = dict[str, dict[str, float]]


def load(script: str, *arguments: object, seconds: float) -> dict[str, float]:
    """Run a load generator on the second core, and return its results."""
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE)
    pin(client.pid, 1)
    try:
        output = client.communicate(timeout=seconds + GRACE_S)[0]
    except subprocess.TimeoutExpired:
        client.kill()
        raise SystemExit("the load generator hangs: see above") from None
    if client.returncode:
        raise SystemExit("the load generator failed: see above")
    found: dict[str, float] = json.loads(output)
    return found


def throughput(servers: dict[str, Server], rounds: int) -> float:
    """Print the requests per second on each loop, and return how many times as many penstock serves as asyncio.

    The rounds alternate and the medians count: a busy machine slows all servers. The first round warms them up.
    """
    print(f"\nThroughput of /: {CONNECTIONS} keep-alive connections, {rounds} rounds on each loop in turn", flush=True)
    rates: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(rounds + 1):
        for name, server in servers.items():
            found = load("load.py", server.port, CONNECTIONS, ROUND_S, seconds=ROUND_S)
            if number:
                rates[name].append(found["per_second"])
    for name, found in rates.items():
        print(f"  {name:9} {median(found):9,.0f} requests/s")
    return median(rates["penstock"]) / median(rates["asyncio"])


def capacity(server: Server, seconds: float) -> float:
    """Return the orders a second that a server answers to a few clients, each with the next order after an answer.

    The best of three rounds: another program may slow the machine, and none makes it faster.
    """
    rounds = [load("load.py", server.port, 4, seconds, "/order", seconds=seconds) for _ in range(3)]
    return max(found["per_second"] for found in rounds)


def measure_steps(servers: dict[str, Server], base: float, seconds: float, say: Callable[[str], None]) -> list[Step]:
    """Load each server with each multiple of the capacity, and return the numbers of each step."""
    steps = []
    for factor in FACTORS:
        step: Step = {}
        for name, server in servers.items():
            step[name] = load("tour/openload.py", server.port, "/order", base * factor, seconds, seconds=seconds)
            # late answers must not be counted in the next step
            server.wait_until_served()
        steps.append(step)
        line = ", ".join(f"{name} {found['goodput']:,.0f}/s" for name, found in step.items())
        say(f"{factor:g}x: answered in time: {line}")
    return steps


def show_steps(steps: list[Step], base: float) -> None:
    """Print goodput, the 99th percentile of its times, and the share of clients that waited in vain, by load."""
    names = list(steps[0])
    print(
        "\nOrders answered within half a second, the 99th percentile of their times, and clients that waited in vain:\n"
    )
    print(" " * 19 + "".join(f"{name:>26}" for name in names))
    for factor, step in zip(FACTORS, steps, strict=True):
        print(f"  {factor:4g}x {base * factor:9,.0f}/s " + "".join(f"{cell(step[name]):>26}" for name in names))
    most = steps[-1]["penstock"]
    refused = most["shed"] / most["due"]
    print(f"\nAt {FACTORS[-1]:g}x penstock refused {refused:.0%} of the orders, which clients may retry.")


def cell(found: dict[str, float]) -> str:
    return f"{found['goodput']:,.0f}/s {found['p99_ms']:4,.0f} ms {found['lost'] / found['due']:4.0%}"
