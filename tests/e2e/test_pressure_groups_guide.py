"""The guide to groups and streams: each program in it runs as it stands, and prints what it should."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE_S, ROOT, environment

GUIDE = ROOT / "docs" / "pressure-groups.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
TOLD = {
    "fetch": r"alive: ([1-9]|10)\nsum: 4950\n",
    "walk": r"81 leaves, two tasks at a time\n",
    "square": r"first above 100: 121\n",
    "produce": r"bytes: 49500\n",
}


@pytest.mark.parametrize("name", TOLD)
def test_a_program_of_the_guide_says_what_it_should(name: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    (text,) = (text for text in PROGRAMS if f"async def {name}(" in text)
    program.write_text(text)
    result = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
    )
    assert (result.stderr, result.returncode) == ("", 0)
    assert re.fullmatch(TOLD[name], result.stdout)


def test_each_program_of_the_guide_is_one_of_these() -> None:
    assert len(PROGRAMS) == len(TOLD)
