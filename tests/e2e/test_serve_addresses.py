"""`penstock serve` on several addresses, on files of Unix sockets and on systemd's sockets."""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE_S, Command, answers, environment, get, wait_for

pytest.importorskip("uvicorn")

APP = """
import os
async def app(scope, receive, send):
    if scope["type"] == "http":
        body = b"done"
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""
PROCESSES = {"one process": (), "workers": ("--workers", "2")}


@pytest.fixture
def shop(penstock: Command) -> Command:
    penstock.write("shop.py", APP)
    return penstock


@pytest.mark.parametrize("processes", PROCESSES)
def test_one_application_answers_on_every_address(shop: Command, free_port: int, processes: str) -> None:
    path = shop.folder / "shop.sock"
    with socket.create_server(("127.0.0.1", 0)) as passed:
        fd, address = passed.fileno(), passed.getsockname()
        binds = ["--bind", f"127.0.0.1:{free_port}", "--bind", f"unix:{path}", "--bind", f"fd:{fd}"]
        arguments = [sys.executable, "-m", "penstock", "serve", "shop:app", *binds, *PROCESSES[processes]]
        server = subprocess.Popen(
            [*arguments, "--uds-mode", "600"],
            cwd=shop.folder,
            env=environment(),
            pass_fds=(fd,),
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            for each in (("127.0.0.1", free_port), str(path)):
                wait_for(lambda each=each: answers(each), server)  # type: ignore[misc]
            assert get(address).endswith(b"done")
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        finally:
            server.terminate()
        told = server.communicate(timeout=PATIENCE_S)[1]
        assert server.returncode == 128 + signal.SIGTERM
        assert f"on http://127.0.0.1:{free_port}, unix:{path}, http://127.0.0.1:{address[1]}" in told
        assert not path.exists()
        # its clients wait for the next server; those of the other addresses are refused
        socket.create_connection(address).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", free_port))


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3, inheritable=True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
os.execv(sys.executable, [sys.executable, "-m", "penstock", "serve", "shop:app", *sys.argv[2:]])
"""
SEES = APP.replace('b"done"', 'os.environ.get("LISTEN_FDS", "none").encode()')


@pytest.mark.parametrize("processes", PROCESSES)
def test_sockets_of_systemd_are_served_and_no_child_is_told_of_them(shop: Command, processes: str) -> None:
    shop.write("shop.py", SEES)
    with socket.create_server(("127.0.0.1", 0)) as passed:
        arguments = [sys.executable, "-c", ACTIVATE, str(passed.fileno()), *PROCESSES[processes]]
        server = subprocess.Popen(arguments, cwd=shop.folder, env=environment(), pass_fds=(passed.fileno(),))
        try:
            assert get(passed.getsockname()).endswith(b"none")
        finally:
            server.terminate()
        assert server.wait(PATIENCE_S) == 128 + signal.SIGTERM
        socket.create_connection(passed.getsockname()).close()


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="needs systemd-socket-activate")
def test_systemd_itself_passes_its_sockets(shop: Command, free_port: int) -> None:
    shop.write("shop.py", SEES)
    path = shop.folder / "shop.sock"
    listens = ["-l", f"127.0.0.1:{free_port}", "-l", str(path), "--fdname=web:local"]
    serve = [sys.executable, "-m", "penstock", "serve", "shop:app"]
    variables = [word for name in ("PATH", "PYTHONPATH") for word in ("-E", name)]
    server = subprocess.Popen(
        ["systemd-socket-activate", *variables, *listens, *serve],
        cwd=shop.folder,
        env=environment(),
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_for(lambda: answers(("127.0.0.1", free_port)), server)
        assert get(str(path)).endswith(b"none")
    finally:
        server.terminate()
    assert server.wait(PATIENCE_S) == 128 + signal.SIGTERM


def test_an_address_of_the_command_line_goes_before_those_of_systemd(shop: Command, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        arguments = [sys.executable, "-c", ACTIVATE, str(passed.fileno()), "--port", str(free_port)]
        server = subprocess.Popen(arguments, cwd=shop.folder, env=environment(), pass_fds=(passed.fileno(),), text=True)
        try:
            wait_for(lambda: answers(("127.0.0.1", free_port)), server)
        finally:
            server.terminate()
            server.wait(PATIENCE_S)


def test_as_many_workers_as_usable_cores_are_started(shop: Command, free_port: int) -> None:
    server = shop.start("serve", "shop:app", "--port", str(free_port), "--workers", "auto", PENSTOCK_CPUS="2")
    wait_for(lambda: answers(("127.0.0.1", free_port)), server)
    server.terminate()
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    told = server.communicate(timeout=PATIENCE_S)[0]
    assert re.search(r"penstock serves shop:app on \S+ by 2 workers", told) or count < 2


def test_bad_addresses_are_one_line(shop: Command) -> None:
    for option in ("--host", "--port", "--uds", "--fd"):
        wrong = ("--bind", ":0", option, "1")
        shop.refuses("serve", "shop:app", *wrong, code=2, says=f"--bind cannot be combined with {option}")
    shop.refuses("serve", "shop:app", "--bind", "nowhere", code=2, says="'nowhere' is not an address: allowed is HOST")
    shop.refuses("serve", "shop:app", "--bind", "fd:987", code=1, says="cannot listen on file descriptor 987")
    shop.refuses("serve", "shop:app", "--fd", "-1", code=2, says="a descriptor's number is 0 or more")
    shop.refuses("serve", "shop:app", "--bind", ":81", "--bind", ":81", code=2, says="0.0.0.0:81 is given twice")
    for mode in ("x", "888", "1777", "", "66666"):
        shop.refuses("serve", "shop:app", "--uds", "x.sock", "--uds-mode", mode, code=2, says="is not a mode: octal")
    owner = ("--uds-owner", "no-such-user-x")
    shop.refuses("serve", "shop:app", "--uds", "x.sock", *owner, code=2, says="there is no user 'no-such-user-x'")
    shop.refuses("serve", "shop:app", "--uds-mode", "660", code=2, says="--uds-mode needs --uds PATH or --bind unix:")
    shop.refuses("serve", "shop:app", "--workers", "some", code=2, says="'some' is not a count: 1 or more, or auto")
    shop.refuses("serve", "shop:app", code=2, says="WEB_CONCURRENCY: 'x' is not a count", WEB_CONCURRENCY="x")
    assert not Path(shop.folder, "x.sock").exists()
