"""The package where the native core cannot exist: it builds and loads nothing, and is pure."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.source import shown, sources

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


def test_a_free_threaded_build_says_that_it_turns_the_gil_on() -> None:
    program = """
import runpy, sys, setuptools
import Cython.Build, setuptools.command.build_ext
sys.argv, sys.abiflags = ["setup.py"], "t"
setuptools.setup = lambda **words: None
Cython.Build.cythonize = lambda found, **words: found
runpy.run_path("setup.py")
"""
    assert run(program) == "penstock: the native core turns the GIL on in this free-threaded Python\n"


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


@pytest.mark.parametrize(
    ("word", "says"), [("yes", "[] None"), ("maybe", "PENSTOCK_PURE = 'maybe': allowed is true or")]
)
def test_the_build_takes_any_word_for_yes_and_refuses_nonsense(word: str, says: str, tmp_path: Path) -> None:
    assert says in set_up(tmp_path, PENSTOCK_PURE=word)


@pytest.mark.parametrize(("age_s", "forced"), [(10, "True"), (-10, "False")])
def test_a_change_of_setup_py_alone_has_cython_make_the_c_files_again(age_s: int, forced: str, tmp_path: Path) -> None:
    core = tmp_path / "src/penstock/_core"
    core.mkdir(parents=True)
    made = [core / name for name in ("new.pyx", "one.pyx", "one.c")]
    changed_s = (ROOT / "setup.py").stat().st_mtime
    for path in made:
        path.touch()
        os.utime(path, (changed_s - age_s,) * 2)
    assert set_up(tmp_path, PENSTOCK_PURE="").split() == ["['penstock._core.new',", "'penstock._core.one']", forced]


def set_up(folder: Path, **variables: str) -> str:
    """Return the output of setup.py in a folder: its extensions and whether it builds them again, or its error."""
    shutil.copy2(ROOT / "setup.py", folder)
    program = """
import runpy, setuptools, Cython.Build
forced = None
def cythonize(found, force, **words):
    global forced
    forced = force
    return found
Cython.Build.cythonize = cythonize
setuptools.setup = lambda ext_modules, **words: print([one.name for one in ext_modules], forced)
runpy.run_path("setup.py")
"""
    environ = {**os.environ, **variables}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_every_import_of_the_core_names_its_module_so_that_a_missing_one_is_known() -> None:
    # `from penstock._core import name` raises no ModuleNotFoundError, by which a build without the core is told
    wrong = [
        shown(path)
        for path in sources(".py", ".pyx")
        if re.search(r"^\s*from penstock\._core import", path.read_text(), re.MULTILINE)
    ]
    assert not wrong


FREE_THREADED = """
import sys

class Flags:
    gil = {gil}

    def __getattr__(self, name, plain=sys.flags):
        return getattr(plain, name)

sys.flags = Flags()
sys.path.insert(0, "src")
"""


def test_a_python_whose_gil_is_forced_on_is_as_any_other() -> None:
    program = "import asyncio, penstock; penstock.run(asyncio.sleep(0)); print(penstock.loop.NATIVE)"
    assert run(FREE_THREADED.format(gil=1) + program) == run(program)


@pytest.mark.parametrize("pure", ["", "1"])
def test_a_python_whose_gil_is_forced_off_is_refused_at_import_in_one_line(pure: str) -> None:
    program = f"""{FREE_THREADED.format(gil=0)}
import os
os.environ["PENSTOCK_PURE"] = {pure!r}
try:
    import penstock
except ImportError as error:
    print(error)
"""
    said = "penstock needs the GIL, and PYTHON_GIL=0 or -X gil=0 turns it off: run without that setting\n"
    assert run(program) == said
