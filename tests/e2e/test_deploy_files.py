"""The files of examples/deploy: what the Dockerfile and the manifest run is run, and the units with systemd's protocol.

There is no docker and no systemd: systemd is a double that passes sockets and reads the messages.
"""

import configparser
import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import PATIENCE_S, ROOT, Command, answers, environment, wait_for
from tests.support.ports import free_port as find_free_port

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

DEPLOY = ROOT / "examples" / "deploy"
# sets LISTEN_PID, which is the process's own number, and puts the sockets where systemd puts them
ACTIVATE = """
import fcntl, os, sys
passed = [int(number) for number in sys.argv[1].split(",")]
apart = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 100) for number in passed]
os.closerange(3, 100)
for at, number in enumerate(apart):
    os.dup2(number, 3 + at)
os.environ.update(LISTEN_FDS=str(len(passed)), LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "penstock", *sys.argv[2:]])
"""


@pytest.fixture(autouse=True)
def folder(penstock: Command) -> Path:
    shutil.copy(DEPLOY / "shop.py", penstock.folder)
    penstock.extra["METRICS_PORT"] = str(find_free_port())
    return penstock.folder


def dockerfile(word: str) -> list[str]:
    """Return the instructions of that word, of all stages, each on one line."""
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    return [line.removeprefix(word).strip() for line in lines if line.startswith(f"{word} ")]


def relocated(arguments: list[str], ports: dict[str, int]) -> list[str]:
    """Return the arguments with the ports of this run, and two workers instead of one a core."""
    found = [re.sub(r"\b(8000|8081)$", lambda old: str(ports[old[1]]), word) for word in arguments]
    return [
        word.replace("auto", "2") if before == "--workers" else word
        for before, word in zip(["", *found], found, strict=False)
    ]


def ports() -> dict[str, int]:
    return {"8000": find_free_port(), "8081": find_free_port()}


def check_served(process: "subprocess.Popen[str]", address: dict[str, int]) -> None:
    """Assert that it gets ready, answers, and ends in order by SIGTERM."""
    wait_for(lambda: answers(("127.0.0.1", address["8081"])), process)
    wait_for(lambda: is_ready(address["8081"]), process)
    assert answers(("127.0.0.1", address["8000"]))
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_the_container_runs_penstock_itself_and_its_health_check_passes(penstock: Command) -> None:
    (command,) = dockerfile("CMD")
    penstock_, *arguments = json.loads(command)
    assert penstock_ == "penstock"
    address = ports()
    process = penstock.start(*relocated(arguments, address))
    wait_for(lambda: is_ready(address["8081"]), process)
    (check,) = dockerfile("HEALTHCHECK")
    python, *rest = json.loads(check.partition("CMD ")[2])
    assert python == "python"
    line = [sys.executable, *(word.replace("8081", str(address["8081"])) for word in rest)]
    assert subprocess.run(line, timeout=PATIENCE_S).returncode == 0
    check_served(process, address)
    assert subprocess.run(line, timeout=PATIENCE_S, capture_output=True).returncode == 1


def test_the_dockerfile_copies_what_is_there_and_runs_as_nobody_special() -> None:
    own = [source for line in dockerfile("COPY") if not line.startswith("--from") for source in line.split()[:-1]]
    assert own and all((DEPLOY / source).exists() for source in own)
    assert all(int(number) > 0 for number in dockerfile("USER")[-1].split(":"))
    base, last = (line.split()[0] for line in dockerfile("FROM"))
    # the environment's interpreter is a link to the image's
    assert base == last
    copied = [line.split()[1:] for line in dockerfile("COPY") if line.startswith("--from=build")]
    assert copied == [["/srv/venv", "/srv/venv"]]


def manifests() -> dict[str, Any]:
    return {found["kind"]: found for found in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


def test_the_manifest_runs_what_it_says(penstock: Command) -> None:
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    name, *arguments = container["args"]
    assert name == "penstock"
    words = [part for word in arguments for part in word.split("=", 1)]
    values = dict(zip(words[2::2], words[3::2], strict=True))
    assert float(values["--drain-delay"]) + float(values["--drain"]) < pod["terminationGracePeriodSeconds"]
    address = ports()
    check_served(penstock.start(*relocated(words, address)), address)


def test_the_parts_of_the_manifest_fit_together() -> None:
    found = manifests()
    assert list(found) == ["Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"]
    template = found["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    (container,) = template["spec"]["containers"]
    names = {port["name"] for port in container["ports"]}
    assert found["Service"]["spec"]["ports"][0]["targetPort"] in names
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == "health"
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]


# --- systemd


def unit(name: str, section: str) -> dict[str, list[str]]:
    """Return a section of a unit; a key may be there more than once."""
    found: dict[str, list[str]] = {}
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read_string((DEPLOY / name).read_text())
    inside = False
    for line in (DEPLOY / name).read_text().splitlines():
        inside = line == f"[{section}]" if line.startswith("[") else inside
        if inside and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    assert set(found) == set(parser[section])
    return found


@dataclass
class Systemd:
    """A double of systemd: the sockets of the `.socket` unit, and the messages of the service."""

    folder: Path
    sockets: list[socket.socket] = field(default_factory=list)
    states: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.messages = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.messages.bind(str(self.folder / "notify"))
        self.messages.settimeout(PATIENCE_S)

    def listen(self) -> None:
        for stream in unit("shop.socket", "Socket")["ListenStream"]:
            if stream.isdigit():
                sock = socket.create_server(("127.0.0.1", 0))
            else:
                sock = socket.socket(socket.AF_UNIX)
                sock.bind(str(self.folder / Path(stream).name))
                sock.listen()
            self.sockets.append(sock)

    def start(self, penstock: Command) -> "subprocess.Popen[str]":
        service = unit("shop.service", "Service")
        (line,) = service["ExecStart"]
        executable, *arguments = shlex.split(line)
        assert Path(executable).name == "penstock"
        watchdog_s = 1.0  # instead of the unit's
        numbers = [sock.fileno() for sock in self.sockets]
        process = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, ",".join(map(str, numbers)), *relocated(arguments, {})],
            cwd=penstock.folder,
            env=environment()
            | penstock.extra
            | {
                "NOTIFY_SOCKET": str(self.folder / "notify"),
                "WATCHDOG_USEC": str(int(watchdog_s * 1e6)),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            pass_fds=numbers,
        )
        penstock.started.append(process)
        return process

    def wait_for(self, state: str) -> None:
        """Wait until the service has told a state, such as READY=1."""
        end_s = time.monotonic() + PATIENCE_S
        while state not in self.states:
            assert time.monotonic() < end_s, self.states
            self.states += self.messages.recv(4096).decode().split("\n")

    def told(self, prefix: str) -> list[str]:
        return [state for state in self.states if state.startswith(prefix)]

    def close(self) -> None:
        for sock in (*self.sockets, self.messages):
            sock.close()


@pytest.fixture
def systemd(penstock: Command) -> Iterator[Systemd]:
    made = Systemd(penstock.folder)
    made.listen()
    yield made
    made.close()


@pytest.mark.skipif(
    find_spec("penstock.runtime.supervisor.supervisor") is None, reason="uvicorn's supervisor does not notify"
)
def test_the_units_are_started_reloaded_and_stopped_by_systemds_protocol(penstock: Command, systemd: Systemd) -> None:
    service = unit("shop.service", "Service")
    assert service["Type"] == ["notify-reload"]
    process = systemd.start(penstock)
    systemd.wait_for("READY=1")
    for sock in systemd.sockets:
        assert answers(sock.getsockname())
    systemd.wait_for("WATCHDOG=1")
    systemd.states.clear()
    process.send_signal(signal.SIGHUP)
    systemd.wait_for("RELOADING=1")
    # systemd takes a READY=1 for the reload's end only if the time is told
    assert systemd.told("MONOTONIC_USEC="), systemd.states
    systemd.wait_for("READY=1")
    assert all(answers(sock.getsockname()) for sock in systemd.sockets)
    process.send_signal(signal.SIGTERM)
    systemd.wait_for("STOPPING=1")
    code = process.wait(PATIENCE_S)
    assert str(code) in [*service["SuccessExitStatus"], "0"]
    # the sockets are systemd's: clients wait in them for the next start
    with socket.create_connection(systemd.sockets[0].getsockname(), PATIENCE_S):
        pass
    assert Path(systemd.sockets[1].getsockname()).exists()


def test_a_client_waits_in_the_socket_until_the_service_has_started(penstock: Command, systemd: Systemd) -> None:
    with socket.create_connection(systemd.sockets[0].getsockname(), PATIENCE_S) as early:
        early.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        systemd.start(penstock)
        assert early.recv(9) == b"HTTP/1.1 "


def test_the_times_of_the_unit_fit_the_command() -> None:
    service = unit("shop.service", "Service")
    arguments = shlex.split(service["ExecStart"][0])
    drain_s = float(arguments[arguments.index("--drain") + 1])
    assert float(service["TimeoutStopSec"][0]) > drain_s
    assert service["KillMode"] == ["mixed"]
    assert float(service["TimeoutStartSec"][0]) > START_S
    assert unit("shop.service", "Unit")["Requires"] == ["shop.socket"]


# the default of workers.start_s
START_S = 300.0
