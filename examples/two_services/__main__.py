"""Two services that share a dependency, nginx in front, four times the load that the dependency can take.

`python examples/two_services [SECONDS]` starts it all and prints a line each second. It needs nginx and
`penstock[serve]`. Clients ask nginx, which asks one of two `penstock serve --limit auto`, and each of these asks the
dependency, which does 100 requests a second and queues the rest. Without limits its queue would grow, and soon no
answer would be in time. Each service has a gate of its own that lowers its limit as the dependency's latency grows: the
two settle without a word between them, the dependency stays busy, and the rest is refused with 503 and `Retry-After`,
which nginx hands to the client.
"""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

HERE = Path(__file__).parent
SLOTS, WORK_S = 10, 0.1
CAPACITY_PER_S = SLOTS / WORK_S
TIMES = 4
START_S = 30.0


class UnixConnection(http.client.HTTPConnection):
    """A connection over a Unix socket, whose path is in the place of the host."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


def main(seconds: int) -> None:
    if shutil.which("nginx") is None:
        raise SystemExit("this example needs nginx: apt install nginx")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # nginx's workers may be another user's
        folder.chmod(0o755)
        dependency, port, front = free_ports(3)
        services = [("127.0.0.1", port), str(folder / "second.sock")]
        stack.enter_context(running([sys.executable, str(HERE / "dependency.py"), str(dependency), str(SLOTS)]))
        os.environ["DEPENDENCY"] = str(dependency)
        for where in (["--port", str(port)], ["--uds", services[1]]):
            stack.enter_context(running([*SERVE, *where]))
        for service in services:
            wait_until_it_answers(service)
        config = folder / "nginx.conf"
        config.write_text(
            Template((HERE / "nginx.conf").read_text()).substitute(
                folder=folder, port=port, socket=services[1], front=front
            )
        )
        stack.enter_context(running(["nginx", "-p", str(folder), "-c", str(config), "-e", "stderr"]))
        wait_until_it_answers(("127.0.0.1", front))
        load = [sys.executable, str(HERE / "load.py"), str(front), str(TIMES * CAPACITY_PER_S)]
        show(stack.enter_context(running(load, stdout=subprocess.PIPE, text=True)), services, seconds)


SERVE = [
    *(sys.executable, "-m", "penstock", "serve", "service:app", "--app-dir", str(HERE)),
    *(
        "--no-access-log",
        "--log-level",
        "warning",
        "--limit",
        "auto",
        "--max-wait",
        "0.1",
        "--deadline",
        "0.5",
        "--exempt-path",
        "/gate",
    ),
]


def show(load: "subprocess.Popen[str]", services: list[Any], seconds: int) -> None:
    print(f"the dependency does {CAPACITY_PER_S:.0f} requests a second, {TIMES * CAPACITY_PER_S:.0f} are asked for")
    assert load.stdout is not None
    for second in range(1, seconds + 1):
        counts = json.loads(load.stdout.readline() or "{}")
        limits = [json.loads(get(service, "/gate"))["limit"] for service in services]
        told = {"second": second, "done": counts.pop("200", 0), "refused": counts.pop("503", 0), "limits": limits}
        print(json.dumps(told | counts), flush=True)


@contextlib.contextmanager
def running(command: list[str], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """Run a process until the context ends, and end it with SIGTERM."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in socks]


def wait_until_it_answers(service: Any) -> None:
    end_s = time.monotonic() + START_S
    while True:
        try:
            get(service, "/gate")
            return
        except OSError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.05)


def get(service: Any, path: str) -> bytes:
    """Return the answer's body; the service is a path or a host and a port."""
    connection = UnixConnection(service) if isinstance(service, str) else http.client.HTTPConnection(*service)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
