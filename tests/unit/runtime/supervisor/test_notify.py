"""systemd's notification protocol, with a real datagram socket as the double of systemd."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock.integrations.health.liveness import HealthState
from penstock.integrations.health.systemd import SystemdWatchdog
from penstock.runtime.supervisor.notify import Notifier

PATIENCE_S = 60.0


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A bound socket, and its address as NOTIFY_SOCKET has it."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@penstock-{os.getpid()}-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as double:
        double.bind("\0" + address[1:] if address.startswith("@") else address)
        double.settimeout(PATIENCE_S)
        yield double, address


def read(double: socket.socket) -> list[str]:
    return double.recv(4096).decode().split("\n")


def test_each_state_is_one_datagram(systemd: tuple[socket.socket, str]) -> None:
    double, address = systemd
    with closing(Notifier.from_environ({"NOTIFY_SOCKET": address})) as notifier:
        assert notifier.is_active
        notifier.ready("4 workers serve")
        assert read(double) == ["READY=1", "STATUS=4 workers serve"]
        before_us = time.monotonic_ns() // 1000
        notifier.reloading()
        reloading, at = read(double)
        assert reloading == "RELOADING=1"
        assert before_us <= int(at.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
        notifier.ready()
        assert read(double) == ["READY=1"]
        notifier.main_pid(77)
        assert read(double) == ["MAINPID=77"]
        notifier.watchdog()
        assert read(double) == ["WATCHDOG=1"]
        notifier.stopping()
        assert read(double) == ["STOPPING=1"]


def test_a_status_is_one_line(systemd: tuple[socket.socket, str]) -> None:
    double, address = systemd
    with closing(Notifier(address)) as notifier:
        notifier.status("two\nlines\nMAINPID=1 \udcff")
        assert read(double) == ["STATUS=two lines MAINPID=1 \\udcff"]
        notifier.status("x" * 100_000)
        assert len(read(double)[0]) < 1000


def test_the_variables_are_taken_and_handed_on_only_when_asked() -> None:
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "PATH": "/bin"}
    with closing(Notifier.from_environ(environ)) as notifier:
        assert environ == {"PATH": "/bin"}
        assert notifier.watchdog_interval_s == 1.5
        assert notifier.handover() == {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "3000000"}


@pytest.mark.parametrize(
    "variables",
    [
        {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "9" * 5000},
        {},
    ],
)
def test_a_watchdog_of_another_process_or_of_no_time_is_none(variables: dict[str, str]) -> None:
    with closing(Notifier.from_environ({"NOTIFY_SOCKET": "/run/x"} | variables)) as notifier:
        assert notifier.watchdog_interval_s is None


@pytest.mark.parametrize(
    "address", ["", "@", "/", "x", "vsock:2:1", "/no/such/socket", "/" + "x" * 5000, "@" + "x" * 500]
)
def test_without_a_reader_nothing_happens(address: str) -> None:
    with closing(Notifier.from_environ({"NOTIFY_SOCKET": address})) as notifier:
        notifier.ready("x")
        notifier.reloading()
        notifier.watchdog()
        notifier.stopping()
        assert notifier.retry()
    notifier.status("after the close")


def test_a_systemd_that_does_not_read_stops_nobody_and_gets_the_states_later_in_order(
    systemd: tuple[socket.socket, str],
) -> None:
    double, address = systemd
    with closing(Notifier(address)) as notifier:
        count = 0
        while notifier.retry():
            notifier.status(f"fill {count}")
            count += 1
        notifier.ready()
        # a ping that is late is worth nothing
        notifier.watchdog()
        notifier.stopping()
        found = []
        while not found or found[-1] != ["STOPPING=1"]:
            found.append(read(double))
            notifier.retry()
        assert found == [[f"STATUS=fill {number}"] for number in range(count)] + [["READY=1"], ["STOPPING=1"]]


class ScriptedHealth:
    """The health of a loop that is blocked now and then."""

    def __init__(self, blocked_s: list[float]) -> None:
        self.left = blocked_s
        self.is_over = threading.Event()

    def state(self) -> HealthState:
        if not self.left:
            self.is_over.set()
            return HealthState(is_started=True, blocked_s=1e9)
        return HealthState(is_started=True, blocked_s=self.left.pop(0))

    def send_ping(self) -> float | None:
        return None


def test_a_loop_that_is_stuck_is_not_reported_alive(systemd: tuple[socket.socket, str]) -> None:
    double, address = systemd
    health = ScriptedHealth([0.0, 0.009, 0.01, 50.0, 0.0])
    with closing(Notifier(address, 0.01)) as notifier:
        watchdog = SystemdWatchdog(notifier, health)  # type: ignore[arg-type]
        watchdog.start()
        assert health.is_over.wait(PATIENCE_S)
        watchdog.close()
        notifier.stopping()
    assert [read(double) for _ in range(4)] == [["WATCHDOG=1"]] * 3 + [["STOPPING=1"]]
