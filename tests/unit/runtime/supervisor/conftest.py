"""A service under a real supervisor, with real worker processes; fleets without any."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.runtime.supervisor.fleet import FleetOptions
from tests.support.waiting import wait_until
from tests.unit.runtime.supervisor.fleets import Fleets

ROOT = Path(__file__).parents[4]
PATIENCE_S = 60.0


class Service:
    """A supervisor in a subprocess: clients ask its workers, the test commands it and reads its records."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.settings = folder / "settings.json"
        self.log = folder / "log"
        self.set(**options.pop("payload", {}))
        command = [
            sys.executable,
            "-m",
            f"{__package__}.service",
            json.dumps({"settings": str(self.settings), **options}),
        ]
        path = os.pathsep.join(filter(None, [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH")]))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": path},
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.address = tuple(self._answer())

    def set(self, **payload: Any) -> None:
        """Write the settings that the next generation reads."""
        self.settings.write_text(json.dumps(payload))

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the service has ended: {self.log.read_text()}"
        return json.loads(line)

    def command(self, text: str) -> Any:
        assert self.process.stdin is not None
        print(text, file=self.process.stdin, flush=True)
        return self._answer()

    def ask(self) -> list[str]:
        """Return the answer of a worker: its process, generation, number, setting and template."""
        with socket.create_connection(self.address, timeout=PATIENCE_S) as client:
            return client.makefile().read().split(" ", 4)

    def rows(self, state: str | None = None) -> list[dict[str, Any]]:
        return [row for row in self.command("rows") if state is None or row["state"] == state]

    def wait_for_serving(self, count: int) -> list[dict[str, Any]]:
        wait_until(lambda: len(self.rows()) == len(self.rows("serving")) == count, PATIENCE_S)
        return self.rows()

    def logged(self, text: str) -> bool:
        return text in self.log.read_text()

    def wait_for_record(self, text: str) -> None:
        wait_until(lambda: self.logged(text), PATIENCE_S)

    def signal(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def end(self) -> int:
        """Wait for the end, and return the exit code."""
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


@pytest.fixture
def make() -> Iterator[type[Fleets]]:
    made: list[Fleets] = []

    def fleets(options: FleetOptions | None = None, count: int = 2) -> Fleets:
        made.append(Fleets(options or FleetOptions(), count))
        return made[-1]

    yield fleets  # type: ignore[misc]
    for each in made:
        each.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    started: list[Service] = []

    def start(**options: Any) -> Service:
        started.append(Service(tmp_path, **options))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
        for stream in (each.process.stdin, each.process.stdout):
            if stream is not None:
                stream.close()
        each.process.wait()


def is_gone(pid: int) -> bool:
    """Whether a process has ended and is reaped."""
    return not Path(f"/proc/{pid}").exists()
