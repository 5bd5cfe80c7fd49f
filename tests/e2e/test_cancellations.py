"""Cancellations of a process as its user sees them: by the attach socket and the command."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

import pytest

from penstock.monitor.client import AttachedProcess
from tests.e2e.conftest import PATIENCE_S
from tests.support.waiting import wait_until

SECRET = "tok-41-secret"
SERVICE = """
import asyncio, sys
import penstock

async def forever():
    await asyncio.sleep(3600)

async def watch(other):
    try:
        await forever()
    finally:
        other.cancel(SECRET)

async def main():
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        fetch = asyncio.create_task(forever(), name="fetch")
        watcher = asyncio.create_task(watch(fetch), name="watch")
        await asyncio.sleep(0)
        watcher.cancel(SECRET)
        await asyncio.gather(fetch, watcher, return_exceptions=True)
        print("cancelled", flush=True)

penstock.run(main())
""".replace("SECRET", repr(SECRET))


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # pytest's own is too long for the path of a socket
    path = Path(mkdtemp(prefix="penstock-"))
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", str(path))
    yield path
    shutil.rmtree(path)


class Service:
    """A process that cancels a task by another one at each line of its stdin."""

    def __init__(self, folder: Path, **variables: str) -> None:
        (folder / "app.py").write_text(SERVICE)
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "app.py")],
            env={**os.environ, "PENSTOCK_TASKS_STALL_S": "none", **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.told("ready")
        wait_until((folder / f"{self.process.pid}-attach.sock").exists, PATIENCE_S)

    def told(self, text: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{text}\n"

    def cancel(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.told("cancelled")

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-m", "penstock", *arguments, str(self.process.pid)]
        return subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S, check=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()


def named(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["task"]["name"], each["by"]["name"]) for each in answer["cancellations"]]


@pytest.mark.parametrize("poller", ["auto", "selector"])
def test_a_monitor_sees_which_task_cancelled_which(folder: Path, poller: str) -> None:
    options = {"PENSTOCK_TASKS_NAME_CANCELLERS": "true", "PENSTOCK_LOOP_POLLER": poller}
    with Service(folder, **options) as service, AttachedProcess(service.process.pid, within_s=PATIENCE_S) as attached:
        service.cancel()
        answer = attached.ask("cancellations")
        assert answer["enabled"] is True
        assert named(answer)[0][0] == "watch"
        assert named(answer)[1] == ("fetch", "watch")
        told = answer["cancellations"][1]
        assert told["chain"][0] == "watch"
        assert len(told["chain"]) == 2
        assert told["task"]["number"] > 0
        assert told["task"]["site"]["function"] == "main"
        assert told["place"]["text"] == f"{folder / 'app.py'}:12 in watch"
        assert told["thread"] == "MainThread"
        assert SECRET not in json.dumps(answer)
        # the mark leads to those that come
        service.cancel()
        after = attached.ask("cancellations", since=answer["mark"], wait_s=20)
        assert named(after)[1] == ("fetch", "watch")
        assert after["mark"] > answer["mark"]


def test_the_command_shows_the_chain(folder: Path) -> None:
    with Service(folder, PENSTOCK_TASKS_NAME_CANCELLERS="true") as service:
        service.cancel()
        out = service.command("cancellations").stdout
        line = next(line for line in out.splitlines() if "  fetch" in line)
        assert "fetch (made at app.py:17 in main) by watch, itself cancelled by Task-" in line
        assert line.endswith("at app.py:12 in watch")
        assert SECRET not in out
        answer = json.loads(service.command("cancellations", "--json").stdout)
        assert named(answer)[1] == ("fetch", "watch")


def test_a_process_without_the_option_says_so(folder: Path) -> None:
    with Service(folder) as service:
        service.cancel()
        done = service.command("cancellations")
        assert done.stdout == "no cancellations\n"
        assert "tasks.name_cancellers is false" in done.stderr
