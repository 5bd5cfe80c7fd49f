"""A supervisor with real worker processes: starts, crashes, reloads, signals, the end of everything that it started."""

import os
import signal
import socket
import sys
from collections.abc import Callable

import pytest

from tests.support.waiting import wait_until
from tests.unit.runtime.supervisor.conftest import PATIENCE_S, Service, is_gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
Start = Callable[..., Service]
METHODS = {"fresh": {}, "forked": {"preloads": True}}


@pytest.fixture(params=METHODS)
def payload(request: pytest.FixtureRequest) -> dict[str, object]:
    return METHODS[request.param]


def test_workers_serve_and_end_with_the_parent(service: Start, payload: dict[str, object]) -> None:
    it = service(payload=payload)
    pids = [row["pid"] for row in it.wait_for_serving(2)]
    pid, generation, _, _, template = it.ask()
    assert int(pid) in pids and generation == "1"
    assert (template == "[]") == (not payload)
    it.signal(signal.SIGTERM)
    assert it.end() == 128 + signal.SIGTERM
    assert all(map(is_gone, pids))


def test_a_killed_worker_is_replaced_and_the_listener_stays(service: Start, payload: dict[str, object]) -> None:
    it = service(payload=payload)
    for row in it.wait_for_serving(2):
        os.kill(row["pid"], signal.SIGKILL)
    # a client that comes meanwhile waits in the listener
    assert int(it.ask()[0]) != 0
    it.wait_for_serving(2)
    assert it.logged("was ended by SIGKILL; it is started again")


def test_a_reload_reads_the_settings_again_and_a_failed_one_leaves_the_old_workers(
    service: Start, payload: dict[str, object]
) -> None:
    it = service(payload={**payload, "said": "first"})
    it.wait_for_serving(2)
    it.set(**payload, said="second")
    assert it.command("reload") == ""
    assert it.ask()[1:4:2] == ["2", "second"]
    it.set(**payload, fails=True)
    assert it.command("reload") == "no database"
    it.set(**payload, refused=True)
    assert it.command("reload") == "bad settings"
    assert it.ask()[1] == "2"
    it.set(**payload, said="third")
    it.signal(signal.SIGHUP)
    it.wait_for_record("generation 4 serves")
    assert it.ask()[3] == "third"


def test_a_preload_that_fails_is_told_and_ends_the_first_generation(service: Start) -> None:
    it = service(payload={"preloads": True, "preload_fails": True})
    assert it.end() == 3
    assert it.logged("cannot preload: RuntimeError: no memory: the server ends")


@pytest.mark.parametrize("how", ["fails", "crashes"])
def test_a_first_generation_that_cannot_start_ends_the_parent_with_one_line(service: Start, how: str) -> None:
    it = service(payload={how: True}, count=3)
    assert it.end() == 3
    [line] = [line for line in it.log.read_text().splitlines() if "the server ends" in line]
    assert ("no database" if how == "fails" else "was ended by SIGABRT before it served") in line


def test_signals_change_the_number_of_workers(service: Start) -> None:
    it = service(count=1)
    it.wait_for_serving(1)
    it.signal(signal.SIGTTIN)
    it.wait_for_serving(2)
    it.signal(signal.SIGTTOU)
    it.wait_for_serving(1)
    it.signal(signal.SIGTTOU)
    it.wait_for_record("the number of workers stays 1")
    it.command("scale 3")
    it.wait_for_serving(3)


def test_a_signal_to_a_worker_replaces_it(service: Start) -> None:
    it = service()
    asked = it.wait_for_serving(2)[0]["pid"]
    os.kill(asked, signal.SIGTERM)
    wait_until(lambda: is_gone(asked), PATIENCE_S)
    it.wait_for_serving(2)
    assert it.logged("it was asked to end by a signal")


def test_a_second_signal_and_sigquit_end_everything_at_once(service: Start, tmp_path: object) -> None:
    for signum in (signal.SIGTERM, signal.SIGQUIT):
        it = service(drain_delay_s=600.0)
        pids = [row["pid"] for row in it.wait_for_serving(2)]
        it.signal(signum)
        if signum == signal.SIGTERM:
            assert it.ask()[1] == "1", "it serves until the delay is over"
            # signals within a moment count as one
            wait_until(lambda it=it: it.signal(signal.SIGINT) or it.logged("again: the workers are killed"), PATIENCE_S)
        assert it.end() == 128 + signum
        assert all(map(is_gone, pids))


def test_a_start_that_hangs_is_bounded_and_told(service: Start, tmp_path: object) -> None:
    it = service(payload={"waits_for": "/"}, start_s=0.5)
    assert it.end() == 3
    assert it.logged("it has not started within 0.5 s")


def test_clients_who_wait_for_a_starting_worker_are_answered_before_the_end(service: Start, tmp_path) -> None:
    gate = tmp_path / "gate"
    it = service(count=1, drain_s=PATIENCE_S, payload={"waits_for": str(gate)})
    [row] = it.wait_for_serving(1)
    gate.write_text("")
    os.kill(row["pid"], signal.SIGKILL)
    wait_until(lambda: [each["state"] for each in it.rows()] == ["starting"], PATIENCE_S)
    with socket.create_connection(it.address, timeout=PATIENCE_S) as client:
        it.signal(signal.SIGTERM)
        gate.unlink()
        assert client.makefile().read().split()[1] == "1"
    assert it.end() == 128 + signal.SIGTERM
