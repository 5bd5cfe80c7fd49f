"""Notebooks and prompts: a real kernel, started as docs/notebooks.md says, and functions of a session in workers."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE_S, ROOT, environment

GUIDE = (ROOT / "docs" / "notebooks.md").read_text()
SPECIFICATION = re.findall(r"^```json\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run_cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run a cell in a kernel of the guide's specification, and return its output, result or error.

    With `interrupted` the kernel is interrupted as soon as the cell has printed something.
    """
    pytest.importorskip("ipykernel")
    manager = pytest.importorskip("jupyter_client.manager")
    kernelspec = pytest.importorskip("jupyter_client.kernelspec")
    folder = tmp_path_factory.mktemp("kernels")
    (text,) = SPECIFICATION
    specification = json.loads(text)
    assert specification["argv"][0] == "python"
    specification["argv"][0] = sys.executable
    (folder / "penstock").mkdir()
    (folder / "penstock" / "kernel.json").write_text(json.dumps(specification))
    specifications = kernelspec.KernelSpecManager(kernel_dirs=[str(folder)])
    kernel = manager.KernelManager(
        kernel_name="penstock",
        kernel_spec_manager=specifications,
        connection_file=str(folder / "connection.json"),
        transport="ipc",
        ip=str(folder / "kernel"),
    )
    kernel.start_kernel(env=environment() | {"IPYTHONDIR": str(folder)}, cwd=folder)
    client = kernel.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE_S * 2)
        yield lambda code, *, interrupted=False: _run(client, code, kernel.interrupt_kernel if interrupted else None)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def _run(client: object, code: str, interrupt: Callable[[], None] | None) -> str:
    told: list[str] = []

    def hear(message: dict[str, dict[str, object]]) -> None:
        content = message["content"]
        if "data" in content:
            told.append(content["data"]["text/plain"])
        elif "ename" in content:
            told.append(f"{content['ename']}: {content['evalue']}")
        elif content.get("name") in {"stdout", "stderr"}:
            told.append(content["text"])
            if interrupt is not None:
                interrupt()

    client.execute_interactive(code, output_hook=hear, timeout=PATIENCE_S * 2)
    return "".join(told)


def test_a_kernel_runs_its_cells_on_penstocks_loop(run_cell: Run) -> None:
    assert run_cell("import asyncio, penstock\nisinstance(penstock.get_running_loop(), penstock.EventLoop)") == "True"
    assert run_cell("async def answer():\n    await asyncio.sleep(0)\n    return 42\nawait answer()") == "42"
    assert run_cell("penstock.tasks.statistics().created > 0") == "True"
    assert "cannot be called from a running event loop" in run_cell("penstock.run(answer())")


def test_functions_of_a_cell_run_in_a_worker_process(run_cell: Run) -> None:
    pytest.importorskip("cloudpickle")
    assert run_cell("import os, penstock\nawait penstock.offload(lambda: os.getpid()) != os.getpid()") == "True"
    assert run_cell("def square(n):\n    return n * n\nawait penstock.offload(square, 7)") == "49"
    assert run_cell("def square(n):\n    return twice(n) * n\nawait penstock.offload(abs, -1)") == "1"
    # what it uses is as it is at the time of the call
    assert run_cell("def twice(n):\n    return 2 * n\nawait penstock.offload(square, 7)") == "98"
    assert run_cell("def twice(n):\n    return n\nawait penstock.offload(square, 7)") == "49"


BLOCKS = "time.sleep(60)"
AWAITS = "await asyncio.sleep(60)"
OFFLOADS = "await penstock.offload(time.sleep, 60)"


@pytest.mark.parametrize(("code", "error"), [(BLOCKS, "KeyboardInterrupt"), (AWAITS, "Canc"), (OFFLOADS, "Canc")])
def test_an_interrupt_ends_the_cell_and_leaves_the_kernel(run_cell: Run, code: str, error: str) -> None:
    told = run_cell(f"import asyncio, penstock, time\nprint('begun', flush=True)\n{code}", interrupted=True)
    assert told.startswith(f"begun\n{error}")
    assert run_cell("await penstock.offload(abs, -1)") == "1"


SESSION = """
import asyncio, os, penstock

class Point:
    def __init__(self, x):
        self.x = x

def shifted(point, by):
    return Point(point.x + by)

def adder(by):
    return lambda number: number + by

@penstock.offloaded
def factorial(number):
    return number * below(number - 1) if number else 1

def below(number):
    return 1 if number < 2 else number * below(number - 1)

async def main():
    print(await penstock.offload.options(lane="ready")(lambda: 1))
    point = await penstock.offload(shifted, Point(3), by=4)
    print(type(point) is Point, point.x)
    print(await penstock.offload(adder(5), 1), await factorial(5))
    print(await asyncio.gather(*[penstock.offload(lambda n: n * n, number) for number in range(3)]))
    view = await penstock.offload(lambda view: view.nbytes, memoryview(bytes(1 << 20)))
    print(view, len(await penstock.offload(lambda: bytes(1 << 20))))

ready = penstock.LaneConfig("processes", workers=1, initializer=lambda: print("ready", flush=True))
penstock.run(main(), config=penstock.Config(executors=penstock.ExecutorsConfig(lanes={"ready": ready})))
"""


def run_session(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S * 2)


def test_functions_classes_lambdas_and_closures_of_a_session_travel_by_value() -> None:
    pytest.importorskip("cloudpickle")
    result = run_session(SESSION)
    told = ["ready", "1", "True 7", "6 120", "[0, 1, 4]", "1048576 1048576"]
    assert (result.stderr, result.stdout.splitlines()) == ("", told)


WITHOUT = """
import sys
sys.modules["cloudpickle"] = None
import asyncio, penstock

class Point: ...
def square(n): return n * n

async def main():
    for call in ((square, 2), (lambda: 1,), (type, Point()), (type, [Point])):
        try:
            await penstock.offload(*call)
        except penstock.errors.UnpicklableError as problem:
            print(problem)
    try:
        await penstock.offload.options(lane="ready")(abs, -1)
    except penstock.errors.UnpicklableError as problem:
        print(problem)
    print(await penstock.offload(abs, -1))

ready = penstock.LaneConfig("processes", workers=1, initializer=lambda: None)
penstock.run(main(), config=penstock.Config(executors=penstock.ExecutorsConfig(lanes={"ready": ready})))
"""


def test_without_cloudpickle_the_error_names_the_extra() -> None:
    *refused, fine = run_session(WITHOUT).stdout.splitlines()
    assert fine == "1"
    assert len(refused) == 5
    for line in refused:
        assert "it is defined in an interactive session" in line
        assert "pip install 'penstock[notebook]'" in line
    assert "the function itself, a function, does not pickle" in refused[0]
    assert "argument 1, a Point, does not pickle" in refused[2]
    assert "argument 1[0], a type, does not pickle" in refused[3]
    assert refused[4].startswith("lane 'ready': its initializer cannot be sent to a worker")


def test_a_program_in_a_file_sends_functions_by_name_as_before(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import penstock\n"
        "async def main():\n"
        "    try:\n"
        "        await penstock.offload(lambda: 1)\n"
        "    except penstock.errors.UnpicklableError as problem:\n"
        "        print(problem)\n"
        "if __name__ == '__main__':\n"
        "    penstock.run(main())\n"
    )
    result = subprocess.run([sys.executable, program], env=environment(), capture_output=True, text=True)
    assert "the function itself, a function, does not pickle" in result.stdout
    assert "interactive" not in result.stdout


PROMPT = b"""import penstock
async def main(): print("told", await penstock.offload(lambda: 41) + 1)

penstock.run(main())
exit()
"""


def test_functions_of_pythons_own_prompt_run_in_a_worker_process() -> None:
    pytest.importorskip("cloudpickle")
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable], env=environment(), stdin=theirs, stdout=theirs, stderr=theirs) as prompt:
        os.close(theirs)
        os.write(ours, PROMPT)
        told = b""
        with suppress(OSError):  # as a terminal's end is told
            while said := os.read(ours, 65536):
                told += said
        os.close(ours)
    assert prompt.returncode == 0
    assert b"told 42\r\n" in told, told.decode()


def test_the_prompt_of_asyncio_awaits_on_penstocks_loop_and_sends_its_functions() -> None:
    pytest.importorskip("cloudpickle")
    lines = "import penstock", "loop = type(penstock.get_running_loop()).__module__"
    text = "\n".join([*lines, "print('told', loop, await penstock.offload(lambda: 41) + 1)", ""])
    command = [sys.executable, "-m", "penstock", "run", "-m", "asyncio"]
    prompt = subprocess.run(
        command, input=text, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S * 2
    )
    assert re.search(r"told penstock\.loop\.(eventloop|selector) 42$", prompt.stdout, re.MULTILINE), prompt.stderr


def test_the_prompt_of_ipython_awaits_on_penstocks_loop(tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    cell = (
        "import penstock\nawait penstock.to_thread(print, 'on', type(penstock.get_running_loop()).__module__)\nexit\n"
    )
    command = [sys.executable, "-m", "penstock", "run", "-m", "IPython", "--simple-prompt", "--no-banner"]
    prompt = subprocess.run(
        [*command, "--no-confirm-exit", "--HistoryManager.enabled=False"],
        input=cell,
        env=environment() | {"IPYTHONDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
    )
    assert re.search(r"on penstock\.loop\.(eventloop|selector)", prompt.stdout), prompt.stdout + prompt.stderr
