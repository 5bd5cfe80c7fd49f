"""`penstock serve`: uvicorn on penstock's loop, one process and several, and every mistake one clear line."""

import json
import re
import signal
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from penstock.loop import NATIVE, EventLoop
from tests.e2e.conftest import PATIENCE_S, Command, answers, attempt, get, wait_for

pytest.importorskip("uvicorn")

APP = (Path(__file__).parents[2] / "examples" / "app.py").read_text()
SLOW_APP = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(float("1.0"))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})
"""
WHO_APP = """
import asyncio, os
async def app(scope, receive, send):
    if scope["type"] == "http":
        who = b"%d %d" % (os.getpid(), asyncio.get_running_loop().get_debug())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(who))]})
        await send({"type": "http.response.body", "body": who})
"""
GATE_APP = """
import asyncio, json
from penstock.pressure import gates, loop_statistics
go = asyncio.Event()
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/held":
        await go.wait()
    if scope["path"] == "/healthz":
        go.set()
    if scope["path"] == "/loop":
        text = loop_statistics().state.encode()
    else:
        text = json.dumps([[g.name, g.limit, g.max_wait_s, g.deadline_s, g.inflight] for g in gates()]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})
"""
STALLED_APP = """
import asyncio, time
from penstock.tasks import findings
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while all(each.evidence["cause"] == "descheduled" for each in findings()):
        time.sleep(0.15)
        await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
"""

BUSY_APP = """
import time
async def app(scope, receive, send):
    if scope["type"] == "http":
        time.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})
"""


@pytest.fixture
def shop(penstock: Command) -> Command:
    penstock.write("shop.py", APP)
    return penstock


def body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def test_an_app_is_served_on_penstocks_loop(shop: Command, free_port: int) -> None:
    server = shop.start("serve", "shop:app", "--port", str(free_port))
    wait_for(lambda: answers(("127.0.0.1", free_port)), server)
    assert json.loads(body(get(("127.0.0.1", free_port), "/json")))["loop"].startswith("penstock.")
    assert body(get(("127.0.0.1", free_port))) == b"Hello from penstock\n"
    assert get(("127.0.0.1", free_port), "/stream").count(b"line ") == 10
    assert get(("127.0.0.1", free_port), "/none").startswith(b"HTTP/1.1 404")
    server.send_signal(signal.SIGUSR1)
    assert answers(("127.0.0.1", free_port))
    server.send_signal(signal.SIGTERM)
    output = server.communicate(timeout=20)[0]
    assert "main_loop" in output, "SIGUSR1 shows what the tasks wait in"
    assert server.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert f"http://127.0.0.1:{free_port}" in output
    assert "Traceback" not in output and "Warning" not in output


def test_an_interrupt_ends_with_130(shop: Command, free_port: int) -> None:
    server = shop.start("serve", "shop:app", "--port", str(free_port))
    wait_for(lambda: answers(("127.0.0.1", free_port)), server)
    server.send_signal(signal.SIGINT)
    assert "Traceback" not in server.communicate(timeout=20)[0]
    assert server.returncode == 130


def test_workers_run_penstocks_loop_with_the_same_config(shop: Command, free_port: int) -> None:
    shop.write("debug.py", WHO_APP)
    server = shop.start("serve", "debug:app", "--port", str(free_port), "--workers", "2", "--set", "loop.debug=true")
    wait_for(lambda: answers(("127.0.0.1", free_port)), server)
    pid, debug = body(get(("127.0.0.1", free_port))).split()
    assert int(pid) != server.pid
    assert debug == b"1"
    server.send_signal(signal.SIGTERM)
    assert "Traceback" not in server.communicate(timeout=20)[0]
    assert server.returncode == 128 + signal.SIGTERM


def test_the_reloader_serves_a_changed_file(shop: Command, free_port: int) -> None:
    server = shop.start("serve", "shop:app", "--port", str(free_port), "--reload", "--no-access-log")
    wait_for(lambda: answers(("127.0.0.1", free_port)), server)
    assert b"penstock." in get(("127.0.0.1", free_port), "/json")
    shop.write("shop.py", APP.replace("Hello from", "Again from"))
    wait_for(lambda: b"Again from" in attempt(("127.0.0.1", free_port)), server)


def test_a_unix_socket_is_served_and_removed(shop: Command) -> None:
    path = str(shop.folder / "shop.sock")
    server = shop.start("serve", "shop:app", "--uds", path)
    wait_for(lambda: answers(path), server)
    assert body(get(path)) == b"Hello from penstock\n"
    shop.refuses("serve", "shop:app", "--uds", path, code=1, says=path)
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=20)
    assert not Path(path).exists()


def test_a_socket_file_that_nobody_answers_on_is_replaced(shop: Command) -> None:
    path = str(shop.folder / "shop.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    server = shop.start("serve", "shop:app", "--uds", path)
    wait_for(lambda: answers(path), server)


def test_a_factory_makes_the_app(shop: Command, free_port: int) -> None:
    shop.write("made.py", "import shop\ndef make(): return shop.app")
    server = shop.start("serve", "made:make", "--factory", "--port", str(free_port))
    wait_for(lambda: answers(("127.0.0.1", free_port)), server)
    assert body(get(("127.0.0.1", free_port))) == b"Hello from penstock\n"


def test_a_request_in_flight_is_finished_before_the_end(shop: Command, free_port: int) -> None:
    shop.write("slow.py", SLOW_APP)
    server = shop.start("serve", "slow:app", "--port", str(free_port))
    wait_for(lambda: answers(("127.0.0.1", free_port)), server)
    with socket.create_connection(("127.0.0.1", free_port), timeout=20) as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert answers(("127.0.0.1", free_port))  # by then the server has read the request before it
        server.send_signal(signal.SIGTERM)
        assert b"".join(iter(lambda: sock.recv(65536), b"")).endswith(b"\r\n\r\ndone")


def test_a_request_longer_than_the_drain_is_cut(shop: Command, free_port: int) -> None:
    shop.write("slow.py", SLOW_APP.replace("1.0", "600"))
    server = shop.start("serve", "slow:app", "--port", str(free_port), "--set", "signals.drain_s=0.2")
    wait_for(lambda: answers(("127.0.0.1", free_port)), server)
    with socket.create_connection(("127.0.0.1", free_port), timeout=20) as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        assert answers(("127.0.0.1", free_port))
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=20)
    assert server.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)


BLOCKED_APP = """
import asyncio, os, time
async def app(scope, receive, send):
    if scope["type"] == "http":
        # in one write: the other worker may say something meanwhile
        os.write(1, f"serves in {os.getpid()}\\n".encode())
        if scope["path"] == "/blocks":
            time.sleep(600)
        await asyncio.sleep(600)
"""
PROCESSES = {"one process": (), "workers": ("--workers", "2"), "a reloader": ("--reload",)}


def ask(shop: Command, address: tuple[str, int], path: str, *options: str) -> tuple[subprocess.Popen[str], int]:
    """Send a request that a server begins to serve, and return it with the serving process."""
    shop.write("blocked.py", BLOCKED_APP)
    server = shop.start("serve", "blocked:app", "--port", str(address[1]), *options)
    wait_for(lambda: listens(address), server)
    client = shop.stack.enter_context(socket.create_connection(address, timeout=20))
    client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    assert server.stdout is not None
    line = next(line for line in server.stdout if line.startswith("serves in"))
    return server, int(line.split()[-1])


def listens(address: tuple[str, int]) -> bool:
    with suppress(OSError), socket.create_connection(address, timeout=20):
        return True
    return False


def wait_for_end(server: subprocess.Popen[str], signum: signal.Signals) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while server.poll() is None and time.monotonic() < deadline:
        server.send_signal(signum)
        with suppress(subprocess.TimeoutExpired):
            server.wait(0.2)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the processes that are left are found in /proc")
@pytest.mark.parametrize("processes", PROCESSES)
def test_a_server_that_is_blocked_is_gone_in_time(shop: Command, free_port: int, processes: str) -> None:
    options = (*PROCESSES[processes], "--drain", "0.2")
    server, serving_pid = ask(shop, ("127.0.0.1", free_port), "/blocks", *options)
    server.send_signal(signal.SIGTERM)
    output = server.communicate(timeout=20)[0]
    assert server.returncode == 128 + signal.SIGTERM
    assert is_gone(serving_pid)
    told = (
        "s have passed, the process ends; it waited for"
        if processes == "one process"
        else "its drain has not ended in time"
    )
    assert told in output


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the processes that are left are found in /proc")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("processes", PROCESSES)
def test_a_second_signal_ends_a_server_at_once(
    shop: Command, free_port: int, processes: str, signum: signal.Signals
) -> None:
    options = (*PROCESSES[processes], "--drain", "600")
    server, serving_pid = ask(shop, ("127.0.0.1", free_port), "/waits", *options)
    server.send_signal(signum)
    assert server.stdout is not None
    assert any("Shutting down" in line for line in server.stdout)
    # a signal right behind the first counts with it
    wait_for_end(server, signum)
    # the output ends when the last of the processes has ended
    server.communicate(timeout=20)
    assert server.returncode == 128 + signum
    assert is_gone(serving_pid)


def gates_of(address: tuple[str, int]) -> list[list[object]]:
    return list(json.loads(body(get(address))))


def test_a_limit_refuses_what_is_beyond_it_and_keeps_room_for_health_checks(shop: Command, free_port: int) -> None:
    shop.write("gated.py", GATE_APP)
    address = ("127.0.0.1", free_port)
    limits = ("--limit", "1", "--max-wait", "0", "--deadline", "30")
    server = shop.start("serve", "gated:app", "--port", str(free_port), *limits)
    wait_for(lambda: answers(address), server)
    assert gates_of(address) == [["asgi", 1, 0.0, 30.0, 1]]
    with socket.create_connection(address, timeout=20) as held:
        held.sendall(b"GET /held HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        wait_for(lambda: get(address).startswith(b"HTTP/1.1 503 "), server)
        refused = get(address)
        assert body(refused) == b"overloaded: limit\n" and b"retry-after: " in refused.lower()
        assert get(address, "/healthz").startswith(b"HTTP/1.1 200 ")
        assert held.recv(65536).startswith(b"HTTP/1.1 200 ")
    server.send_signal(signal.SIGTERM)
    assert "Traceback" not in server.communicate(timeout=30)[0]


@pytest.mark.skipif(not hasattr(EventLoop, "_watch_lag"), reason="only the native loop has turns to look at")
def test_who_comes_to_a_loop_that_computes_is_answered_in_time_or_told_so(shop: Command, free_port: int) -> None:
    shop.write("busy.py", BUSY_APP)
    address = ("127.0.0.1", free_port)
    server = shop.start("serve", "busy:app", "--port", str(free_port), "--limit", "4", "--deadline", "0.1")
    wait_for(lambda: answers(address), server)
    with ExitStack() as stack:
        clients = []
        # four times what it can do, for a second: what is beyond is refused, and none of the clients is left to guess
        for _ in range(400):
            clients.append(stack.enter_context(socket.create_connection(address, timeout=20)))
            clients[-1].sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            time.sleep(0.0025)
        answered = [stack.enter_context(client.makefile("rb")).read() for client in clients]
    served = sum(answer.startswith(b"HTTP/1.1 200 ") for answer in answered)
    refused = [body(answer) for answer in answered if answer.startswith(b"HTTP/1.1 503 ")]
    assert served > 0 and served + len(refused) == 400
    assert b"overloaded: lag\n" in refused, "by the loop, unread"
    server.send_signal(signal.SIGTERM)
    assert "Traceback" not in server.communicate(timeout=20)[0]


def test_every_worker_has_the_gate_that_the_options_and_the_config_say(shop: Command, free_port: int) -> None:
    shop.write("gated.py", GATE_APP)
    address = ("127.0.0.1", free_port)
    told = ("--limit", "auto", "--deadline", "0.2", "--set", "pressure.max_wait_s=0.02")
    server = shop.start("serve", "gated:app", "--port", str(free_port), "--workers", "2", *told)
    wait_for(lambda: answers(address), server)
    ((name, limit, *times),) = gates_of(address)
    assert (name, times) == ("asgi", [0.02, 0.2, 1])
    assert isinstance(limit, int) and limit > 1
    if hasattr(EventLoop, "_watch_lag"):
        assert body(get(address, "/loop")) != b"off", "the loop's own gate is on too"
    server.send_signal(signal.SIGTERM)
    assert "Traceback" not in server.communicate(timeout=20)[0]


def test_without_a_limit_there_is_no_gate(shop: Command, free_port: int) -> None:
    shop.write("gated.py", GATE_APP)
    server = shop.start("serve", "gated:app", "--port", str(free_port), "--limit", "none")
    assert "'none' is not a limit" in server.communicate(timeout=20)[0]
    server = shop.start("serve", "gated:app", "--port", str(free_port))
    wait_for(lambda: answers(("127.0.0.1", free_port)), server)
    assert gates_of(("127.0.0.1", free_port)) == []
    assert body(get(("127.0.0.1", free_port), "/loop")) == b"off"


def test_tls_files_are_used(shop: Command, free_port: int, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    server = shop.start("serve", "shop:app", "--port", str(free_port), "--ssl-certfile", cert, "--ssl-keyfile", key)
    context = ssl.create_default_context(cafile=cert)

    def secure(sock: socket.socket) -> socket.socket:
        return context.wrap_socket(sock, server_hostname="localhost")

    def answering() -> bool:
        try:
            return body(get(("127.0.0.1", free_port), wrap=secure)) == b"Hello from penstock\n"
        except ConnectionRefusedError:
            return False

    wait_for(answering, server)


def test_bad_tls_files_are_one_line(shop: Command, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    broken = str(shop.write("broken.pem", "not a certificate"))
    shop.refuses("serve", "shop:app", "--port", "0", "--ssl-certfile", "none.pem", code=1, says="cannot read none.pem")
    shop.refuses(
        "serve", "shop:app", "--port", "0", "--ssl-certfile", cert, "--ssl-keyfile", "none.pem", code=1, says="none.pem"
    )
    shop.refuses("serve", "shop:app", "--port", "0", "--ssl-certfile", broken, code=1, says="broken.pem")
    shop.refuses(
        "serve", "shop:app", "--port", "0", "--ssl-certfile", cert, "--ssl-keyfile", cert, code=1, says="cert.pem"
    )
    shop.refuses("serve", "shop:app", "--port", "0", "--ssl-keyfile", key, code=2, says="needs --ssl-certfile")


def test_a_port_in_use_is_one_line(shop: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for workers in ("1", "2"):
            shop.refuses(
                "serve",
                "shop:app",
                "--port",
                port,
                "--workers",
                workers,
                code=1,
                says=f"127.0.0.1:{port}: Address already in use",
            )


def test_a_bad_address_is_one_line(shop: Command) -> None:
    shop.refuses("serve", "shop:app", "--host", "203.0.113.1", code=1, says="203.0.113.1:8000")
    shop.refuses("serve", "shop:app", "--host", "no.such.host.invalid", code=1, says="no.such.host.invalid")
    shop.refuses("serve", "shop:app", "--port", "99999", code=2, says="'99999' is not a port")
    shop.refuses("serve", "shop:app", "--uds", "/no/such/folder/x.sock", code=1, says="/no/such/folder/x.sock")
    shop.refuses("serve", "shop:app", "--uds", str(shop.folder / "shop.py"), code=1, says="shop.py")
    shop.refuses("serve", "shop:app", "--uds", "x" * 200, code=1, says="xxx")


def test_a_bad_target_is_one_line(shop: Command) -> None:
    shop.write(
        "odd.py",
        "text = 'x'\ndef wsgi(environ, start_response): ...\ndef make(): ...\ndef one(scope, receive, send): ...\n",
    )
    shop.refuses("serve", code=2, says="module:app")
    shop.refuses("serve", "shop", code=2, says="'shop' is not of the form module:app")
    shop.refuses("serve", "none:app", code=2, says="no module named 'none'")
    shop.refuses("serve", "shop.none:app", code=2, says="shop")
    shop.refuses("serve", "shop:none", code=2, says="module 'shop' has no attribute 'none'")
    shop.refuses("serve", "odd:text", code=2, says="odd:text is not an ASGI application but str 'x'")
    shop.refuses("serve", "odd:wsgi", code=2, says="two arguments look like WSGI")
    shop.refuses("serve", "odd:make", code=2, says="add --factory")
    shop.refuses("serve", "odd:one", "--factory", code=2, says="odd:one is not a factory")
    shop.refuses("serve", "odd:make", "--factory", code=1, says="the result of odd:make is not an ASGI application")
    shop.refuses("serve", "none:app", "--workers", "2", code=2, says="no module named 'none'")
    shop.refuses("serve", "none:app", "--reload", code=2, says="no module named 'none'")


def test_bad_options_are_one_line(shop: Command) -> None:
    shop.refuses("serve", "shop:app", "--workers", "0", code=2, says="'0' is not a count")
    shop.refuses("serve", "shop:app", "--log-level", "loud", code=2, says="loud")
    shop.refuses("serve", "shop:app", "--set", "loop.nonsense=1", code=2, says="loop.nonsense")
    shop.refuses("serve", "shop:app", "--set", "tasks.factory=shop:none", code=2, says="shop:none")
    shop.refuses("serve", "shop:app", "--limit", "0", code=2, says="'0' is not a limit: a count of 1 or more")
    shop.refuses("serve", "shop:app", "--limit", "many", code=2, says="'many' is not a limit")
    shop.refuses("serve", "shop:app", "--limit", "4", "--deadline", "0", code=2, says="'0' is not a time")
    shop.refuses("serve", "shop:app", "--limit", "4", "--deadline", "soon", code=2, says="'soon' is not a time")
    shop.refuses("serve", "shop:app", "--limit", "4", "--max-wait", "-1", code=2, says="--max-wait")
    shop.refuses("serve", "shop:app", "--limit", "4", "--max-wait", "inf", code=2, says="'inf' is not a time")
    shop.refuses("serve", "shop:app", "--deadline", "0.1", code=2, says="--deadline needs --limit")
    shop.refuses("serve", "shop:app", "--max-wait", "0.1", code=2, says="--max-wait needs --limit")
    shop.refuses("serve", "shop:app", "--set", "pressure.limit=few", code=2, says="pressure.limit = 'few'")
    native_only = ("--port", "0", "--set", "loop.poller=epoll")
    shop.refuses("serve", "shop:app", *native_only, code=2, says="epoll", PENSTOCK_PURE="1")
    shop.refuses("serve", "shop:app", "--nonsense", code=2, says="--nonsense")


def test_without_uvicorn_the_line_says_what_to_install(shop: Command) -> None:
    shop.write("uvicorn.py", "raise ModuleNotFoundError(\"No module named 'uvicorn'\", name='uvicorn')")
    hidden = str(shop.folder)
    shop.extra["PYTHONPATH"] = f"{hidden}:{Path(__file__).parents[2] / 'src'}"
    shop.refuses("serve", "shop:app", code=1, says="pip install 'penstock[serve]'")


def test_an_error_in_the_apps_import_is_shown_as_the_users(shop: Command) -> None:
    shop.write("broken.py", "import shop\nshop.nothing_of_that_name")
    result = shop("serve", "broken:app")
    assert result.returncode == 1
    assert "penstock/cli" not in result.stderr and "importlib" not in result.stderr
    assert 'broken.py", line 2' in result.stderr
    assert result.stderr.rstrip().splitlines()[-1].startswith("AttributeError")


@pytest.mark.skipif(not NATIVE, reason="the pure loop sees no stalls")
def test_the_findings_of_a_worker_process_are_shown_with_time_level_and_logger(
    penstock: Command, free_port: int
) -> None:
    penstock.write("app.py", STALLED_APP)
    server = penstock.start("serve", "app:app", "--port", str(free_port), "--workers", "2")
    wait_for(lambda: answers(("127.0.0.1", free_port)), server)
    server.terminate()
    output, _ = server.communicate(timeout=PATIENCE_S)
    assert re.search(r"^\d{4}-\d\d-\d\d [\d:,]{12} (INFO|WARNING) penstock.tasks.stall: ", output, re.MULTILINE)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_log_names_the_application_as_the_command_line_does(shop: Command, free_port: int, workers: str) -> None:
    server = shop.start("serve", "shop:app", "--port", str(free_port), "--workers", workers)
    assert server.stdout is not None
    assert "penstock serves shop:app on " in next(line for line in server.stdout if "penstock serves" in line)
