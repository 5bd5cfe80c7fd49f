"""penstock's loop under other servers, by the commands and the programs of docs/frameworks.md."""

import importlib.util
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE_S, ROOT, attempt, environment, wait_for
from tests.e2e.test_documents import Block, blocks_of

APP = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                print("stopped", flush=True)
                return
    text = type(asyncio.get_running_loop()).__module__.encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})
"""
BLOCKS = blocks_of(ROOT / "docs" / "frameworks.md")
COMMANDS = [line for block in BLOCKS if block.language == "sh" for line in block.text.splitlines()]
PROGRAMS = [block for block in BLOCKS if block.said.startswith("program ")]


class Server:
    """A server in a folder of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        (folder / "shop.py").write_text(APP)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env=environment() | {"HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def serves_on_penstocks_loop(self) -> None:
        wait_for(lambda: attempt(("127.0.0.1", self.port)).startswith(b"HTTP/1.1 200"), self.process)
        for _ in range(5):
            assert attempt(("127.0.0.1", self.port)).rpartition(b"\r\n")[2].startswith(b"penstock.loop")

    def stop(self, signum: int) -> str:
        """Stop it, and return its log."""
        self.process.send_signal(signum)
        self.process.wait(PATIENCE_S)
        return (self.folder / "log").read_text()


@pytest.fixture
def server(tmp_path: Path, free_port: int) -> Iterator[Server]:
    made = Server(tmp_path, free_port)
    yield made
    if made.process is not None:
        with suppress(ProcessLookupError):
            os.killpg(made.process.pid, signal.SIGKILL)
        made.process.wait()


def test_there_is_a_way_for_each_server() -> None:
    names = {line.replace("python -m penstock.integrations.", "").split()[0] for line in COMMANDS}
    assert names == {"gunicorn", "uvicorn", "granian", "hypercorn"}
    assert {block.said for block in PROGRAMS} == {"program granian", "program hypercorn", "program aiohttp"}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_serves_on_penstocks_loop_and_stops_in_order(server: Server, line: str) -> None:
    first, *arguments = shlex.split(line)
    module = arguments.pop(0) and arguments.pop(0) if first == "python" else first
    name = module.rpartition(".")[2]
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {name}")
    if name == "hypercorn":
        (server.folder / "shop.py").write_text(f"import penstock\npenstock.install()\n{APP}")
    bound = f"127.0.0.1:{server.port}"
    where = ["--bind", bound] if name in {"gunicorn", "hypercorn"} else ["--port", str(server.port)]
    server.start("-m", module, *where, *arguments)
    server.serves_on_penstocks_loop()
    if name == "granian":
        # a worker of granian's loses a signal that comes before it has started: the master's handler is forked with it
        wait_for(lambda: (server.folder / "log").read_text().count("Started worker-") == 2, server.process)
    log = server.stop(signal.SIGTERM)
    assert "stopped" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda block: block.said)
def test_a_program_serves_on_penstocks_loop_and_stops_in_order(server: Server, program: Block) -> None:
    name = program.said.removeprefix("program ")
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {name}")
    (server.folder / "program.py").write_text(program.text.replace("8888", str(server.port)))
    server.start("program.py")
    server.serves_on_penstocks_loop()
    log = server.stop(signal.SIGTERM if name != "aiohttp" else signal.SIGINT)
    assert ("stopped" in log) == (name != "aiohttp")
    assert "Traceback" not in log
