"""examples/deploy/nginx.conf in a real nginx, in front of `penstock serve` over TCP and over a Unix socket."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE_S, ROOT, Command, answers, get, wait_for
from tests.support.ports import free_port as find_free_port
from tests.support.waiting import wait_until

websockets = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")

CONFIG = ROOT / "examples" / "deploy" / "nginx.conf"
OUTER = """
daemon off;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/shop.conf;
}}
"""
APP = """
import asyncio, os, signal

gates = {}

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        return await send({"type": "websocket.close"})
    path = scope["path"]
    if path == "/crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if path == "/release":
        gate().set()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    if path in ("/hold", "/events/two"):
        await send({"type": "http.response.body", "body": b"first\\n", "more_body": True})
        await gate().wait()
    whence = f"{scope['scheme']} {scope['client'][0]}\\n".encode()
    await send({"type": "http.response.body", "body": whence})

def gate():
    return gates.setdefault(asyncio.get_running_loop(), asyncio.Event())
"""


@dataclass
class Front:
    """nginx at `address`, before servers of which `processes` are the parents."""

    address: tuple[str, int]
    processes: list["subprocess.Popen[str]"]


@pytest.fixture(params=["tcp", "unix"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def front(penstock: Command, kind: str) -> Callable[..., Front]:
    """Return a function that starts servers and nginx in front of them; the options are of `penstock serve`."""

    def start(*options: str, servers: int = 1) -> Front:
        penstock.write("shop.py", APP)
        # nginx's workers may be another user's
        for folder in (penstock.folder, *penstock.folder.parents[:2]):
            os.chmod(folder, 0o755)
        upstreams = [upstream(penstock.folder, kind) for _ in range(servers)]
        processes = [serve(penstock, where, options) for where in upstreams]
        port = find_free_port()
        configure(penstock.folder, port, upstreams)
        line = ["nginx", "-p", str(penstock.folder), "-c", str(penstock.folder / "nginx.conf"), "-e", "stderr"]
        nginx = subprocess.Popen(line, stdin=subprocess.DEVNULL, start_new_session=True)
        penstock.stack.callback(stop, nginx)
        front = Front(("127.0.0.1", port), processes)
        wait_for(lambda: answers(front.address), processes[0])
        return front

    return start


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait(PATIENCE_S)


def upstream(folder: Path, kind: str) -> str | tuple[str, int]:
    return str(folder / f"{find_free_port()}.sock") if kind == "unix" else ("127.0.0.1", find_free_port())


def serve(penstock: Command, where: str | tuple[str, int], options: tuple[str, ...]) -> "subprocess.Popen[str]":
    place = ["--uds", where] if isinstance(where, str) else ["--port", str(where[1])]
    process = penstock.start("serve", "shop:app", *place, "--forwarded-allow-ips", "*", *options)
    wait_for(lambda: answers(where), process)
    return process


def configure(folder: Path, port: int, upstreams: list[str | tuple[str, int]]) -> None:
    """Write the example's config with other addresses, and nginx's own around it."""
    named = [f"unix:{where}" if isinstance(where, str) else f"{where[0]}:{where[1]}" for where in upstreams]
    text = CONFIG.read_text()
    for old, new in (
        ("    listen 80;", f"    listen 127.0.0.1:{port};"),
        ("    server 127.0.0.1:8000 max_fails=0;", "\n".join(f"    server {name} max_fails=0;" for name in named)),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "shop.conf").write_text(text)
    (folder / "nginx.conf").write_text(OUTER.format(folder=folder))


def test_the_service_sees_the_client_and_not_the_proxy(front: Callable[..., Front]) -> None:
    address = front().address
    with socket.create_connection(address, PATIENCE_S) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 192.0.2.7\r\nconnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200") and b"http 192.0.2.7" in answer


def test_a_refusal_reaches_the_client_with_its_time_to_return(front: Callable[..., Front]) -> None:
    address = front("--limit", "1", "--max-wait", "0", "--exempt-path", "/release").address
    with socket.create_connection(address, PATIENCE_S) as held:
        held.sendall(b"GET /events/two HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert receive_until(held, b"first")
        refused = get(address)
        assert get(address, "/release").startswith(b"HTTP/1.1 200")
        assert receive_until(held, b"http ")
    assert refused.startswith(b"HTTP/1.1 503") and b"retry-after: " in refused.lower()


def test_a_stream_is_not_held_back(front: Callable[..., Front]) -> None:
    address = front().address
    with socket.create_connection(address, PATIENCE_S) as stream:
        stream.sendall(b"GET /events/two HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        # the first part is there although the second waits for another request
        assert receive_until(stream, b"first")
        get(address, "/release")
        assert receive_until(stream, b"http ")


def test_a_websocket_goes_through(front: Callable[..., Front]) -> None:
    host, port = front().address
    with websockets.connect(f"ws://{host}:{port}/") as socket_:
        socket_.send("echo")
        assert socket_.recv(timeout=PATIENCE_S) == "echo"


def test_a_post_is_never_sent_to_a_second_server(front: Callable[..., Front]) -> None:
    found = front(servers=2)
    with socket.create_connection(found.address, PATIENCE_S) as sock:
        sock.sendall(b"POST /crash HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 502")
    wait_until(lambda: any(process.poll() is not None for process in found.processes), PATIENCE_S)
    # one has died of it, and the other one answers
    assert get(found.address).startswith(b"HTTP/1.1 200")
    codes = [process.poll() for process in found.processes]
    assert sorted(codes, key=str) == [-signal.SIGKILL, None]


def receive_until(sock: socket.socket, text: bytes) -> bytes:
    found = b""
    while text not in found:
        more = sock.recv(65536)
        assert more, found
        found += more
    return found
