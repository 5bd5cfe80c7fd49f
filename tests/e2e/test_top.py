"""`penstock top` in a terminal of its own, with a running program."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

import pytest

from tests.e2e.conftest import PATIENCE_S, Command, environment, wait_for

PROGRAM = """
import asyncio
from pathlib import Path

async def wait_for_work(event):
    await event.wait()

async def main():
    event = asyncio.Event()
    kept = [asyncio.create_task(wait_for_work(event), name=f"waits-{number}") for number in range(40)]
    await asyncio.sleep(0.1)
    Path("ready").touch()
    await event.wait()

asyncio.run(main())
"""
CONTROL = re.compile(rb"\x1b(\[[0-9;?<>=]*[a-zA-Z]|\][^\x07]*\x07|[PX^_].*?\x1b\\|.)", re.DOTALL)


class Terminal:
    """A terminal of 80x24 with the command in it."""

    def __init__(self, penstock: Command, *arguments: str) -> None:
        self.screen, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        line = [sys.executable, "-m", "penstock", *arguments]
        environ = environment() | penstock.extra | {"TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            line, stdin=far, stdout=far, stderr=far, cwd=penstock.folder, env=environ, text=True, start_new_session=True
        )
        penstock.started.append(self.process)
        os.close(far)
        self.received = b""

    @property
    def text(self) -> str:
        return CONTROL.sub(b"", self.received).decode(errors="replace")

    def press(self, keys: str) -> None:
        self.received = b""
        os.write(self.screen, keys.encode())

    def until(self, *texts: str) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not all(text in self.text for text in texts):
            assert time.monotonic() < end_s, f"no {texts} in {self.text!r}"
            self.read()

    def read(self) -> bool:
        """Receive what was written. Return False at the end."""
        if select.select([self.screen], [], [], 0.05)[0]:
            try:
                self.received += os.read(self.screen, 65536)
            except OSError:
                return False
        return True

    def end(self) -> int:
        """Receive all until the end of the command; return its exit code."""
        end_s = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < end_s, f"it has not ended: {self.text!r}"
            self.read()
        os.close(self.screen)
        return self.process.returncode


@pytest.fixture
def running(penstock: Command) -> subprocess.Popen[str]:
    runtime = penstock.folder / "run"
    runtime.mkdir(mode=0o700)
    penstock.extra["PENSTOCK_RUNTIME_DIR"] = str(runtime)
    penstock.write("program.py", PROGRAM)
    process = penstock.start("run", "program.py")
    wait_for((penstock.folder / "ready").exists, process)
    wait_for(lambda: any(runtime.glob("*-attach.sock")), process)
    return process


def test_a_process_is_looked_at_in_a_terminal_until_its_end(penstock: Command, running: subprocess.Popen[str]) -> None:
    terminal = Terminal(penstock, "top", "--interval", "0.1")
    terminal.until("nothing is wrong", f"program.py pid {running.pid}", "[1 Loop]", "connected")
    terminal.press("2")
    terminal.until("[2 Tasks]", "waits-3", "41 tasks, 41 match")
    terminal.press("g")
    terminal.until("Enter lists these tasks")
    terminal.press("g")
    terminal.until("await stack, innermost first")
    terminal.press("g")
    terminal.until("41 tasks, 41 match")
    terminal.press("\x1b[B\r")
    terminal.until("Await chain", "Creation stack", "program.py:6 in wait_for_work")
    terminal.press("\x1b")
    terminal.until("[2 Tasks]")
    running.kill()
    terminal.until("ENDED")
    terminal.press("q")
    assert terminal.end() == 0


def test_several_processes_are_a_list_to_choose_from(penstock: Command, running: subprocess.Popen[str]) -> None:
    penstock.write("second.py", PROGRAM)
    second = penstock.start("run", "second.py")
    wait_for(lambda: len(list((penstock.folder / "run").glob("*-attach.sock"))) == 2, second)
    terminal = Terminal(penstock, "top")
    terminal.until("Choose a process", str(running.pid), str(second.pid))
    terminal.press("\x1b[B\r")
    terminal.until("[1 Loop]", "connected")
    terminal.press("q")
    assert terminal.end() == 0


def test_without_a_terminal_it_names_the_command_to_use(penstock: Command) -> None:
    penstock.refuses("top", code=2, says="'penstock tasks --json' is for programs")


def test_a_wrong_process_or_interval_is_an_error_in_one_line(penstock: Command) -> None:
    penstock.refuses("top", "--interval", "fast", code=2, says="'fast' is not a number of seconds")
    penstock.refuses("top", "0", code=2, says="'0' is not a number of 1 or more")
    terminal = Terminal(penstock, "top", "999999999")
    assert terminal.end() == 2
    terminal.until("no penstock process 999999999")
