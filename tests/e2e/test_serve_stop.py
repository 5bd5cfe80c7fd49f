"""The start and the stop of `penstock serve`: no lost request, no hang, and the right exit code."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE_S, Command, answers, attempt, environment, get, wait_for
from tests.e2e.serveload import Clients

pytest.importorskip("uvicorn")

APP = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "http":
        await asyncio.sleep(0.005)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})
"""
PROCESSES = {"one process": (), "workers": ("--workers", "2"), "a reloader": ("--reload",)}


@pytest.fixture
def shop(penstock: Command) -> Command:
    penstock.write("shop.py", APP)
    return penstock


def started(shop: Command, port: int, *options: str, target: str = "shop:app") -> subprocess.Popen[str]:
    server = shop.start("serve", target, "--port", str(port), "--no-access-log", *options)
    wait_for(lambda: answers(("127.0.0.1", port)), server)
    return server


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


# --- a stop under load


@pytest.mark.skipif(sys.platform != "linux", reason="the accept queue is closed to new clients by a socket filter")
@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("processes", PROCESSES)
def test_a_stop_under_load_loses_no_request(shop: Command, free_port: int, processes: str, http: str) -> None:
    server = started(shop, free_port, *PROCESSES[processes], "--http", http)
    clients = Clients(("127.0.0.1", free_port), 10)
    clients.wait_until_busy()
    server.send_signal(signal.SIGTERM)
    output = server.communicate(timeout=PATIENCE_S)[0]
    clients.join()
    assert clients.lost == []
    assert (server.returncode, "Traceback" in output) == (128 + signal.SIGTERM, False)


@pytest.mark.skipif(sys.platform != "linux", reason="the accept queue is closed to new clients by a socket filter")
@pytest.mark.parametrize("processes", ["workers", "a reloader"])
def test_a_stop_of_the_whole_group_loses_no_request(shop: Command, free_port: int, processes: str) -> None:
    server = started(shop, free_port, *PROCESSES[processes])
    clients = Clients(("127.0.0.1", free_port), 10)
    clients.wait_until_busy()
    # as systemd does
    os.killpg(server.pid, signal.SIGTERM)
    server.communicate(timeout=PATIENCE_S)
    clients.join()
    assert clients.lost == []


def test_a_stop_on_a_unix_socket_loses_no_request(shop: Command) -> None:
    path = str(shop.folder / "shop.sock")
    server = shop.start("serve", "shop:app", "--uds", path, "--no-access-log")
    wait_for(lambda: answers(path), server)
    clients = Clients(path, 10)
    clients.wait_until_busy()
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=PATIENCE_S)
    clients.join()
    assert clients.lost == []


def test_a_worker_that_is_replaced_loses_no_request(shop: Command, free_port: int) -> None:
    server = started(shop, free_port, "--workers", "2")
    clients = Clients(("127.0.0.1", free_port), 10)
    clients.wait_until_busy()
    first = set(children(server.pid))
    os.kill(server.pid, signal.SIGTTOU)
    wait_for(lambda: any(map(is_gone, first)), server)
    assert answers(("127.0.0.1", free_port))
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=PATIENCE_S)
    clients.join()
    assert clients.lost == []


BLOCKING_APP = """
import os, time
async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"] == "/block":
            print("blocks", flush=True)
            while not os.path.exists("go"):
                time.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})
"""


def ask(sock: socket.socket, path: str = "/") -> None:
    sock.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())


def take_answer(sock: socket.socket) -> None:
    """Read one answer. The pure loop sends header and body separately."""
    text = b""
    while not text.endswith(b"done"):
        text += sock.recv(65536) or pytest.fail("closed")


def rest(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_a_request_on_an_idle_connection_that_the_kernel_has_is_the_last_that_is_answered(
    shop: Command, free_port: int
) -> None:
    shop.write("blocking.py", BLOCKING_APP)
    address = ("127.0.0.1", free_port)
    server = started(shop, free_port, target="blocking:app")
    with socket.create_connection(address, PATIENCE_S) as kept, socket.create_connection(address, PATIENCE_S) as other:
        ask(kept)
        take_answer(kept)
        ask(other, "/block")
        wait_for_line(server, "blocks")
        server.send_signal(signal.SIGTERM)
        ask(kept)
        shop.write("go", "")
        assert rest(other).endswith(b"done")
        answer = rest(kept)
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"done"), answer
    assert server.wait(PATIENCE_S) == 128 + signal.SIGTERM


def test_a_tls_client_that_the_kernel_has_is_answered(
    shop: Command, free_port: int, certificate: tuple[str, str]
) -> None:
    shop.write("blocking.py", BLOCKING_APP)
    cert, key = certificate
    options = ("--ssl-certfile", cert, "--ssl-keyfile", key)
    server = shop.start("serve", "blocking:app", "--port", str(free_port), *options)
    context = ssl.create_default_context(cafile=cert)

    def secured() -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", free_port), PATIENCE_S)
        return shop.stack.enter_context(context.wrap_socket(sock, server_hostname="localhost"))

    wait_for_line(server, "Application startup complete")
    wait_for(lambda: listens(free_port), server)
    ask(secured(), "/block")
    wait_for_line(server, "blocks")
    server.send_signal(signal.SIGTERM)
    # the kernel takes it; the handshake takes both
    with socket.create_connection(("127.0.0.1", free_port), PATIENCE_S) as sock:
        shop.write("go", "")
        with context.wrap_socket(sock, server_hostname="localhost") as late:
            ask(late)
            assert rest(late).endswith(b"done")
    assert server.wait(PATIENCE_S) == 128 + signal.SIGTERM


def test_a_client_for_whom_there_is_no_room_is_answered_when_an_idle_one_has_ended(
    shop: Command, free_port: int
) -> None:
    address = ("127.0.0.1", free_port)
    server = started(shop, free_port, "--set", "pressure.max_connections=1", "--drain", "600")
    with socket.create_connection(address, PATIENCE_S) as kept:
        ask(kept)
        take_answer(kept)
        with socket.create_connection(address, PATIENCE_S) as waiting:
            ask(waiting)
            server.send_signal(signal.SIGTERM)
            assert rest(waiting).endswith(b"done")
    assert server.wait(PATIENCE_S) == 128 + signal.SIGTERM


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE_S):
        return True
    return False


def test_a_websocket_is_told_that_the_service_restarts(shop: Command, free_port: int) -> None:
    client = pytest.importorskip("websockets.sync.client")
    exceptions = pytest.importorskip("websockets.exceptions")
    shop.write("chat.py", CHAT_APP)
    server = shop.start("serve", "chat:app", "--port", str(free_port))
    wait_for(lambda: listens(free_port), server)
    with client.connect(f"ws://127.0.0.1:{free_port}/") as connection:
        assert connection.recv(timeout=PATIENCE_S) == "hello"
        server.send_signal(signal.SIGTERM)
        with pytest.raises(exceptions.ConnectionClosed) as caught:
            connection.recv(timeout=PATIENCE_S)
    assert caught.value.rcvd.code == 1012
    assert server.wait(PATIENCE_S) == 128 + signal.SIGTERM


CHAT_APP = """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        await receive()
"""


@pytest.mark.parametrize("processes", PROCESSES)
def test_clients_of_an_inherited_socket_wait_for_the_next_server(shop: Command, processes: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address, fd = listener.getsockname(), listener.fileno()
        arguments = [sys.executable, "-m", "penstock", "serve", "shop:app", "--fd", str(fd), *PROCESSES[processes]]
        for _ in range(2):
            server = subprocess.Popen(arguments, cwd=shop.folder, env=environment(), pass_fds=(fd,))
            try:
                assert get(address).endswith(b"done")
            finally:
                server.terminate()
            assert server.wait(PATIENCE_S) == 128 + signal.SIGTERM


def test_an_idle_connection_does_not_hold_the_stop(shop: Command, free_port: int) -> None:
    server = started(shop, free_port, "--drain", "600")
    with socket.create_connection(("127.0.0.1", free_port), timeout=PATIENCE_S) as kept:
        kept.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        take_answer(kept)
        kept.sendall(b"GET / HT")
        server.send_signal(signal.SIGTERM)
        assert kept.recv(65536) == b""
    assert server.wait(PATIENCE_S) == 128 + signal.SIGTERM


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="child processes are found in /proc")
def test_clients_who_came_while_workers_are_replaced_are_answered_before_the_end(shop: Command, free_port: int) -> None:
    shop.write("slow.py", STARTING.replace("STEP", "await asyncio.sleep(0.01)"))
    go = shop.write("go", "")
    shop.write("end", "")
    address = ("127.0.0.1", free_port)
    server = started(shop, free_port, "--workers", "2", "--drain", "600", target="slow:app")
    wait_until_all_serve(server, 2)
    go.unlink()
    workers = set(served_pids(server.pid))
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(set(served_pids(server.pid)) - workers) == 2, server)
    with socket.create_connection(address, PATIENCE_S) as waiting:
        ask(waiting)
        server.send_signal(signal.SIGTERM)
        shop.write("go", "")
        assert rest(waiting).endswith(b"done")
    assert server.wait(PATIENCE_S) == 128 + signal.SIGTERM


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="child processes are found in /proc")
def test_clients_for_whom_every_worker_has_ended_are_answered_before_the_end(shop: Command, free_port: int) -> None:
    """The supervisor itself sees their ends and its own signal at the same moment."""
    address = ("127.0.0.1", free_port)
    server = started(shop, free_port, "--workers", "2", "--drain", "600")
    wait_until_all_serve(server, 2)
    server.send_signal(signal.SIGSTOP)
    for pid in served_pids(server.pid):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not served_pids(server.pid), server)
    with socket.create_connection(address, PATIENCE_S) as waiting:
        ask(waiting)
        server.send_signal(signal.SIGTERM)
        server.send_signal(signal.SIGCONT)
        assert rest(waiting).endswith(b"done")
    assert server.wait(PATIENCE_S) == 128 + signal.SIGTERM


def wait_until_all_serve(server: subprocess.Popen[str], count: int) -> None:
    """Read the server's output until so many workers serve. A failed start of the first ones ends the server."""
    for _ in range(count):
        wait_for_line(server, " serves, after ")


def served_pids(parent_pid: int) -> list[int]:
    """Return the worker processes of a parent that have not ended."""
    return [pid for pid in children(parent_pid) if not is_gone(pid)]


# --- worker processes


def test_a_mistaken_number_of_workers_starts_none(shop: Command) -> None:
    shop.refuses("serve", "shop:app", "--workers", "1000000", code=2, says="--workers 1000000: at most ")
    shop.refuses("serve", "shop:app", code=2, says="at most ", WEB_CONCURRENCY="1000000")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="child processes are found in /proc")
@pytest.mark.parametrize("processes", ["workers", "a reloader"])
def test_no_child_outlives_a_parent_that_is_killed(shop: Command, free_port: int, processes: str) -> None:
    server = started(shop, free_port, *PROCESSES[processes])
    pids = children(server.pid)
    assert len(pids) == (2 if processes == "workers" else 1)
    server.kill()
    # the output ends when the last of them closes it, a moment before it is gone
    server.communicate(timeout=PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while not all(map(is_gone, pids)):
        assert time.monotonic() < deadline, pids
        time.sleep(0.01)


FAILING_STARTUP = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""
BROKEN = {
    "a factory that raises": ("def make(): raise RuntimeError('no\\n database')", ("--factory",), "made:make"),
    "an import that fails in a worker": (
        "raise RuntimeError('no database')\n" + APP,
        (),
        "made:app",
    ),
    "an import that exits": (
        "raise SystemExit(0)\n" + APP,
        (),
        "made:app",
    ),
    "a startup that fails": (FAILING_STARTUP, (), "made:app"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_workers_that_cannot_start_end_the_server_with_3(shop: Command, free_port: int, what: str) -> None:
    source, options, target = BROKEN[what]
    shop.write("made.py", source)
    server = shop.start("serve", target, "--port", str(free_port), "--workers", "2", *options)
    output = server.communicate(timeout=PATIENCE_S)[0]
    assert server.returncode == 3
    assert "Traceback" not in output
    reasons = [line for line in output.splitlines() if "no database" in line or "SystemExit(0)" in line]
    # uvicorn logs a failed startup in each worker
    assert 1 <= len(reasons) <= (2 if what == "a startup that fails" else 1), output
    assert output.count("the server ends") == 1
    assert len(output.splitlines()) < 20, output


def test_workers_that_crash_before_they_serve_end_the_server_with_3(shop: Command, free_port: int) -> None:
    crash = "import os\nos.kill(os.getpid(), 9)\n"
    shop.write("made.py", crash + APP)
    server = shop.start("serve", "made:app", "--port", str(free_port), "--workers", "2")
    output = server.communicate(timeout=PATIENCE_S)[0]
    assert server.returncode == 3
    assert output.count("was ended by SIGKILL before it served: the server ends") == 1


def test_the_reloaders_child_shows_why_it_cannot_start(shop: Command, free_port: int) -> None:
    source, _, target = BROKEN["an import that fails in a worker"]
    shop.write("made.py", source)
    server = shop.start("serve", target, "--port", str(free_port), "--reload")
    wait_for_line(server, "cannot load made:app: RuntimeError: no database (")
    wait_for_line(server, 'made.py", line 1')
    shop.write("made.py", APP)
    wait_for(lambda: answers(("127.0.0.1", free_port)), server)


@pytest.mark.parametrize("processes", PROCESSES)
def test_a_start_that_fails_is_never_told_by_0(shop: Command, free_port: int, processes: str) -> None:
    shop.write("made.py", FAILING_STARTUP)
    server = shop.start("serve", "made:app", "--port", str(free_port), *PROCESSES[processes])
    if processes == "a reloader":
        # it waits for a change of the source
        assert server.stdout is not None
        assert any("Application startup failed" in line for line in server.stdout)
        server.send_signal(signal.SIGTERM)
    server.communicate(timeout=PATIENCE_S)
    assert server.returncode == (128 + signal.SIGTERM if processes == "a reloader" else 3)


# --- startup and shutdown

STARTING = """
import asyncio, os, time
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        print("starts", flush=True)
        while not os.path.exists("go"):
            STEP
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("stops", flush=True)
        while not os.path.exists("end"):
            STEP
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})
"""


def wait_for_line(server: subprocess.Popen[str], text: str) -> None:
    assert server.stdout is not None
    assert any(text in line for line in server.stdout), f"no {text!r}"


@pytest.mark.skipif(sys.platform != "linux", reason="a bound socket that no longer listens")
@pytest.mark.parametrize("processes", PROCESSES)
def test_the_port_listens_when_the_application_has_started(shop: Command, free_port: int, processes: str) -> None:
    shop.write("slow.py", STARTING.replace("STEP", "await asyncio.sleep(0.01)"))
    server = shop.start("serve", "slow:app", "--port", str(free_port), *PROCESSES[processes])
    wait_for_line(server, "starts")
    with pytest.raises(ConnectionRefusedError):
        get(("127.0.0.1", free_port))
    # and yet it is this server's
    shop.refuses("serve", "shop:app", "--port", str(free_port), code=1, says="Address already in use")
    shop.write("go", "")
    shop.write("end", "")
    wait_for(lambda: attempt(("127.0.0.1", free_port)).endswith(b"done"), server)


@pytest.mark.parametrize("step", ["await asyncio.sleep(0.01)", "time.sleep(0.01)"])
def test_a_startup_that_hangs_ends_with_3_at_its_bound(shop: Command, free_port: int, step: str) -> None:
    shop.write("slow.py", STARTING.replace("STEP", step))
    server = shop.start("serve", "slow:app", "--port", str(free_port), "--set", "serve.startup_s=0.2")
    output = server.communicate(timeout=PATIENCE_S)[0]
    assert server.returncode == 3
    assert "serve.startup_s, 0.2 s" in output and "Traceback" not in output


@pytest.mark.parametrize("bound", [("--drain", "0.2"), ("--drain", "600", "--set", "serve.shutdown_s=0.2")])
def test_a_shutdown_that_hangs_ends_at_its_bound(shop: Command, free_port: int, bound: tuple[str, ...]) -> None:
    shop.write("slow.py", STARTING.replace("STEP", "await asyncio.sleep(0.01)"))
    shop.write("go", "")
    server = started(shop, free_port, *bound, target="slow:app")
    server.send_signal(signal.SIGTERM)
    began_s = time.monotonic()
    output = server.communicate(timeout=PATIENCE_S)[0]
    assert server.returncode == 128 + signal.SIGTERM
    assert "stops" in output and "shutdown took longer than" in output and "Traceback" not in output
    assert time.monotonic() - began_s < PATIENCE_S / 2


@pytest.mark.parametrize("step", ["await asyncio.sleep(0.01)", "time.sleep(0.01)"])
@pytest.mark.parametrize("processes", ["one process", "workers"])
def test_a_startup_that_hangs_ends_with_the_drain(shop: Command, free_port: int, processes: str, step: str) -> None:
    shop.write("slow.py", STARTING.replace("STEP", f"open('begun', 'w').close(); {step}"))
    options = ("--port", str(free_port), "--drain", "0.3", *PROCESSES[processes])
    server = shop.start("serve", "slow:app", *options)
    wait_for((shop.folder / "begun").exists, server)
    server.send_signal(signal.SIGTERM)
    output = server.communicate(timeout=PATIENCE_S)[0]
    assert server.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in output and "stops" not in output
