"""The commands that attach to a process: on a service that runs, one that sleeps, and one whose GIL is held in C."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from penstock.loop import NATIVE
from penstock.monitor.client import AttachedProcess
from tests.e2e.conftest import PATIENCE_S, Command
from tests.support.ports import free_port
from tests.support.retried import note_retry
from tests.support.waiting import wait_until

native_only = pytest.mark.skipif(not NATIVE, reason="without native code no thread answers without the GIL")

SERVICE = """
import asyncio, ctypes, sys, time
import penstock

async def leaf():
    await asyncio.sleep(3600)

async def branch():
    await asyncio.create_task(leaf(), name="leaf")

async def wait_for(name):
    await asyncio.sleep(0)
    await tasks[name]

tasks = {}
gate = penstock.Gate(8, name="checkout")

async def main():
    tasks["branch"] = asyncio.create_task(branch(), name="branch")
    tasks["left"] = asyncio.create_task(wait_for("right"), name="left")
    tasks["right"] = asyncio.create_task(wait_for("left"), name="right")
    async with gate:
        pass
    await asyncio.sleep(0.1)
    print("ready", flush=True)
    order = (await asyncio.to_thread(sys.stdin.readline)).strip()
    if order == "sleep":
        time.sleep(600)
    if order == "gil asleep":
        ctypes.PyDLL(None).sleep(600)
    if order == "gil busy":
        sum(range(10**13))

penstock.run(main())
"""
READING = (["ps"], ["tasks"], ["tasks", "--group", "site"], ["tasks", "--group", "stack"], ["tasks", "--tree"])
BOUND_S = 0.1


class Observed:
    """A service, and commands that look at it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.environ = {**os.environ, "PENSTOCK_RUNTIME_DIR": str(folder), "PENSTOCK_TASKS_STUCK_S": "600", **variables}
        # a file: the name of a blocking call is read from the source
        program = folder / "service.py"
        program.write_text(SERVICE)
        self.process = subprocess.Popen(
            [sys.executable, str(program)],
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None and self.process.stdout.readline() == "ready\n"
        wait_until(partial(is_served, folder / f"{self.process.pid}-attach.sock"))
        # the first answer shows that all threads of the server run
        with AttachedProcess(self.process.pid, within_s=PATIENCE_S) as attached:
            attached.ask("about")

    @property
    def pid(self) -> str:
        return str(self.process.pid)

    def order(self, text: str) -> None:
        """Have the service block, and wait until a monitor sees it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()
        with AttachedProcess(self.process.pid, within_s=PATIENCE_S) as attached:
            wait_until(lambda: is_blocked(attached.ask("about")), PATIENCE_S)

    def run(self, *arguments: str, code: int = 0) -> str:
        """Return what a command prints: on stderr one line if it fails, else nothing."""
        done = self.start(*arguments)
        out, err = done.communicate(timeout=PATIENCE_S)
        assert done.returncode == code, (out, err)
        assert err.count("\n") == (1 if code else 0), err
        return out if code == 0 else err

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        line = [sys.executable, "-m", "penstock", *arguments]
        return subprocess.Popen(
            line, cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def json(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(*arguments, "--json"))
        return found


def is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def is_blocked(about: dict[str, Any]) -> bool:
    loop = about["loops"][0]
    return bool(loop.get("blocked") or loop.get("blocked_s"))


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # pytest's own is too long for the path of a socket
    made = Path(mkdtemp(prefix="attach", dir="/tmp"))
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", str(made))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def observed(folder: Path, request: pytest.FixtureRequest) -> Iterator[Observed]:
    made = Observed(folder, **getattr(request, "param", {}))
    yield made
    made.process.kill()
    made.process.communicate()


# --- a service that runs


def test_a_running_service_is_shown_by_each_command(observed: Observed) -> None:
    pid = observed.pid
    head, row, *rest = observed.run("ps").splitlines()
    assert head.split() == ["PID", "NAME", "LOOP", "STATE", "UTIL", "TASKS", "UPTIME", "FINDINGS"]
    assert row.split()[0] == pid
    assert "running" in row
    assert not rest
    listed = observed.run("tasks", pid, "--sort", "number", "--ascending")
    assert "branch" in listed
    assert listed.splitlines()[-1] == "5 of 5 tasks"
    assert observed.run("tasks", pid, "--filter", "leaf").splitlines()[-1] == "1 of 5 tasks, 1 match"
    assert observed.run("tasks", "--limit", "2").splitlines()[-1] == "2 of 5 tasks"
    assert observed.run("tasks", "--group", "site").splitlines()[0].split()[-1] == "SITE"
    stacks = observed.run("tasks", "--group", "stack")
    assert "cycle: left -> right -> left" in stacks or "cycle: right -> left -> right" in stacks
    assert "awaits sleep of 3600 s" in stacks
    tree = observed.run("tasks", "--tree", "--filter", "leaf").splitlines()
    assert "cycle: " in tree[0]
    assert tree[1].startswith("branch")
    assert tree[2].startswith("└─ leaf")
    assert "thread MainThread" in observed.run("stacks", pid)
    assert observed.run("findings", pid) == "no findings\n"
    assert observed.run("level", pid, "trace") == f"process {pid}: level trace\n"
    assert observed.json("ps")["processes"][0]["loops"][0]["level"] == "trace"


def test_a_trace_is_a_file_for_perfetto(observed: Observed) -> None:
    out = observed.run("trace", "--seconds", "0.3", "-o", "out.json")
    assert out.startswith("out.json: ")
    assert isinstance(json.loads((observed.folder / "out.json").read_text())["traceEvents"], list)


def test_each_reading_command_has_its_answer_as_json(observed: Observed) -> None:
    for arguments in (*READING, ["stacks"], ["findings"]):
        found = observed.json(*arguments)
        assert found.get("partial") is False or "processes" in found


def test_actions_are_refused_unless_allowed(observed: Observed) -> None:
    for arguments in (["cancel", "1"], ["gc"], ["set-limit", "checkout", "2"]):
        assert "monitor.actions is false" in observed.run(*arguments, code=1)
    observed.run("tasks", "999999999", code=2)
    observed.run("level", "loud", code=2)


def test_an_unknown_loop_is_refused_with_the_names_of_those_there_are(observed: Observed) -> None:
    for form in ([], ["--group", "site"], ["--tree"]):
        assert "no loop 'other'; there are: penstock-" in observed.run("tasks", "--loop", "other", *form, code=1)


@pytest.mark.parametrize("observed", [{"PENSTOCK_MONITOR_ACTIONS": "1"}], indirect=True)
def test_allowed_actions_act(observed: Observed) -> None:
    found = observed.json("tasks", "--filter", "leaf")["tasks"][0]
    assert "cancelled" in observed.run("cancel", str(found["number"]))
    wait_until(lambda: observed.json("tasks", "--filter", "leaf")["matched"] == 0, PATIENCE_S)
    assert "unreachable objects" in observed.run("gc", observed.pid)
    assert observed.run("set-limit", "checkout", "2").endswith("gate 'checkout' has the limit 2\n")
    assert "there are: checkout" in observed.run("set-limit", "other", "2", code=1)
    assert "no live task" in observed.run("cancel", "987654", code=1)


def test_a_followed_process_that_ends_is_one_line(observed: Observed) -> None:
    following = observed.start("findings", "--follow")
    with AttachedProcess(observed.process.pid) as attached:
        attached.ask("about")
    observed.process.send_signal(signal.SIGKILL)
    observed.process.wait()
    out, err = following.communicate(timeout=PATIENCE_S)
    assert (following.returncode in (1, 2), out) == (True, "")
    assert err.startswith("penstock findings: ")
    assert err.count("\n") == 1
    assert observed.run("ps").startswith("no penstock process")


# --- a service that sleeps


@native_only
def test_a_service_that_sleeps_is_shown_whole(observed: Observed) -> None:
    observed.order("sleep")
    assert " blocked " in observed.run("ps")
    assert observed.run("tasks").splitlines()[-1] == "5 of 5 tasks"
    assert "├─" not in observed.run("tasks", "--tree")
    thread, place, *_ = observed.run("stacks").splitlines()
    assert thread.startswith("thread MainThread")
    assert place.strip().endswith("in main")
    wait_until(lambda: "time.sleep" in observed.run("findings") or "descheduled" in observed.run("findings"))
    assert observed.run("level", "count").endswith("level count\n")
    assert observed.run("trace", "--seconds", "0.2", "-o", "out.json").startswith("out.json: ")


@native_only
def test_findings_are_followed_as_they_come(observed: Observed) -> None:
    following = observed.start("findings", "--follow", "--json")
    observed.order("sleep")
    assert following.stdout is not None
    found = json.loads(following.stdout.readline())
    assert found["kind"] == "stall"
    following.send_signal(signal.SIGINT)
    assert following.wait(PATIENCE_S) == 130
    following.communicate()


# --- a service whose GIL is held by C code


@native_only
@pytest.mark.parametrize("order", ["gil asleep", "gil busy"])
def test_a_held_gil_leaves_a_partial_answer_of_each_command(observed: Observed, order: str) -> None:
    observed.order(order)
    out = observed.run("ps")
    assert " blocked " in out
    assert f"{observed.pid}: partial answer: the GIL was not available for " in out
    for arguments in (*READING[1:], ["stacks"], ["findings"]):
        first, second, _, loop, *_ = observed.run(*arguments).splitlines()
        assert first.startswith("partial answer: the GIL was not available")
        assert second.startswith("not read: tasks")
        assert ": blocked for " in loop
        assert observed.json(*arguments)["partial"] is True
    expected = "in main" if order == "gil busy" else "stacks: not read"
    # a busy thread may be off its CPU at the moment of the question
    wait_until(lambda: expected in observed.run("stacks"), PATIENCE_S)
    for arguments in (["trace", "--seconds", "0.1"], ["level", "trace"]):
        assert "the GIL was not available" in observed.run(*arguments, code=1)


@native_only
@pytest.mark.parametrize("order", ["gil asleep", "gil busy"])
def test_a_held_gil_delays_no_answer_by_more_than_the_bound(observed: Observed, order: str) -> None:
    """On a loaded machine the bound is tried again; the answer is partial each time."""
    observed.order(order)
    with AttachedProcess(observed.process.pid, within_s=PATIENCE_S) as attached:
        for command in ("about", "snapshot", "tasks", "graph", "stacks", "findings", "level", "trace"):
            took_s = [timed(attached, command)]
            while took_s[-1] > BOUND_S and len(took_s) < 20:
                note_retry(f"{command} was not answered within the bound")
                took_s.append(timed(attached, command))
            assert took_s[-1] <= BOUND_S, took_s


def timed(attached: AttachedProcess, command: str) -> float:
    """Return how long the partial answer to a command took, in seconds."""
    began_s = time.monotonic()
    answer = attached.ask(command, level="time")
    took_s = time.monotonic() - began_s
    assert answer["partial"] is True
    assert answer["loops"][0]["blocked"]["lasted_s"] > 0.05
    return took_s


# --- a service with workers

APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""


def test_workers_stand_below_their_supervisor(penstock: Command, folder: Path) -> None:
    penstock.write("shop.py", APP)
    penstock.extra["PENSTOCK_RUNTIME_DIR"] = str(folder)
    parent = penstock.start("serve", "shop:app", "--port", str(free_port()), "--workers", "2")

    def rows() -> list[str]:
        return penstock("ps").stdout.splitlines()[1:]

    wait_until(lambda: len(rows()) == 3, PATIENCE_S)
    first, *others = rows()
    assert first.split()[0] == str(parent.pid)
    assert "(supervisor)" in first
    assert "2 workers" in first
    assert all(row.startswith("  ") and "serve shop:app [" in row for row in others), others
    assert "it is a supervisor" in penstock("tasks", str(parent.pid)).stderr


def test_a_server_is_named_by_its_application_and_not_by_its_address(penstock: Command, folder: Path) -> None:
    penstock.write("shop.py", APP)
    penstock.extra["PENSTOCK_RUNTIME_DIR"] = str(folder)
    penstock.start("serve", "--bind", f"127.0.0.1:{free_port()}", "shop:app")
    wait_until(lambda: "serve shop:app" in penstock("ps").stdout, PATIENCE_S)
