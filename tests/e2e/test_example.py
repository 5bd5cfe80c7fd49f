"""The example of the executors' guide has the output that the guide shows."""

import re
import subprocess
import sys

from tests.e2e.conftest import PATIENCE_S, ROOT, environment


def test_the_example_shows_a_loop_that_stays_on_time() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / "offload.py"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
    )
    assert (result.stderr, result.returncode) == ("", 0)
    late_ms = [float(found) for found in re.findall(r"up to ([\d.]+) ms late", result.stdout)]
    assert len(late_ms) == 2
    assert "66 jobs done" in result.stdout
