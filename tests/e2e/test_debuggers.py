"""A debugger that blocks the loop is no stall: nothing is written over its prompt. Real debuggers and terminals."""

import json
import os
import pty
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.loop import NATIVE
from tests.e2e.conftest import PATIENCE_S, Command, environment

pytestmark = pytest.mark.skipif(not NATIVE, reason="the pure loop sees no stalls")

STALL = re.compile(r"penstock\.tasks\.stall: .*")
# The debugger keeps the loop for fifty times a stall's length; what is a stall comes after it, and is seen.
STALL_S = "0.02"
PROGRAM = """
import asyncio, time
from penstock.tasks import findings
async def debugged():
    await asyncio.sleep(0)
    {stop}
    resumed = True
async def stalls():
    while all(each.evidence["cause"] == "descheduled" for each in findings()):
        time.sleep(0.5)
        await asyncio.sleep(0)
async def main():
    await debugged()
    print("found", len(findings()), flush=True)
    await stalls()
asyncio.run(main())
"""


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.screen, far = pty.openpty()
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "penstock", *arguments],
            cwd=folder,
            env=environment() | {"PENSTOCK_TASKS_STALL_S": STALL_S, "TERM": "dumb", "PYTHON_COLORS": "0"},
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
        )
        os.close(far)

    def type(self, line: str) -> None:
        os.write(self.screen, line.encode() + b"\n")

    def until(self, text: str) -> str:
        """Return what is shown up to the text."""
        while text not in self.shown:
            self.shown += self._read()
        before, _, self.shown = self.shown.partition(text)
        return before

    def rest(self) -> str:
        """Return what is shown until the program ends."""
        try:
            while True:
                self.shown += self._read()
        except EOFError:
            return self.shown

    def _read(self) -> str:
        try:
            read = os.read(self.screen, 65536)
        except OSError:
            read = b""
        if not read:
            raise EOFError(self.shown)
        return read.decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.screen)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def start(stop: str) -> Terminal:
        (tmp_path / "program.py").write_text(PROGRAM.format(stop=stop))
        made.append(Terminal(tmp_path, "run", "program.py"))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.mark.parametrize("stop", ["breakpoint()", "import code; code.interact()"])
def test_no_stall_is_written_over_a_prompt_and_the_next_stall_is(terminal: Callable[..., Terminal], stop: str) -> None:
    screen = terminal(stop)
    prompt = "(Pdb) " if stop == "breakpoint()" else ">>> "
    screen.until(prompt)
    # the loop stands for a second: at the prompt, and in what is typed there
    time.sleep(0.5)
    screen.type("import time; time.sleep(0.5); print('sl' + 'ept')")
    assert not STALL.search(screen.until("slept"))
    screen.until(prompt)
    screen.type("continue" if stop == "breakpoint()" else "\x04")
    assert not STALL.search(screen.until("found 0"))
    assert STALL.search(screen.rest())


def test_stepping_through_code_is_no_stall(terminal: Callable[..., Terminal]) -> None:
    screen = terminal("breakpoint()" + 2 * "\n    time.sleep(0.3)")
    screen.until("(Pdb) ")
    for _ in range(2):
        screen.type("next")
        screen.until("(Pdb) ")
    screen.type("continue")
    assert not STALL.search(screen.until("found 0"))
    assert STALL.search(screen.rest())


class Client:
    """A minimal client of the Debug Adapter Protocol: it attaches, and continues from a breakpoint."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.file = self.socket.makefile("rb")
        self.sequence = 0

    def send(self, command: str, **arguments: Any) -> None:
        self.sequence += 1
        request = {"seq": self.sequence, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(request).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    def until(self, **wanted: str) -> dict[str, Any]:
        while True:
            length = int(self.file.readline().split(b":")[1])
            while self.file.readline().strip():
                pass
            message: dict[str, Any] = json.loads(self.file.read(length))
            if wanted.items() <= message.items():
                return message


def read_until(lines: Iterable[str], text: str) -> str:
    found = ""
    for line in lines:
        found += line
        if text in line:
            break
    return found


DEBUGPY = """
import debugpy
print("port", debugpy.listen(("127.0.0.1", 0))[1], flush=True)
debugpy.wait_for_client()
"""


def test_a_breakpoint_of_debugpy_is_no_stall(penstock: Command) -> None:
    pytest.importorskip("debugpy")
    penstock.write("program.py", DEBUGPY + PROGRAM.format(stop="debugpy.breakpoint()"))
    started = penstock.start("run", "program.py", PENSTOCK_TASKS_STALL_S=STALL_S, PYDEVD_DISABLE_FILE_VALIDATION="1")
    assert started.stdout is not None
    port = next(int(line.split()[1]) for line in started.stdout if line.startswith("port"))
    client = Client(port)
    penstock.stack.enter_context(client.socket)
    client.send("initialize", adapterID="test")
    client.until(command="initialize", type="response")
    client.send("attach", justMyCode=False)
    client.until(event="initialized")
    client.send("configurationDone")
    stopped = client.until(event="stopped")
    time.sleep(1.0)
    client.send("continue", threadId=stopped["body"]["threadId"])
    # not to its end: the adapter, a process of debugpy's own, keeps it open
    assert not STALL.search(read_until(started.stdout, "found 0"))
    assert STALL.search(read_until(started.stdout, "penstock.tasks.stall: "))
