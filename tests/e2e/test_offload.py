"""Work in lanes: worker processes on each loop, decorated functions, and their common end."""

import json
import os
import subprocess
import sys

import pytest

from tests.e2e.conftest import PATIENCE_S, Command, environment

PROGRAM = """
import asyncio, json, os, sys
import penstock

@penstock.offloaded
def double(number):
    return number * 2, os.getpid()

@penstock.offloaded(lane="db")
def here():
    return os.getpid()

async def main():
    doubled, worker = await double(21)
    own = await here()
    with_name = await penstock.offload.options(timeout=20)(os.path.basename, "a/b")
    found = await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    used = {name: told.completed["ok"] for name, told in penstock.executors.statistics().items()}
    print(json.dumps([doubled, worker, own, os.getpid(), with_name, len(found) > 0, used]))

if __name__ == "__main__":
    how = sys.argv[1] if len(sys.argv) > 1 else "penstock"
    if how == "penstock":
        penstock.run(main())
    elif how == "policy":
        penstock.install()
        asyncio.run(main())
    elif how == "asyncio":
        asyncio.run(main())
    elif how == "uvloop":
        import uvloop
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    elif how == "left open":
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
"""
LANES = {"PENSTOCK_EXECUTORS_LANES": "db=threads workers=1", "PENSTOCK_EXECUTORS_CPU_WORKERS": "1"}


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def check(output: str, names: set[str]) -> None:
    doubled, worker, own, pid, with_name, found, used = json.loads(output)
    assert (doubled, with_name, found) == (42, "b", True)
    assert own == pid != worker
    assert set(used) == names
    assert (used["cpu"], used["db"]) == (2, 1)
    assert not is_alive(worker)


@pytest.mark.parametrize("how", ["penstock", "policy", "asyncio", "uvloop", "left open"])
def test_a_program_uses_its_lanes_on_any_loop_and_ends_clean(penstock: Command, how: str) -> None:
    if how == "uvloop":
        pytest.importorskip("uvloop")
    if how == "policy" and sys.version_info >= (3, 16):
        pytest.skip("asyncio has no policies")
    script = penstock.write("program.py", PROGRAM)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), how],
        env=environment() | LANES,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    # a loop that is not penstock's looks names up by itself
    check(done.stdout, {"cpu", "db", "dns"} if how in ("penstock", "policy") else {"cpu", "db"})


def test_the_command_gives_the_program_its_lanes(penstock: Command) -> None:
    penstock.write("app.py", PROGRAM)
    penstock.write("penstock.toml", '[executors.cpu]\nworkers = 1\n[executors.lanes]\ndb = "threads workers=1"\n')
    done = penstock("run", "app.py", "asyncio")
    assert (done.returncode, done.stderr) == (0, "")
    check(done.stdout, {"cpu", "db", "dns"})


def test_a_lane_that_names_nothing_is_one_line(penstock: Command) -> None:
    penstock.write("app.py", PROGRAM)
    penstock.refuses(
        "run", "--set", "executors.cpu=app:nothing", "app.py", code=2, says="executors.cpu = 'app:nothing'"
    )
    penstock.refuses("run", "--set", "executors.cpu=thread", "app.py", code=2, says="executors.cpu.kind = 'thread'")
