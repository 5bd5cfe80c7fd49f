"""`penstock run`: which loops the program runs on, and which config they have."""

import re
import signal
from importlib.util import find_spec

import pytest

from tests.e2e.conftest import ROOT, Command

LOOP_OF_ITS_OWN = """
import asyncio
async def main():
    pass
with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
    runner.run(main())
{more}
"""


def test_a_program_that_ran_only_loops_it_chose_itself_is_told_so(penstock: Command) -> None:
    penstock.write("program.py", LOOP_OF_ITS_OWN.format(more="raise SystemExit(5)"))
    result = penstock("run", "program.py")
    assert result.returncode == 5
    [line] = result.stderr.splitlines()
    assert line.startswith("penstock run: the program ran on asyncio.unix_events._UnixSelectorEventLoop")
    assert "asyncio.run()" in line


@pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed")
def test_a_loop_that_is_not_even_asyncios_is_told_of(penstock: Command) -> None:
    penstock.write("program.py", "import asyncio, uvloop\nuvloop.run(asyncio.sleep(0))")
    assert "the program ran on uvloop.Loop" in penstock("run", "program.py").stderr


def test_uvicorn_with_a_loop_of_its_own_is_pointed_to_serve(penstock: Command) -> None:
    penstock.write("program.py", "import uvicorn\n" + LOOP_OF_ITS_OWN.format(more=""))
    assert "for uvicorn, use 'penstock serve'" in penstock("run", "program.py").stderr


def test_a_server_is_told_so_while_it_runs_since_its_signal_may_end_it(penstock: Command) -> None:
    penstock.write("app.py", "async def app(scope, receive, send):\n    pass")
    server = penstock.start("run", "-m", "uvicorn", "app:app", "--port", "0", "--loop", "asyncio", "--lifespan", "off")
    assert server.stdout is not None
    line = next(line for line in server.stdout if line.startswith("penstock run:"))
    assert "for uvicorn, use 'penstock serve'" in line
    server.terminate()
    assert server.wait() == -signal.SIGTERM


@pytest.mark.parametrize("program", ["print('no loop')", LOOP_OF_ITS_OWN.format(more="asyncio.run(main())")])
def test_a_program_without_loops_or_with_one_of_penstocks_is_told_nothing(penstock: Command, program: str) -> None:
    penstock.write("program.py", program)
    result = penstock("run", "program.py")
    assert (result.stderr, result.returncode) == ("", 0)


def test_options_and_the_nearest_file_reach_the_documents_first_example(penstock: Command) -> None:
    document = (ROOT / "docs" / "loop.md").read_text()
    example = re.search(r"```python\n(import asyncio\nimport penstock\n.*?)```", document, re.DOTALL)
    assert example is not None
    shows = example[1].replace("await server.serve_forever()", "print(asyncio.get_running_loop().get_debug())")
    penstock.write("first.py", shows.replace("8888", "0"))
    assert penstock("run", "--set", "loop.debug=true", "first.py").stdout == "True\n"
    penstock.write("penstock.toml", "[loop]\ndebug = true\n")
    assert penstock("run", "first.py").stdout == "True\n"
    assert penstock("run", "--set", "loop.debug=false", "first.py").stdout == "False\n"
