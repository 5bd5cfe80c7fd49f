"""Each block of code in README.md and docs runs, and has the effect that the document describes.

A Python block is a program of its own, run in an empty folder. `SAID` has the expected output of some. A comment before
a block names another use:

    <!-- block: fails ExplorationFailed -->   the program ends with this exception
    <!-- block: serves -->                    the program serves until it is interrupted
    <!-- block: pytest -->                    a file of tests
    <!-- block: conftest -->                  the conftest.py of tests
    <!-- block: app -->                       `shop.py`, with an ASGI application for `penstock serve`
    <!-- block: recipe django -->             the same, with a framework: test_frameworks.py
    <!-- block: program aiohttp -->           a program that serves by another server: test_other_servers.py

TOML and variables of a shell are loaded as a config. `penstock` accepts the arguments of its commands, a unit's among
them.
"""

import configparser
import re
import shlex
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import penstock as package
from tests.e2e.conftest import PATIENCE_S, ROOT, Command, environment, get, wait_for

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- block: ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# A part of a block, and the pattern of its output.
SAID = {
    "queue_jobs=4": r"5 refused: lane 'small' is full \(4 jobs queued, limit 4\)",
    "def slow": r"slow has not ended within 0.2 s",
    "os.abort": r"was killed by SIGABRT 6",
    "def primes": r"^303$",
    "async def fetch(": r"^alive: ([1-9]|10)\nsum: 4950$",
    "async def walk(": r"^81 leaves, two tasks at a time$",
    "async def square(": r"^first above 100: 121$",
    "async def produce(": r"^bytes: 49500$",
    "sum, range(1000)))": r"^499500$",
    "def report": r"^$",
    "print(number, refusal)": r"^(\d gate 'gate-1' had no permit within [^\n]*\n){2}\[200, 200, 503, 503\]$",
}
TESTS = """
import asyncio
import penstock
import pytest


@pytest.mark.asyncio
async def test_by_pytest_asyncio():
    assert penstock.get_running_loop() is asyncio.get_running_loop()


@pytest.mark.anyio
async def test_by_anyio():
    assert penstock.get_running_loop() is asyncio.get_running_loop()
"""


@dataclass(frozen=True)
class Block:
    """A block of code: its place, the comment before it, its language, its text."""

    place: str
    said: str
    language: str
    text: str


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text()
    return [
        Block(f"{path.name}:{text.count(chr(10), 0, found.start(3))}", found[1] or "", found[2], found[3])
        for found in BLOCK.finditer(text)
    ]


BLOCKS = [block for path in DOCUMENTS for block in blocks_of(path)]


def blocks(language: str, said: str | None = None) -> pytest.MarkDecorator:
    found = [one for one in BLOCKS if one.language == language and (said is None or one.said.partition(" ")[0] == said)]
    assert found
    return pytest.mark.parametrize("block", found, ids=lambda block: block.place)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
    )


@blocks("python", "")
def test_a_program_runs_and_says_what_its_document_says(block: Block, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(block.text)
    result = run(tmp_path, "program.py")
    assert (result.stderr, result.returncode) == ("", 0)
    for part, pattern in SAID.items():
        assert part not in block.text or re.search(pattern, result.stdout.strip()), result.stdout


def test_a_document_has_each_program_that_says_something() -> None:
    assert all(any(part in block.text for block in BLOCKS) for part in SAID)


@blocks("python", "fails")
def test_a_program_that_fails_on_purpose_fails_as_its_document_says(block: Block, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(block.text)
    result = run(tmp_path, "program.py")
    assert result.returncode == 1
    assert re.search(rf"^(\w+\.)*{block.said.removeprefix('fails ')}: ", result.stderr, re.MULTILINE), result.stderr


@blocks("python", "serves")
def test_a_server_serves_until_it_is_interrupted(block: Block, tmp_path: Path, free_port: int) -> None:
    (tmp_path / "program.py").write_text(block.text.replace("8888", str(free_port)))
    process = subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE)
    try:
        wait_for(lambda: echoes(free_port), process)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert complaint.decode().endswith("KeyboardInterrupt\n")


def echoes(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            client.sendall(b"hello")
            return client.recv(5) == b"hello"
    except OSError:
        return False


def test_the_readme_shows_what_penstock_run_says_of_its_stall(penstock: Command) -> None:
    block = next(block for block in BLOCKS if "def report" in block.text)
    said = next(block.text for block in BLOCKS if "penstock.tasks.stall" in block.text)
    penstock.write("shop.py", block.text)
    # on a busy machine a stall may be that of the machine, or of the turn around the callback
    assert any(without_times(said) in without_times(penstock("run", "shop.py").stderr) for _ in range(10))


def without_times(said: str) -> str:
    """Return the lines of a log without their times."""
    return re.sub(r"\d{4}-\d\d-\d\d [\d:,]+|\d+\.\d+ s", "-", said)


APPS = [block for block in BLOCKS if block.said == "app"]


@pytest.mark.parametrize("block", APPS, ids=lambda block: block.place)
def test_an_application_is_served_and_the_stall_it_has_is_logged(
    block: Block, penstock: Command, free_port: int
) -> None:
    penstock.write("shop.py", block.text)
    # at this level also a stall that is mostly a busy machine's
    process = penstock.start("serve", "shop:app", "--port", str(free_port), "--log-level", "debug")
    wait_for(lambda: b'{"primes": 1117}' in answer(free_port), process)
    process.terminate()
    log, _ = process.communicate(timeout=PATIENCE_S)
    assert "offload" in block.text or re.search(r"penstock.tasks.stall: a .*lasted .* in primes", log), log


def answer(port: int) -> bytes:
    try:
        return get(("127.0.0.1", port))
    except OSError:
        return b""


def pytest_in(folder: Path, *arguments: str) -> str:
    result = run(folder, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *arguments)
    assert result.returncode == 0, result.stdout
    return result.stdout


@blocks("python", "pytest")
def test_a_file_of_tests_passes(block: Block, tmp_path: Path) -> None:
    (tmp_path / "test_block.py").write_text(block.text)
    found = pytest_in(tmp_path, "--strict-markers", "-p", "no:asyncio")
    assert len(re.findall("^PASSED", found, re.MULTILINE)) == block.text.count("\ndef test_")


@blocks("python", "conftest")
def test_a_conftest_has_tests_run_on_penstocks_loop(block: Block, tmp_path: Path) -> None:
    pytest.importorskip("pytest_asyncio")
    (tmp_path / "conftest.py").write_text(block.text)
    (tmp_path / "test_block.py").write_text(TESTS)
    found = pytest_in(tmp_path, "-o", "asyncio_default_fixture_loop_scope=function")
    assert len(re.findall("^PASSED", found, re.MULTILINE)) == 2


def test_each_block_is_of_a_kind_that_is_tried() -> None:
    # test_notebooks.py starts the kernel of the block in JSON
    assert {block.language for block in BLOCKS} == {"python", "toml", "sh", "json", "ini", "yaml", ""}
    served = {"serves", "app", "recipe", "program"}
    assert {block.said.partition(" ")[0] for block in BLOCKS} == {"", "fails", "pytest", "conftest", *served}


@blocks("ini")
def test_a_unit_of_systemd_parses(block: Block) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.read_string(block.text)
    assert unit.has_option("Service", "ExecStart")


@blocks("yaml")
def test_probes_of_kubernetes_parse(block: Block) -> None:
    probes = pytest.importorskip("yaml").safe_load(block.text)
    assert all({"httpGet", "periodSeconds"} <= set(probe) for probe in probes.values())


@blocks("toml")
def test_toml_is_a_config(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "penstock.toml"
    path.write_text(block.text)
    assert package.Config.load(path, env={}) != package.Config()


def variables(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if re.match(r"PENSTOCK_\w+=", line)]
    return dict(shlex.split(line)[0].split("=", 1) for line in lines)


@pytest.mark.parametrize("block", [one for one in BLOCKS if variables(one.text)], ids=lambda block: block.place)
def test_variables_are_a_config(block: Block) -> None:
    assert package.Config.load(env=variables(block.text)) != package.Config()


def commands(text: str) -> list[list[str]]:
    """Return the commands of `penstock` in a block, without descriptions and `[optional]` parts."""
    lines = re.findall(r"^(?:ExecStart=/\S+/)?(penstock (?:run|serve|doctor).*)$", text, re.MULTILINE)
    return [shlex.split(re.sub(r"\[.*?\]", "", re.split(r" {3,}", line)[0])) for line in lines]


COMMANDS = [(block, line) for block in BLOCKS for line in commands(block.text)]


@pytest.mark.parametrize(("block", "line"), COMMANDS, ids=lambda value: getattr(value, "place", None))
def test_a_command_has_arguments_that_penstock_takes(block: Block, line: list[str], penstock: Command) -> None:
    if line[1] == "doctor":
        assert penstock(*("1" if word == "PID" else word for word in line[1:]), "--help").returncode == 0
    elif line[-1] not in {"IPython", "asyncio"}:
        # its script or module is missing, and nothing else is wrong
        result = penstock(*line[1:])
        assert re.search(r"^penstock \w+: .*(no script at|[Nn]o module named)[^\n]*\n\Z", result.stderr), result.stderr
