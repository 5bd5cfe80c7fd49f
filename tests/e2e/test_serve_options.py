"""uvicorn's own options under `penstock serve`, and its environment variables."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Command, answers, environment, get, wait_for

uvicorn_main = pytest.importorskip("uvicorn.main")

SCOPE_APP = """
import asyncio, json, os
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    told = {"root": scope["root_path"], "client": scope["client"], "scheme": scope["scheme"], "pid": os.getpid(),
            "loop": type(asyncio.get_running_loop()).__module__, "shop": os.environ.get("SHOP")}
    body = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
WSGI_APP = """
def app(environ, start_response):
    start_response("200 OK", [("content-length", "4")])
    return [b"wsgi"]
"""
ECHO_APP = """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
"""


Serve = Callable[..., tuple[str, int]]


@pytest.fixture
def serve(penstock: Command, free_port: int) -> Serve:
    """Start a server with options, wait for it, and return its address."""
    penstock.write("shop.py", SCOPE_APP)
    address = ("127.0.0.1", free_port)

    def start(*options: str, target: str = "shop:app", **variables: str) -> tuple[str, int]:
        penstock.extra |= variables
        port = () if "UVICORN_PORT" in variables else ("--port", str(free_port))
        server = penstock.start("serve", target, *port, *options)
        wait_for(lambda: answers(address), server)
        return address

    return start


def headers_and_body(address: tuple[str, int], **headers: str) -> tuple[bytes, dict[str, Any]]:
    with socket.create_connection(address, timeout=20) as sock:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        sock.sendall(f"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.lower(), json.loads(body)


def test_headers_and_proxies_are_as_uvicorns_options_say(serve: Serve) -> None:
    options = ("--root-path", "/api", "--forwarded-allow-ips", "127.0.0.1", "--header", "X-Shop: blue:1")
    address = serve(*options, "--no-server-header", "--no-date-header", "--http", "h11")
    head, told = headers_and_body(address, x_forwarded_for="192.0.2.7", x_forwarded_proto="https")
    assert b"x-shop: blue:1" in head and b"server:" not in head and b"date:" not in head
    assert (told["root"], told["client"][0], told["scheme"]) == ("/api", "192.0.2.7", "https")
    assert told["loop"].startswith("penstock.")


def test_no_proxy_headers_means_the_peers_own_address(serve: Serve) -> None:
    _, told = headers_and_body(serve("--no-proxy-headers"), x_forwarded_for="192.0.2.7")
    assert told["client"][0] == "127.0.0.1"


def test_the_application_is_found_in_the_app_dir(penstock: Command, serve: Serve) -> None:
    (penstock.folder / "inner").mkdir()
    penstock.write("inner/hidden.py", SCOPE_APP)
    for workers in ("1", "2"):
        address = serve("--app-dir", "inner", "--workers", workers, target="hidden:app")
        assert headers_and_body(address)[1]["root"] == ""
        penstock.started[-1].terminate()
        penstock.started[-1].wait(20)


def test_an_inherited_descriptor_is_served(penstock: Command) -> None:
    penstock.write("shop.py", SCOPE_APP)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = str(listener.fileno())
        arguments = [sys.executable, "-m", "penstock", "serve", "shop:app", "--fd", fd]
        server = subprocess.Popen(
            arguments, cwd=penstock.folder, env=environment(), pass_fds=(listener.fileno(),), text=True
        )
        try:
            assert get(listener.getsockname()).startswith(b"HTTP/1.1 200")
        finally:
            server.terminate()
            server.wait(20)
    penstock.refuses("serve", "shop:app", "--fd", "987", code=1, says="cannot listen on file descriptor 987")


def test_a_wsgi_application_is_served_where_the_interface_says_so(penstock: Command, serve: Serve) -> None:
    penstock.write("old.py", WSGI_APP)
    assert get(serve("--interface", "wsgi", target="old:app")).endswith(b"wsgi")
    penstock.refuses("serve", "old:app", code=2, says="needs --interface wsgi")
    penstock.refuses("serve", "shop:app", "--interface", "wsgi", code=2, says="not a WSGI application")


def test_a_process_ends_with_0_after_its_most_requests(penstock: Command, serve: Serve) -> None:
    serve("--limit-max-requests", "1")
    assert penstock.started[-1].wait(20) == 0


def test_a_websocket_is_served_by_what_the_serve_extra_brings(penstock: Command, free_port: int) -> None:
    client = pytest.importorskip("websockets.sync.client")
    penstock.write("echo.py", ECHO_APP)
    server = penstock.start("serve", "echo:app", "--port", str(free_port), "--ws-max-size", "100")
    wait_for(lambda: answers(("127.0.0.1", free_port)), server)
    with client.connect(f"ws://127.0.0.1:{free_port}/") as connection:
        connection.send("hello")
        assert connection.recv(timeout=20) == "hello"
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert "websockets" in pyproject.partition("\nserve = ")[2].partition("\n")[0]


def test_the_environment_is_obeyed_and_the_command_line_first(serve: Serve, free_port: int) -> None:
    variables = {
        "UVICORN_PORT": str(free_port),
        "UVICORN_ROOT_PATH": "/environment",
        "UVICORN_HEADERS": "X-Shop:blue X-Color:red",
        "UVICORN_SERVER_HEADER": "false",
        "UVICORN_ACCESS_LOG": "0",
        "UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN": "3",
    }
    address = serve("--root-path", "/line", **variables)
    head, told = headers_and_body(address)
    assert b"x-shop: blue" in head and b"x-color: red" in head and b"server:" not in head
    assert told["root"] == "/line"


def test_web_concurrency_is_the_number_of_workers(penstock: Command, serve: Serve) -> None:
    address = serve(WEB_CONCURRENCY="2")
    assert headers_and_body(address)[1]["pid"] != penstock.started[-1].pid


def test_uvicorn_workers_goes_before_web_concurrency(penstock: Command, serve: Serve) -> None:
    address = serve(WEB_CONCURRENCY="2", UVICORN_WORKERS="1")
    parent = penstock.started[-1].pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    assert children == [str(headers_and_body(address)[1]["pid"])]


DOTENV = "import os\ndef load_dotenv(stream): os.environ.setdefault('SHOP', stream.read().strip())\n"


def test_an_env_file_is_loaded_before_the_application(penstock: Command, serve: Serve) -> None:
    path = penstock.write("shop.env", "blue\n")
    penstock.write("dotenv.py", DOTENV)
    paths = f"{penstock.folder}:{Path(__file__).parents[2] / 'src'}"
    address = serve("--env-file", str(path), PYTHONPATH=paths)
    assert headers_and_body(address)[1]["shop"] == "blue"


def test_an_env_file_that_cannot_be_read_is_one_line(penstock: Command) -> None:
    penstock.write("dotenv.py", DOTENV)
    penstock.extra["PYTHONPATH"] = f"{penstock.folder}:{Path(__file__).parents[2] / 'src'}"
    (penstock.folder / "latin.env").write_bytes(b"SHOP=\xff")
    for path, says in (("latin.env", "is not UTF-8"), (".", "Is a directory")):
        penstock.refuses("serve", "shop:app", "--env-file", path, code=1, says=says)


def test_an_env_file_without_python_dotenv_is_one_line(penstock: Command) -> None:
    path = penstock.write("shop.env", "SHOP=blue\n")
    penstock.write("dotenv.py", "raise ModuleNotFoundError(\"No module named 'dotenv'\", name='dotenv')")
    penstock.extra["PYTHONPATH"] = f"{penstock.folder}:{Path(__file__).parents[2] / 'src'}"
    penstock.refuses("serve", "shop:app", "--env-file", str(path), code=1, says="pip install python-dotenv")


def test_every_option_of_the_installed_uvicorn_is_in_the_help_or_decided_by_penstock(penstock: Command) -> None:
    text = penstock("serve", "--help-all").stdout
    names = {name for option in uvicorn_main.main.params for name in option.opts if name.startswith("--")}
    assert {name for name in names if name not in text} <= {"--loop", "--timeout-worker-healthcheck", "--version"}


def test_uvicorns_options_that_cannot_be_are_one_line(penstock: Command) -> None:
    penstock.write("shop.py", SCOPE_APP)

    def refuses(*arguments: str, code: int = 2, says: str, **variables: str) -> None:
        penstock.refuses("serve", "shop:app", *arguments, code=code, says=says, **variables)

    refuses("--loop", "uvloop", says="--loop: penstock serve runs penstock's own loop")
    refuses(says="UVICORN_LOOP=uvloop: penstock serve runs", UVICORN_LOOP="uvloop")
    refuses("--header", "nothing", says="'nothing' is not Name:Value")
    refuses("--ws-max-size", "much", says="'much' is not a valid integer")
    refuses("--lifespan", "maybe", says="--lifespan: 'maybe' is not one of")
    refuses("--log-config", "none.ini", says="none.ini")
    refuses("--http", "nonsense", says="--http nonsense: allowed is auto, h11, httptools")
    refuses("--ws", "nonsense:Protocol", says="--ws nonsense:Protocol: allowed is auto, none")
    refuses(says="--http nonsense: allowed is auto", UVICORN_HTTP="nonsense")
    refuses(says="UVICORN_PORT: 'http' is not a port", UVICORN_PORT="http")
    refuses(says="UVICORN_RELOAD: 'maybe' is neither", UVICORN_RELOAD="maybe")
    refuses(says="UVICORN_LOG_LEVEL: 'loud' is none of", UVICORN_LOG_LEVEL="loud")
    refuses(says="WEB_CONCURRENCY: 'many' is not a count", WEB_CONCURRENCY="many")
    broken = str(penstock.write("log.json", "no json"))
    refuses("--port", "0", "--log-config", broken, code=1, says=f"--log-config {broken}: ")
    folder = os.path.dirname(broken)
    refuses("--port", "0", "--log-config", folder, code=1, says=f"--log-config {folder}: a folder, not a file")


def test_a_files_name_is_told_its_modules(penstock: Command) -> None:
    penstock.write("shop.py", SCOPE_APP)
    penstock.refuses("serve", "shop.py:app", code=2, says="did you mean shop:app?")
    penstock.refuses("serve", "shop.py", code=2, says="did you mean shop:app?")
    penstock.refuses("serve", f"inner{os.sep}shop.py:app", code=2, says="did you mean inner.shop:app?")


def test_a_file_in_the_way_of_a_unix_socket_is_said_to_be_one(penstock: Command) -> None:
    penstock.write("shop.py", SCOPE_APP)
    path = penstock.write("shop.sock", "not a socket")
    penstock.refuses("serve", "shop:app", "--uds", str(path), code=1, says=f"{path}: a file is there that is not a soc")
    assert path.read_text() == "not a socket"
