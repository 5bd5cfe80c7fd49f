"""A pytest plugin that tells in the terminal summary how often tests measured again."""

import os
from collections import Counter

import pytest

_retries: Counter[tuple[str, str]] = Counter()


def note_retry(why: str) -> None:
    """Count a retry that the running test makes itself; `why` is a phrase without numbers."""
    test, _, _ = os.environ.get("PYTEST_CURRENT_TEST", "outside a test").rpartition(" (")
    _retries[test, why] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for (test, why), count in sorted(_retries.items()):
        terminalreporter.write_line(f"RETRIED [{count}] {test}: {why}")
