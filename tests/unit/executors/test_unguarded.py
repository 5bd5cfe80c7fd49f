"""A main module without its guard: one error says so, once, whichever way workers start."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import penstock
print("imported")
def work(): ...
async def main():
    await penstock.offload(work)
penstock.run(main(), config=penstock.Config(executors=penstock.ExecutorsConfig(cpu=penstock.LaneConfig({kind}))))
"""


def ran(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    path = folder / "program.py"
    path.write_text(program)
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
def test_a_forgotten_guard_is_one_error_that_says_what_to_write(tmp_path: Path, start: str) -> None:
    done = ran(tmp_path, PROGRAM.format(kind=f'"processes", start="{start}"'))
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.count("if __name__ == '__main__':") == 1
    last = done.stderr.rstrip().splitlines()[-1]
    assert last.startswith(
        "penstock.errors.WorkerStartError: lane 'cpu': its workers do not start: the main module starts"
    )
    assert last.endswith("put what starts it, such as penstock.run(main()), under `if __name__ == '__main__':`")


OWN = """
import multiprocessing
def work(): ...
multiprocessing.get_context("spawn").Process(target=work).start()
"""


def test_a_worker_of_multiprocessings_own_without_the_guard_is_told_as_python_tells(tmp_path: Path) -> None:
    assert "An attempt has been made to start a new process" in ran(tmp_path, "import penstock\n" + OWN).stderr
