"""The executors' guide and example: each program in them runs as it stands, and says what the guide says it does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE_S, ROOT, environment

GUIDE = ROOT / "docs" / "executors.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)

# what a program that has this in it prints
TOLD = {
    "queue_jobs=4": "5 refused: lane 'small' is full (4 jobs queued, limit 4)",
    "def slow": "slow has not ended within 0.2 s",
    "os.abort": "was killed by SIGABRT 6",
}


def output_of(program: Path) -> str:
    """What the program prints; it says nothing on stderr, warnings included."""
    result = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=program.parent,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
    )
    assert (result.stderr, result.returncode) == ("", 0)
    return result.stdout


@pytest.mark.parametrize("text", PROGRAMS, ids=[str(number) for number in range(len(PROGRAMS))])
def test_a_program_of_the_guide_runs(text: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(text)
    said = output_of(program)
    for part, words in TOLD.items():
        assert part not in text or words in said


def test_the_guide_has_the_programs_that_tell_something() -> None:
    assert all(any(part in text for text in PROGRAMS) for part in TOLD)


def test_the_example_shows_a_loop_that_stays_on_time() -> None:
    said = output_of(ROOT / "examples" / "offload.py")
    late_ms = [float(found) for found in re.findall(r"up to ([\d.]+) ms late", said)]
    assert len(late_ms) == 2
    assert "66 jobs done" in said
