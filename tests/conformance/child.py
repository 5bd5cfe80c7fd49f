"""Runs one module of `test.test_asyncio` in this process and streams a JSON line per test to a report file.

Started by run.py with one argument, a JSON job: {"module", "loop", "report", "skip", "only", "test_timeout_s"}. A test
that outlives its time ends the process with every thread's stack on stderr; the parent names it and goes on after it.
"""

import faulthandler
import json
import sys
import time
import unittest
from typing import Any, TextIO

PREFIX = "test.test_asyncio."


class StreamingResult(unittest.TestResult):
    """Writes {"start"} as a test begins and its outcome as it ends: what a crash leaves behind still names the test."""

    def __init__(self, report: TextIO, test_timeout_s: float, loop: Any) -> None:
        super().__init__()
        self.report = report
        self.test_timeout_s = test_timeout_s
        self.loop = loop
        self.outcome: tuple[str, str] = ("passed", "")
        self.started_s = 0.0
        self.made_before = 0

    def write(self, record: dict[str, Any]) -> None:
        self.report.write(json.dumps(record) + "\n")
        self.report.flush()

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        faulthandler.dump_traceback_later(self.test_timeout_s, exit=True)
        self.outcome = ("passed", "")
        self.started_s = time.monotonic()
        self.made_before = self.loops_made()
        self.write({"start": short_id(test)})

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        self.write_end(short_id(test))

    def write_end(self, name: str) -> None:
        outcome, detail = self.outcome
        took_s = round(time.monotonic() - self.started_s, 3)
        on_loop = self.loops_made() > self.made_before
        self.write({"end": name, "outcome": outcome, "detail": detail, "took_s": took_s, "on_loop": on_loop})

    def loops_made(self) -> int:
        return int(getattr(self.loop, "made", 0))

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self.fail(test, self.errors[-1][1])

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self.fail(test, self.failures[-1][1])

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.outcome = ("failed", self._exc_info_to_string(err, subtest))

    def addSkip(self, test: Any, reason: str) -> None:
        super().addSkip(test, reason)
        if isinstance(test, unittest.TestCase):
            self.outcome = ("skipped", reason)
        else:
            self.write_whole(short_id(test), "skipped", reason)

    def addUnexpectedSuccess(self, test: Any) -> None:
        super().addUnexpectedSuccess(test)
        self.outcome = ("failed", "unexpected success")

    def fail(self, test: Any, detail: str) -> None:
        if isinstance(test, unittest.TestCase):
            self.outcome = ("failed", detail)
        else:  # setUpClass and setUpModule have no start and no end
            self.write_whole(short_id(test), "failed", detail)

    def write_whole(self, name: str, outcome: str, detail: str) -> None:
        """The outcome of a class or a module that never came to its tests."""
        self.write({"end": name, "outcome": outcome, "detail": detail, "took_s": 0, "on_loop": False})


def short_id(test: Any) -> str:
    """`test_events.EPollEventLoopTests.test_close`: the unittest id without the package."""
    return str(test.id()).replace(PREFIX, "")


def chosen(suite: unittest.TestSuite, job: dict[str, Any]) -> unittest.TestSuite:
    """The suite without the tests that the job skips, or only with those that it names."""
    skip, only = set(job["skip"]), set(job["only"])
    kept = unittest.TestSuite()
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            kept.addTest(chosen(test, job))
        elif short_id(test) not in skip and (not only or short_id(test) in only):
            kept.addTest(test)
    return kept


def penstock_loops() -> Any:
    """Put penstock's loops in place of asyncio's; returns their class."""
    import replace

    replace.replace_loops()
    return replace.ConformanceLoop


def main(job: dict[str, Any]) -> None:
    faulthandler.enable()
    loop = None if job["loop"] == "asyncio" else penstock_loops()
    with open(job["report"], "a", encoding="utf-8") as report:
        result = StreamingResult(report, job["test_timeout_s"], loop)
        run_module(job, result)
        result.write({"done": True})


def run_module(job: dict[str, Any], result: StreamingResult) -> None:
    try:
        suite = unittest.defaultTestLoader.loadTestsFromName(PREFIX + job["module"])
    except unittest.SkipTest as skip:  # a module for another platform
        result.write_whole(f"{job['module']} (all of it)", "skipped", str(skip))
    else:
        chosen(suite, job).run(result)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
