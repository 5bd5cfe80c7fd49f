"""`make demo`, in short: it ends well, names both faults, and prints the numbers of each loop."""

import re
import subprocess
import sys

import pytest

from penstock.loop import NATIVE
from tests.e2e.conftest import ROOT, environment

LONGEST_S = 300.0
RATIO = re.compile(r"penstock serves [\d.]+ times as many requests per second as stock asyncio here\.")


@pytest.mark.timeout(LONGEST_S + 20)
@pytest.mark.skipif(not NATIVE, reason="the selector loop finds no stalls")
def test_the_tour_names_a_stall_and_a_leak_and_shows_each_loop_under_load() -> None:
    line = [sys.executable, str(ROOT / "examples" / "demo.py"), "--step", "0.4", "--rounds", "1"]
    result = subprocess.run(
        line,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert RATIO.search(result.stdout)
    assert re.search(r"The monitor's page, to look at meanwhile: http://127\.0\.0\.1:\d+/", result.stdout)
    wrong = [text for text in result.stdout.splitlines() if "what is wrong:" in text]
    assert any("time.sleep in service.py:" in text for text in wrong), result.stdout
    assert any("tasks made in service.py:" in text and "pile up" in text for text in wrong), result.stdout
    rows = re.findall(
        r"^ +(0\.5|1|2|4|10)x +[\d,]+/s((?: +[\d,]+/s +[\d,]+ ms +\d+%){2,3})$", result.stdout, re.MULTILINE
    )
    assert [factor for factor, _ in rows] == ["0.5", "1", "2", "4", "10"]


def test_a_tour_whose_server_does_not_start_fails_with_its_output() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'examples')!r})\n"
        "from tour.servers import serving\n"
        "with serving('a server', ['-c', 'import sys; sys.exit(\"no such module\")']): pass"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert "a server does not answer:\nno such module" in result.stderr
    assert "Traceback" not in result.stderr
