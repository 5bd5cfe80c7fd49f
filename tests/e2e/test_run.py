"""`penstock run`: the user's program as `python` runs it, on penstock's loop."""

import re
import signal

import pytest

from penstock.loop import NATIVE
from tests.e2e.conftest import Command

NAME_THE_LOOP = """
import asyncio
async def main():
    print(isinstance(asyncio.get_running_loop(), __import__("penstock").EventLoop))
"""


@pytest.mark.parametrize(
    "way",
    [
        "asyncio.run(main())",
        "with asyncio.Runner() as runner: runner.run(main())",
        "loop = asyncio.new_event_loop(); loop.run_until_complete(main()); loop.close()",
    ],
)
def test_every_way_to_run_gets_penstocks_loop(penstock: Command, way: str) -> None:
    penstock.write("program.py", NAME_THE_LOOP + way)
    result = penstock("run", "program.py", python=("-W", "error"), PENSTOCK_TASKS_STALL_S="none")
    assert (result.stdout, result.stderr, result.returncode) == ("True\n", "", 0)


def test_a_module_runs_as_main_with_its_own_arguments(penstock: Command) -> None:
    penstock.write("pack/__init__.py", "")
    penstock.write("pack/__main__.py", "import sys; print(__name__, __package__, sys.argv[1:], sys.path[0])")
    result = penstock("run", "-m", "pack", "--set", "-m", "x")
    assert result.stdout == f"__main__ pack ['--set', '-m', 'x'] {penstock.folder}\n"


def test_a_script_sees_what_python_would_show_it(penstock: Command) -> None:
    penstock.write("deep/beside.py", "value = 7")
    penstock.write(
        "deep/program.py",
        "import sys, beside\nif __name__ == '__main__':\n    print(sys.argv, sys.path[0], __file__, beside.value)",
    )
    ours = penstock("run", "deep/program.py", "-x", "--config")
    assert ours.stdout == f"['deep/program.py', '-x', '--config'] {penstock.folder}/deep deep/program.py 7\n"


def test_a_folder_with_a_main_runs(penstock: Command) -> None:
    penstock.write("folder/__main__.py", "import sys, beside; print(sys.path[0], beside.value)")
    penstock.write("folder/beside.py", "value = 7")
    assert penstock("run", "folder").stdout == "folder 7\n"


ENDINGS = [("sys.exit(7)", 7), ("sys.exit('no')", 1), ("1 / 0", 1), ("sys.exit()", 0)]


@pytest.mark.parametrize(("ending", "code"), ENDINGS)
def test_the_exit_code_is_the_programs(penstock: Command, ending: str, code: int) -> None:
    penstock.write("program.py", f"import sys\n{ending}")
    assert penstock("run", "program.py").returncode == code


def test_an_error_of_the_program_is_shown_without_our_frames(penstock: Command) -> None:
    penstock.write("program.py", "def fail():\n    raise KeyError('theirs')\nfail()")
    lines = penstock("run", "program.py").stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert 'program.py", line 3' in lines[1]
    assert not any("penstock/cli" in line or "runpy" in line for line in lines)
    assert lines[-1] == "KeyError: 'theirs'"


def test_a_syntax_error_of_the_program_is_shown_without_our_frames(penstock: Command) -> None:
    penstock.write("program.py", "def (:")
    result = penstock("run", "program.py")
    assert result.returncode == 1
    assert "SyntaxError" in result.stderr
    assert "penstock/cli" not in result.stderr and "runpy" not in result.stderr


def test_an_import_the_program_misses_is_the_programs_error(penstock: Command) -> None:
    penstock.write("program.py", "import no_such_thing")
    result = penstock("run", "program.py")
    assert result.returncode == 1
    assert "ModuleNotFoundError: No module named 'no_such_thing'" in result.stderr


def test_a_config_error_raised_by_the_program_is_the_programs(penstock: Command) -> None:
    penstock.write("program.py", "from penstock.errors import ConfigError\nraise ConfigError('theirs')")
    result = penstock("run", "program.py")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_an_interrupt_ends_the_program_as_it_ends_python(penstock: Command) -> None:
    penstock.write("program.py", "import os, signal\nos.kill(os.getpid(), signal.SIGINT)")
    result = penstock("run", "program.py")
    assert result.returncode == -signal.SIGINT
    assert result.stderr.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize(
    "way",
    [
        "asyncio.run(main())",
        "penstock.run(main())",
        "with penstock.Runner() as runner: runner.run(main())",
        "loop = penstock.new_event_loop(); loop.run_until_complete(main()); loop.close()",
    ],
)
def test_the_config_reaches_every_loop_that_is_given_none(penstock: Command, way: str) -> None:
    penstock.write(
        "program.py",
        f"import asyncio, penstock\nasync def main(): print(asyncio.get_running_loop().get_debug())\n{way}",
    )
    assert penstock("run", "--set", "loop.debug=true", "program.py").stdout == "True\n"
    assert penstock("run", "program.py").stdout == "False\n"


def test_a_chosen_drain_lets_a_program_that_calls_penstock_run_finish_its_job(penstock: Command) -> None:
    penstock.write(
        "program.py",
        "import os, signal, time, penstock\n"
        "async def main():\n"
        "    job = penstock.to_thread(finish)\n"
        "    await job\n"
        "def finish():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(0.2)\n"
        "    print('finished', flush=True)\n"
        "penstock.run(main())\n",
    )
    result = penstock("run", "--drain", "20", "program.py", PENSTOCK_TASKS_STALL_S="none")
    assert (result.stdout, result.returncode) == ("finished\n", 128 + signal.SIGTERM)


def test_a_multiprocessing_child_finds_the_program_again(penstock: Command) -> None:
    penstock.write(
        "program.py",
        "import multiprocessing\n"
        "def work(queue): queue.put('from the child')\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    queue = context.Queue()\n"
        "    child = context.Process(target=work, args=(queue,)); child.start()\n"
        "    print(queue.get(timeout=20)); child.join()\n",
    )
    result = penstock("run", "program.py", PENSTOCK_TASKS_STALL_S="none")
    assert (result.stdout, result.stderr) == ("from the child\n", "")


@pytest.mark.skipif(not NATIVE, reason="the pure loop sees no stalls")
def test_findings_are_shown_with_time_level_and_logger(penstock: Command) -> None:
    penstock.write(
        "program.py",
        "import asyncio, time\n"
        "from penstock.tasks import findings\n"
        "async def main():\n"
        "    while all(each.evidence['cause'] == 'descheduled' for each in findings()):\n"
        "        time.sleep(0.15)\n"
        "        await asyncio.sleep(0)\n"
        "asyncio.run(main())\n",
    )
    first = penstock("run", "program.py").stderr.splitlines()[0]
    assert re.match(r"\d{4}-\d\d-\d\d [\d:,]{12} (INFO|WARNING) penstock.tasks.stall: ", first)


def test_bad_arguments_are_one_line(penstock: Command) -> None:
    penstock.write("program.py", "")
    penstock.refuses("run", code=2, says="name a script or -m module")
    penstock.refuses("run", "none.py", code=2, says="no script at 'none.py'")
    penstock.refuses("run", "-m", "no_such_module", code=1, says="No module named no_such_module")
    penstock.refuses("run", ".", code=1, says="can't find '__main__' module")
    penstock.refuses("run", "--nonsense", "program.py", code=2, says="--nonsense")
    penstock.refuses("run", "--set", "nonsense", "program.py", code=2, says="'nonsense' is not KEY=VALUE")
    penstock.refuses("run", "--set", "loop.nonsense=1", "program.py", code=2, says="loop.nonsense")
    penstock.refuses("run", "--set", "loop.spin_us=abc", "program.py", code=2, says="loop.spin_us")
    penstock.refuses("run", "--config", "none.toml", "program.py", code=2, says="none.toml")
    penstock.write("broken.toml", "loop = = 3")
    penstock.refuses("run", "--config", "broken.toml", "program.py", code=2, says="broken.toml")
    penstock.refuses("run", "--set", "tasks.factory=none:make", "program.py", code=2, says="none:make")
    penstock.refuses("run", "program.py", code=2, says="spin_us", PENSTOCK_LOOP_SPIN_US="abc")
    penstock.refuses("runn", code=2, says="runn")
    penstock.refuses(code=2, says="COMMAND")


@pytest.mark.parametrize(("command", "most"), [([], 24), (["run"], 24), (["doctor"], 24), (["serve"], 45)])
def test_help_fits_a_screen(penstock: Command, command: list[str], most: int) -> None:
    lines = penstock(*command, "--help", COLUMNS="200").stdout.splitlines()
    assert 5 < len(lines) <= most
    assert max(map(len, lines)) <= 80


def test_the_whole_help_of_serve_has_uvicorns_options_too(penstock: Command) -> None:
    short, whole = (penstock("serve", option).stdout for option in ("--help", "--help-all"))
    assert "--proxy-headers" not in short
    assert "--proxy-headers" in whole


def test_the_version_is_the_packages(penstock: Command) -> None:
    from penstock import __version__

    assert penstock("--version").stdout == f"penstock {__version__}\n"
