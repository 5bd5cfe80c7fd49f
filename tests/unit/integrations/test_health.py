"""Health checks from a thread: real sockets, and real loops that are blocked."""

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from penstock import Config, PressureConfig, TasksConfig, new_event_loop
from penstock.integrations.health import port as healthport
from penstock.integrations.health.liveness import HealthState
from penstock.integrations.health.port import HealthPort, listen
from penstock.integrations.health.server import HealthEndpoints, HealthServer
from penstock.loop import NATIVE
from tests.support.clients import answer_of, ask_http
from tests.support.waiting import wait_until

STARTED = HealthState(is_started=True)
PATIENCE_S = 20.0

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "penstock": new_event_loop,
    "unseen": lambda: new_event_loop(Config(tasks=TasksConfig(level="off"))),
    "asyncio": asyncio.new_event_loop,
}
every_loop = pytest.mark.parametrize("make", LOOPS.values(), ids=LOOPS)


@contextmanager
def served(answer: Callable[[str], tuple[int, str] | None] = lambda path: (200, path)) -> Iterator[int]:
    """Serve a health port without a loop."""
    listener = listen("127.0.0.1", 0)
    number = listener.getsockname()[1]
    port = HealthPort(listener, answer)
    port.start()
    try:
        yield number
    finally:
        port.close()


# --- the response to each state ---


@pytest.mark.parametrize(
    ("state", "live", "ready"),
    [
        (HealthState(), (200, "starting"), (503, "starting")),
        (HealthState(blocked_s=60), (200, "starting"), (503, "starting")),
        (STARTED, (200, "ok"), (200, "ok")),
        (HealthState(True, False, True), (200, "overloaded"), (200, "overloaded")),
        (HealthState(True, blocked_s=4.9), (200, "blocked for 4.9 s"), (200, "blocked for 4.9 s")),
        (HealthState(True, blocked_s=12.34), (503, "stuck for 12.3 s"), (503, "stuck for 12.3 s")),
        (HealthState(True, True), (200, "draining"), (503, "draining")),
        (HealthState(True, True, blocked_s=60), (200, "draining"), (503, "draining")),
    ],
)
def test_overload_lives_and_a_stuck_loop_does_not(
    state: HealthState, live: tuple[int, str], ready: tuple[int, str]
) -> None:
    endpoints = HealthEndpoints(stuck_s=5.0)
    assert endpoints.respond("/livez", [state]) == endpoints.respond("/healthz", [state]) == live
    assert endpoints.respond("/readyz", [state]) == ready
    assert endpoints.respond("/", [state]) is None


def test_overload_is_unready_where_that_is_asked_for() -> None:
    endpoints = HealthEndpoints(overload_unready=True)
    assert endpoints.respond("/readyz", [HealthState(True, False, True)]) == (503, "overloaded")
    assert endpoints.respond("/livez", [HealthState(True, False, True)]) == (200, "overloaded")


def test_several_processes_live_if_each_does_and_are_ready_if_any_is() -> None:
    endpoints, stuck = HealthEndpoints(stuck_s=5.0), HealthState(True, blocked_s=6.0)
    assert endpoints.respond("/livez", [STARTED, stuck]) == (503, "stuck for 6.0 s")
    assert endpoints.respond("/readyz", [stuck, STARTED]) == (200, "ok")
    assert endpoints.respond("/readyz", [stuck, HealthState()])[0] == 503  # type: ignore[index]
    assert endpoints.respond("/livez", [STARTED, HealthState(True, False, True)]) == (200, "overloaded")
    assert endpoints.respond("/livez", []) == (200, "starting")
    assert endpoints.respond("/readyz", []) == (503, "starting")


# --- the port


def test_the_answer_is_whole_and_only_gets_and_heads_have_one() -> None:
    with served(lambda path: (503, "stuck") if path == "/livez" else None) as port:
        assert ask_http(port, "/livez?verbose") == (503, "stuck")
        assert ask_http(port, "/livez", "HEAD") == (503, "")
        assert ask_http(port, "/livez", "POST")[0] == 405
        assert ask_http(port, "/")[0] == 404
        assert ask_http(port, "livez")[0] == 400


def test_a_request_that_comes_bit_by_bit_is_answered_and_others_meanwhile() -> None:
    with served() as port, socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as slow:
        for piece in (b"GET /sl", b"ow HTTP/1.1\r\n", b"host: x\r\n"):
            slow.sendall(piece)
            assert ask_http(port, "/livez") == (200, "/livez")
        slow.sendall(b"\r\n")
        assert answer_of(slow) == (200, "/slow")


def test_clients_that_keep_connections_open_keep_nobody_out() -> None:
    with served() as port, ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S))
            for _ in range(healthport.MAX_CLIENTS + 10)
        ]
        assert ask_http(port, "/livez") == (200, "/livez")
        assert clients[0].recv(1) == b"", "the oldest makes room"
        clients[-1].sendall(b"GET /last HTTP/1.1\r\n\r\n")
        assert answer_of(clients[-1]) == (200, "/last")


def test_a_client_that_sends_nothing_or_too_much_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthport, "CLIENT_S", 0.05)
    with served() as port:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as silent:
            assert silent.recv(1) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as talker:
            with pytest.raises(OSError):
                while True:
                    talker.sendall(bytes(65536))


def test_an_answer_that_raises_is_logged_once_and_the_port_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def answer(path: str) -> tuple[int, str]:
        if path == "/bad":
            raise OSError("no answer today")
        return 200, path

    with served(answer) as port:
        for _ in range(2):
            with pytest.raises((ConnectionError, IndexError)):
                ask_http(port, "/bad")
        assert ask_http(port, "/livez") == (200, "/livez")
    assert [record.message for record in caplog.records] == ["the health port failed, and goes on"]


class LateListener(socket.socket):
    """A listener without a descriptor at first; its client disconnects meanwhile, and the next one gets it."""

    failures = (OSError(errno.EMFILE, "none left"), BlockingIOError(errno.EAGAIN, "gone"))

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            failure, *self.failures = self.failures  # type: ignore[assignment]
            raise failure
        return super().accept()


def test_a_client_that_leaves_before_the_reserved_descriptor_serves_it_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = LateListener(fileno=listen("127.0.0.1", 0).detach())
    listener.setblocking(False)
    port = HealthPort(listener, lambda path: (200, path))
    port.start()
    assert ask_http(listener.getsockname()[1], "/livez") == (200, "/livez")
    port.close()
    assert not listener.failures
    assert not caplog.records


def test_it_answers_when_the_process_has_no_descriptor_left() -> None:
    program = f"""
import os, resource, socket, sys
sys.path.insert(0, {os.getcwd()!r})
from tests.support.clients import answer_of
from tests.unit.integrations.test_health import listen, HealthPort
listener = listen("127.0.0.1", 0)
port = HealthPort(listener, lambda path: (200, path))
port.start()
clients = [socket.socket() for _ in range(3)]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
kept = []
try:
    while True:
        kept.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
for client in clients:
    client.settimeout(20)
    client.connect(listener.getsockname())
    client.sendall(b"GET /livez HTTP/1.1\\r\\n\\r\\n")
    print(client.recv(4096).split()[1].decode())
for number in kept:
    # the end of the interpreter needs some
    os.close(number)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.returncode) == (["200"] * 3, 0), done.stderr


def test_a_port_that_is_closed_is_free_and_its_thread_has_ended() -> None:
    before = threading.active_count()
    with served() as port:
        assert threading.active_count() == before + 1
        with socket.create_connection(("127.0.0.1", port)):
            pass
    assert threading.active_count() == before
    listen("127.0.0.1", port).close()


def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with (
        served() as port,
        pytest.raises(OSError, match=f"cannot listen for health checks on 127.0.0.1:{port}: Address"),
    ):
        HealthServer(port)


# --- the loop


@every_loop
def test_a_blocked_loop_lives_until_it_is_stuck_and_again_afterwards(
    make: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with HealthServer(0, stuck_s=1.5) as health:
            assert await there(health, "/livez") == (200, "starting")
            assert await there(health, "/readyz") == (503, "starting")
            health.ready()
            assert await there(health, "/readyz") == (200, "ok")
            seen: list[tuple[int, str]] = []
            watcher = threading.Thread(target=watch, args=(health.port, seen))
            watcher.start()
            # blocked until the port has said what is expected of it: this is no sleep of the loop
            wait_until(lambda: bool(seen) and seen[-1][0] == 503)
            assert seen[0][0] == 200, "it is not stuck at once"
            assert seen[-1][1].startswith("stuck for "), seen
            # the beat that has waited arrives in a turn of the loop, which the port's thread may be ahead of
            while (await there(health, "/readyz"))[0] != 200:
                pass
            await loop.run_in_executor(None, watcher.join)

    async def there(health: HealthServer, path: str) -> tuple[int, str]:
        return await asyncio.get_running_loop().run_in_executor(None, ask_http, health.port, path)

    def watch(port: int, seen: list[tuple[int, str]]) -> None:
        while not seen or seen[-1][0] != 503:
            seen.append(ask_http(port, "/livez"))
            time.sleep(0.05)

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(main())


@every_loop
def test_a_loop_that_computes_is_answered_for_meanwhile(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        with HealthServer(0, stuck_s=600.0) as health:
            health.ready()
            seen: list[tuple[int, str]] = []
            asker = threading.Thread(target=lambda: seen.extend(ask_http(health.port, "/livez") for _ in range(10)))
            asker.start()
            while asker.is_alive():
                sum(range(1000))
            assert [status for status, _ in seen] == [200] * 10

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(main())


def test_a_service_that_takes_no_more_work_lives_and_is_not_ready() -> None:
    with HealthServer(0) as health:
        health.follow(new := asyncio.new_event_loop())
        health.ready()
        health.ready(False)
        assert ask_http(health.port, "/livez") == (200, "draining")
        assert ask_http(health.port, "/readyz") == (503, "draining")
        new.close()


@pytest.mark.skipif(not NATIVE, reason="only the native loop has turns to look at")
def test_a_loop_that_is_behind_is_overloaded_and_lives() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with HealthServer(0) as health:
            health.ready()
            asked = loop.run_in_executor(None, until_overloaded, health.port)
            # something is always ready, and late
            while not asked.done():
                await asyncio.sleep(0)
            assert asked.result() == (200, "overloaded")

    def until_overloaded(port: int) -> tuple[int, str]:
        wait_until(lambda: ask_http(port, "/livez")[1] != "ok")
        return ask_http(port, "/livez")

    config = Config(pressure=PressureConfig(lag_high_s=1e-9, lag_for_s=0.0))
    with asyncio.Runner(loop_factory=lambda: new_event_loop(config)) as runner:
        runner.run(main())


def test_an_idle_process_is_not_woken_by_a_port_that_nobody_asks() -> None:
    if not NATIVE:
        pytest.skip("asyncio's loop has nothing but beats to tell of it")

    async def main() -> None:
        with HealthServer(0) as health:
            health.ready()
            await asyncio.get_running_loop().run_in_executor(None, ask_http, health.port, "/livez")
            assert health._send_ping() is None

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
