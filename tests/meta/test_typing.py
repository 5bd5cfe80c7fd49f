"""Type checkers on programs: right calls pass with the types of their results, wrong ones are errors."""

import ast
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import pytest

import penstock
from tests.meta.source import ROOT

PROGRAMS = [ROOT / "tests/typing/calls.py", ROOT / "tests/typing/program.py"]
PACKAGES = "", "executors", "integrations", "pressure", "pressure.limits", "tasks", "telemetry", "testing"

# file name -> lines with an error
Errors = defaultdict[str, set[int]]


def by_mypy(folder: Path) -> Errors:
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *folder.glob("*.py")]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    print(output)
    found = Errors(set)
    for line in output.splitlines():
        path, number, *_ = line.split(":")
        found[Path(path).name].add(int(number))
    return found


def by_pyright(folder: Path) -> Errors:
    """Run basedpyright, which is pyright with a node of its own from the same registry."""
    pytest.importorskip("basedpyright")
    config = {
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "pythonVersion": "3.11",
        "extraPaths": [str(ROOT / "src")],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    command = ["-m", "basedpyright", "--outputjson", "--project", folder, "--pythonpath", sys.executable]
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
    found = Errors(set)
    for one in json.loads(done.stdout)["generalDiagnostics"]:
        print(one)
        if one["severity"] == "error":
            found[Path(one["file"]).name].add(one["range"]["start"]["line"] + 1)
    return found


@pytest.mark.parametrize("check", [by_mypy, by_pyright])
def test_a_type_checker_passes_what_is_right_and_refuses_each_line_that_is_wrong(
    check: Callable[[Path], Errors], tmp_path: Path
) -> None:
    wrong = {}
    for path in PROGRAMS:
        lines = path.read_text().splitlines()
        wrong[path.name] = {number for number, line in enumerate(lines, 1) if "  # type: ignore[" in line}
        (tmp_path / path.name).write_text("\n".join(lines))
        naked = [line.partition("  # type: ignore[")[0] for line in lines]
        (tmp_path / f"naked_{path.name}").write_text("\n".join(naked))
    found = check(tmp_path)
    for name, numbers in wrong.items():
        assert not found[name]
        assert numbers
        assert found[f"naked_{name}"] == numbers


def test_the_program_uses_every_public_name() -> None:
    program = ast.parse(PROGRAMS[1].read_text())
    used = {ast.unparse(node) for node in ast.walk(program) if isinstance(node, ast.Attribute)}
    # `limits` and a few names are imported; all else is written out
    used |= {f"penstock.pressure.{name}" for name in used if name.startswith("limits.")}
    for node in ast.walk(program):
        if isinstance(node, ast.ImportFrom):
            used |= {f"{node.module}.{alias.name}" for alias in node.names}
    for path in PACKAGES:
        package = reduce(getattr, filter(None, path.split(".")), penstock)
        assert not {f"{package.__name__}.{name}" for name in package.__all__} - used
