"""What becomes of the native core where it cannot be: nothing is built or loaded, and the package is pure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_python_whose_frames_are_not_known_gets_no_extension() -> None:
    program = """
import sys, setuptools
sys.version_info, sys.argv = (3, 16, 0, "final", 0), ["setup.py"]
setuptools.setup = lambda **words: print(words["ext_modules"])
exec(open("setup.py").read())
"""
    assert run(program).splitlines()[-1] == "[]"


@pytest.mark.parametrize("compiler", ["/nonexistent/gcc", "false"])
def test_a_missing_compiler_is_one_line_at_the_end_that_says_the_way_out(compiler: str, tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", tmp_path, "--build-temp", tmp_path]
    environ = {**os.environ, "CC": compiler, "PENSTOCK_PURE": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("penstock: no native core can be built here")
    assert compiler in last
    assert last.endswith("PENSTOCK_PURE=1 pip install .")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("gil", [0, 1])
def test_a_python_whose_gil_is_forced_off_loads_no_native_code(gil: int) -> None:
    program = f"""
import sys

class Flags:
    gil = {gil}

    def __getattr__(self, name, plain=sys.flags):
        return getattr(plain, name)

sys.flags = Flags()
sys.path.insert(0, "src")
import asyncio, importlib.machinery, penstock
penstock.run(asyncio.sleep(0))
loaded = [name for name, module in sys.modules.items() if name.startswith("penstock._core.")
    and isinstance(module.__spec__.loader, importlib.machinery.ExtensionFileLoader)]
print(penstock.loop.NATIVE, bool(loaded))
"""
    if gil:
        assert len(set(run(program).split())) == 1
    else:
        assert run(program).split() == ["False", "False"]
