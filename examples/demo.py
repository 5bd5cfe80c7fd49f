"""`make demo`: examples/app.py on penstock and on stock asyncio, the same load on each in turn, and the numbers.

One server is measured at a time, on a core of its own where the machine has two. The rounds alternate and the medians
count: a busy machine slows both servers.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from urllib.request import urlopen

HERE = Path(__file__).parent
ROUNDS, SECONDS, CONNECTIONS = 5, 1.5, 32
QUIET = ["--log-level", "warning", "--no-access-log"]
ARMS = {
    "penstock": ["-m", "penstock", "serve", "app:app", *QUIET],
    "asyncio": ["-m", "uvicorn", "app:app", "--loop", "asyncio", *QUIET],
}
NEXT = """Try next, after `source .venv/bin/activate`:
  penstock serve examples.app:app     then: curl -N http://127.0.0.1:8000/stream
  penstock run examples/echo.py       any asyncio program, unchanged
  penstock doctor                     the machine, the config, advice"""


def main() -> None:
    print(f"examples/app.py by uvicorn on Python {sys.version.split()[0]}, {CONNECTIONS} keep-alive connections")
    print(f"{ROUNDS} rounds of {SECONDS:g} s on each loop in turn, medians\n", flush=True)
    with ExitStack() as stack:
        ports = {arm: stack.enter_context(serving(command)) for arm, command in ARMS.items()}
        loops = {arm: json.load(urlopen(f"http://127.0.0.1:{port}/json"))["loop"] for arm, port in ports.items()}
        results = measure(ports)
    show(results, loops)


@contextmanager
def serving(command: list[str]) -> Iterator[int]:
    """Run a server on a free port and yield the port."""
    port = free_port()
    server = subprocess.Popen([sys.executable, *command, "--port", str(port)], cwd=HERE)
    try:
        pin(server.pid, 0)
        wait_until_served(server, port)
        yield port
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_served(server: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(200):
        if server.poll() is not None:
            raise SystemExit("the server did not start: see above")
        try:
            urlopen(f"http://127.0.0.1:{port}/").close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not answer within 10 s")


def measure(ports: dict[str, int]) -> dict[str, list[dict[str, float]]]:
    """Load the servers in turn. The first round warms them up and is not counted."""
    results: dict[str, list[dict[str, float]]] = {arm: [] for arm in ports}
    for round_number in range(ROUNDS + 1):
        for arm, port in ports.items():
            found = load(port, SECONDS if round_number else 0.5)
            if round_number:
                results[arm].append(found)
        if round_number:
            rates = "   ".join(f"{arm} {found[-1]['per_second']:7,.0f}/s" for arm, found in results.items())
            print(f"  round {round_number}   {rates}", flush=True)
    return results


def load(port: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, str(HERE / "load.py"), str(port), str(CONNECTIONS), str(seconds)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE)
    pin(client.pid, 1)
    output = client.communicate()[0]
    if client.returncode:
        raise SystemExit("the load generator failed: see above")
    found: dict[str, float] = json.loads(output)
    return found


def pin(pid: int, place: int) -> None:
    """Keep server and client from sharing a core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(pid, {cores[place % len(cores)]})


def show(results: dict[str, list[dict[str, float]]], loops: dict[str, str]) -> None:
    medians = {arm: {key: median(one[key] for one in found) for key in found[0]} for arm, found in results.items()}
    print(f"\n{'':10} {'requests/s':>12} {'p50 ms':>8} {'p99 ms':>8}   loop")
    for arm, row in medians.items():
        print(f"{arm:10} {row['per_second']:12,.0f} {row['p50_ms']:8.2f} {row['p99_ms']:8.2f}   {loops[arm]}")
    ratio = medians["penstock"]["per_second"] / medians["asyncio"]["per_second"]
    print(f"\npenstock serves {ratio:.2f} times as many requests per second as stock asyncio here.\n")
    print(NEXT)


if __name__ == "__main__":
    main()
