"""A real dask cluster for the tests: a scheduler and two workers, processes on the loopback, gone when the test is."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.ports import free_port

ROOT = Path(__file__).parents[3]
START_S = 60


class Cluster:
    """`address` is host:port; `processes` the scheduler's first."""

    def __init__(self, folder):
        self.folder, self.processes, self.address = folder, [], ""

    def start(self, workers=2):
        told = self.folder / "scheduler.json"
        self._spawn("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(told))
        self.address = _address(told, self.processes[0])
        for _ in range(workers):
            self.add_worker()

    def add_worker(self):
        where = ("--local-directory", str(self.folder), "--host", "127.0.0.1")
        self._spawn("dask_worker", f"tcp://{self.address}", "--nthreads", "1", "--no-nanny", *where)

    def _spawn(self, command, *arguments):
        line = [sys.executable, "-m", f"distributed.cli.{command}", "--no-dashboard", *arguments]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])))
        }
        with (self.folder / f"{command}-{len(self.processes)}.log").open("wb") as log:
            made = subprocess.Popen(line, stdout=log, stderr=log, env=environment, cwd=ROOT)
        self.processes.append(made)

    def lose_scheduler(self, number=signal.SIGKILL):
        self.processes[0].send_signal(number)
        self.processes[0].wait(START_S)

    def stop(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


def _address(told, process):
    limit = time.monotonic() + START_S
    while time.monotonic() < limit and process.poll() is None:
        # the file may be there, and not yet written
        with contextlib.suppress(OSError, ValueError, KeyError):
            return json.loads(told.read_text())["address"].removeprefix("tcp://")
        time.sleep(0.02)
    raise AssertionError(f"the scheduler does not start: {process.poll()}")


def unused_address():
    return f"127.0.0.1:{free_port()}"
