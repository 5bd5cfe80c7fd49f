"""A service whose computations run on a Dask cluster, by one setting: `executors.cpu.kind = "dask://HOST:PORT"`.

`python examples/dask_lane` starts a real scheduler and two workers, processes of their own, then `penstock serve` with
that setting, and asks for a few thumbnails of the Mandelbrot set. It needs `penstock[serve,dask]`. The service's code
(service.py) names no cluster: without the setting the same calls run on the machine's own cores. The workers must be
able to import what is called, here `service`: they get the folder in PYTHONPATH, as they would get a wheel.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
START_S = 60.0
THUMBNAILS = 8


def main() -> None:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scheduler = cluster(stack, folder)
        port = free_port()
        serve = [sys.executable, "-m", "penstock", "serve", "service:app", "--app-dir", str(HERE), "--port", str(port)]
        serve += ["--log-level", "warning", "--no-access-log"]
        # the one setting
        serve += ["--set", f"executors.cpu.kind=dask://{scheduler}"]
        stack.enter_context(running(serve))
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: ask(url))
        with ThreadPoolExecutor(THUMBNAILS) as clients:
            drawn = list(clients.map(lambda number: ask(f"{url}/thumbnail/{number}"), range(THUMBNAILS)))
        workers = {str(each["process"]) for each in drawn}
        lane = ask(f"{url}/lane")
        print(f"{lane['ok']} thumbnails by the lane {lane['lane']}, drawn in processes {', '.join(sorted(workers))}")
        print(f"the service itself is process {lane['process']}")


def cluster(stack: contextlib.ExitStack, folder: Path) -> str:
    """Start a scheduler and two workers, and return the scheduler's address."""
    told = folder / "scheduler.json"
    distributed = [sys.executable, "-m"]
    scheduler = [*distributed, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    stack.enter_context(running([*scheduler, "--scheduler-file", str(told)], **quiet))
    wait_for(lambda: json.loads(told.read_text()))
    worker = [*distributed, "distributed.cli.dask_worker", "--scheduler-file", str(told), "--nthreads", "1"]
    worker += ["--no-nanny", "--no-dashboard", "--local-directory", str(folder)]
    for _ in range(2):
        stack.enter_context(running(worker, **quiet))
    return str(json.loads(told.read_text())["address"]).removeprefix("tcp://")


@contextlib.contextmanager
def running(command: list[str], **options: Any) -> Iterator[None]:
    """Run a process until the context ends, and end it with SIGTERM."""
    process = subprocess.Popen(command, **options)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def ask(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=START_S) as answer:
        return dict(json.load(answer))


def wait_for(step: Callable[[], object]) -> None:
    end_s = time.monotonic() + START_S
    while True:
        try:
            step()
            return
        except (OSError, ValueError):
            if time.monotonic() > end_s:
                raise
            time.sleep(0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    main()
