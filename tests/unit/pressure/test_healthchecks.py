"""Tests of health checks: a bounded number of them bypasses overload, and no deadline sheds critical requests."""

import asyncio
import socket

import pytest

from penstock import Config, PressureConfig, new_event_loop
from penstock.errors import ConfigError
from penstock.loop import NATIVE
from penstock.loop.native import native_core
from penstock.loop.servers import connection_count
from penstock.pressure import loop_statistics
from penstock.pressure.admission.gate import Gate, Priority
from penstock.pressure.admission.healthchecks import MOST_AT_ONCE, MOST_IN_A_BURST, MOST_PER_SECOND, PATHS, HealthChecks
from tests.support.clocks import HandClock
from tests.unit.pressure.driving import Crowd

pytestmark = pytest.mark.runner("on_loop")

CHECK = b"GET /up HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "path", "is_one"),
    [
        *(("GET", path, True) for path in PATHS),
        ("HEAD", "/livez", True),
        ("POST", "/livez", False),
        ("GET", "/livez/", False),
        ("GET", "/", False),
    ],
)
def test_gets_and_heads_of_the_very_paths_are_health_checks(method: str, path: str, is_one: bool) -> None:
    assert HealthChecks().is_one(method, path) is is_one


def test_one_path_may_be_given_as_text() -> None:
    checks = HealthChecks("/up")
    assert checks.is_one("GET", "/up")
    assert not checks.is_one("GET", "/")


def test_a_bounded_number_passes_at_once() -> None:
    checks = HealthChecks(clock=HandClock())
    assert [checks.enter() for _ in range(MOST_AT_ONCE + 1)] == [True] * MOST_AT_ONCE + [False]
    checks.leave()
    assert checks.enter()


def test_a_bounded_number_passes_in_a_second() -> None:
    clock = HandClock()
    checks = HealthChecks(clock=clock)

    def pass_through(count: int) -> int:
        passed = 0
        for _ in range(count):
            if checks.enter():
                passed += 1
                checks.leave()
        return passed

    assert pass_through(1000) == MOST_IN_A_BURST
    clock.now_s += 10 / MOST_PER_SECOND
    assert pass_through(1000) == 10
    clock.now_s += 3600
    assert pass_through(1000) == MOST_IN_A_BURST


@pytest.mark.parametrize("path", ["healthz", "", "/a b", "/a?b", "/a#b", "/é", "/" + "a" * 200])
def test_an_impossible_path_of_a_request_is_an_error(path: str) -> None:
    with pytest.raises(ConfigError, match="paths of URLs, from / on"):
        PressureConfig(health_paths=(path,))


@pytest.mark.parametrize("paths", [(), ("/up",), ("/up", "/ready")])
def test_health_paths_reach_a_child_process_as_they_are(paths: tuple[str, ...]) -> None:
    config = Config(pressure=PressureConfig(health_paths=paths))
    assert Config.load(env=config.to_env()).pressure.health_paths == paths


async def test_no_deadline_of_the_gate_refuses_what_is_critical(gate_class: type[Gate], standing: object) -> None:
    gate = gate_class(1, deadline_s=0.1, max_wait_s=10.0)
    # the service takes ten times the deadline
    async with gate.entry():
        standing.now_s += 1.0  # type: ignore[attr-defined]
    arrived_s = standing.now_s - 5.0  # type: ignore[attr-defined]
    crowd = Crowd(gate)
    with pytest.raises(gate.error, match="deadline"):
        await gate.through(Priority.NORMAL, arrived_s=arrived_s)
    await gate.through(Priority.CRITICAL, arrived_s=arrived_s)
    gate.leave()
    assert crowd.gate.statistics().sheds["deadline"] == 1


async def test_a_critical_request_that_has_waited_past_the_deadline_is_admitted(
    gate_class: type[Gate], standing: object
) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=10.0))
    await crowd.come("in")
    await crowd.come("check", priority=0, deadline_s=0.5)
    await crowd.come("other", deadline_s=0.5)
    standing.now_s += 1.0  # type: ignore[attr-defined]
    await crowd.leave("in")
    assert crowd.came_in == ["in", "check"]
    await crowd.leave("check")
    assert crowd.reasons() == {"other": "deadline"}
    await crowd.end()


async def test_the_bounds_of_the_queue_hold_for_what_is_critical(gate_class: type[Gate]) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=10.0, max_queued=1))
    await crowd.come("in")
    await crowd.come("check", priority=0)
    await crowd.come("next", priority=0)
    assert crowd.reasons() == {"next": "full"}
    await crowd.end()


@pytest.mark.skipif(not NATIVE, reason="only the native loop has turns to measure")
@pytest.mark.parametrize(("paths", "passes"), [(("/up",), True), ((), False)])
def test_a_loop_that_is_behind_reads_its_health_paths_first(paths: tuple[str, ...], passes: bool) -> None:
    came: list[bytes] = []

    class Protocol(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            came.append(data)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        # the loop is behind from its first turn on, because a callback is always ready
        for _ in range(3):
            await asyncio.sleep(0)
        with socket.create_connection(address) as slow, socket.create_connection(address) as check:
            slow.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while not native_core(loop).deferred_accepts.total:  # type: ignore[attr-defined]
                await asyncio.sleep(0)
            check.sendall(CHECK)
            since_s = loop.time()
            while not came and (passes or loop.time() < since_s + 0.05):
                await asyncio.sleep(0)
            assert came == ([CHECK] if passes else [])
            assert loop_statistics().health_checks == len(came)
            server.close()
            # each connection ends with its client
            check.close()
            slow.close()
        while connection_count(server):
            await asyncio.sleep(0.001)

    config = Config(pressure=PressureConfig(lag_high_s=1e-9, defer_s=0.5, health_paths=paths))
    with asyncio.Runner(loop_factory=lambda: new_event_loop(config)) as runner:
        runner.run(main())
