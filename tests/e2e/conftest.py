"""Runs the real command in a subprocess, with its exit code and streams."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.ports import free_port as find_free_port

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
Address = str | tuple[str, int]


def environment() -> dict[str, str]:
    """Return the environment without any config in it."""
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    ours = {name for name in os.environ if name.startswith("PENSTOCK_")} - {"PENSTOCK_PURE"}
    return {name: value for name, value in os.environ.items() if name not in ours} | {
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
    }


class Warm:
    """The program of warm.py."""

    def __init__(self) -> None:
        line = [sys.executable, str(ROOT / "tests" / "e2e" / "warm.py")]
        self.process = subprocess.Popen(
            line, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def __call__(self, arguments: tuple[str, ...], folder: Path, env: dict[str, str]) -> tuple[int, str, str]:
        assert self.process.stdin is not None and self.process.stdout is not None
        order = {"arguments": arguments, "folder": str(folder), "environment": env}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        found = json.loads(self.process.stdout.readline())
        return found["code"], found["out"], found["err"]

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    made = Warm()
    yield made
    made.end()


@dataclass
class Command:
    """`penstock` in a directory of its own."""

    folder: Path
    warm: Warm
    extra: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    # what a test leaves open
    stack: ExitStack = field(default_factory=ExitStack)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def __call__(self, *arguments: str, python: tuple[str, ...] = (), **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *python, "-m", "penstock", *arguments],
            cwd=self.folder,
            env=environment() | self.extra | extra,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * 2,
        )

    def start(self, *arguments: str, **extra: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", *arguments],
            cwd=self.folder,
            env=environment() | self.extra | extra,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def refuses(self, *arguments: str, code: int, says: str, **extra: str) -> None:
        """Assert that the command ends with the code and exactly one line on stderr that contains `says`."""
        if self.extra or "PENSTOCK_PURE" in extra:
            # which say what is imported
            result = self(*arguments, **extra)
            returncode, stdout, stderr = result.returncode, result.stdout, result.stderr
        else:
            returncode, stdout, stderr = self.warm(arguments, self.folder, environment() | extra)
        assert "Traceback" not in stderr, stderr
        assert stderr.endswith("\n") and stderr.count("\n") == 1, stderr
        assert says in stderr
        assert (returncode, stdout) == (code, "")


@pytest.fixture
def penstock(tmp_path: Path, warm: Warm) -> Iterator[Command]:
    command = Command(tmp_path, warm)
    with command.stack:
        yield command
    for process in command.started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    making = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    subprocess.run([*making, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def free_port() -> int:
    return find_free_port()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], within_s: float = PATIENCE_S) -> None:
    """Poll another process's state; there is no event to wait for across processes."""
    deadline = time.monotonic() + within_s
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"gave up waiting (exit code {process.poll()})")
        time.sleep(0.02)


def get(address: Address, path: str = "/", wrap: Callable[[socket.socket], socket.socket] | None = None) -> bytes:
    """Send an HTTP request on a new socket, and return the whole answer."""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as plain:
        plain.settimeout(PATIENCE_S)
        plain.connect(address)
        with wrap(plain) if wrap else plain as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: sock.recv(65536), b""))


def attempt(address: Address) -> bytes:
    """Return the answer to a request, or nothing while the server does not listen."""
    try:
        return get(address)
    except OSError:
        return b""


def answers(address: Address) -> bool:
    return attempt(address).startswith(b"HTTP/1.1 ")
