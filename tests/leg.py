"""Run a leg of the tests, and the few that failed once more when it has ended: `python tests/leg.py ARGUMENTS...`.

The arguments are pytest's. The leg passes if all tests passed, or if at most three failed and all of these passed in a
second process that ran them alone; the last line then names them. A leg whose process crashed has failed.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

MOST_FAILED = 3


def main(arguments: list[str]) -> int:
    """Run the leg; return its exit code."""
    with TemporaryDirectory(prefix="penstock-leg-") as cache:
        code = run(cache, arguments)
        failed = failed_tests(cache)
        if code != pytest.ExitCode.TESTS_FAILED or not failed:
            return code
        if len(failed) > MOST_FAILED:
            print(f"{len(failed)} tests failed, none is run again: at most {MOST_FAILED} are", flush=True)
            return code
        print(f"{tests(len(failed))} failed; run again alone: {', '.join(failed)}", flush=True)
        code = run(cache, [*arguments, "--last-failed"])
        return told(failed, failed_tests(cache), code)


def run(cache: str, arguments: list[str]) -> int:
    """Run pytest with this interpreter's optimisation level; return its exit code, 1 or more of a crash."""
    flags = ["-O"] * sys.flags.optimize
    command = [sys.executable, *flags, "-m", "pytest", "-o", f"cache_dir={cache}", *arguments]
    code = subprocess.run(command, check=False).returncode
    if code < 0:
        print(f"pytest was ended by signal {-code}", flush=True)
    return code if code >= 0 else 128 - code


def failed_tests(cache: str) -> list[str]:
    """Return the tests that failed at their last run; none if pytest has not ended its session."""
    path = Path(cache, "v/cache/lastfailed")
    return list(json.loads(path.read_text())) if path.exists() else []


def told(failed: list[str], again: list[str], code: int) -> int:
    """Print the second run's result in the last line; return the leg's exit code."""
    if code == pytest.ExitCode.OK and not again:
        print(f"{tests(len(failed))} passed only when they were run again: {', '.join(failed)}", flush=True)
        return code
    print(f"failed when run again, too: {', '.join(again)}", flush=True)
    return code or pytest.ExitCode.TESTS_FAILED


def tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
