"""The verdict of a conformance run: penstock's outcomes against stock asyncio's and the expected failures.

Only what stock passes counts, and stock runs only what penstock does not pass. A test that stock passes and penstock
skips is a failure: nothing may hide in a skip.
"""

import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from process import Outcome

EXPECTED = Path(__file__).with_name("expected.toml")
MAX_EXPECTED_SHARE = 0.03


@dataclass(slots=True)
class Verdict:
    """Test names by what became of them; `failed` is all that makes the run an error."""

    passed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    not_counted: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class ListError(Exception):
    """expected.toml breaks one of its own rules."""


def load_expected(
    config: str, path: Path = EXPECTED, version: tuple[int, int] = sys.version_info[:2]
) -> tuple[dict[str, str], set[str]]:
    """Test name to reason, for this Python version and the config of that name; and the names that are not even run."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("expected", [])
    for entry in entries:
        if not entry.get("reason", "").strip():
            raise ListError(f"{path.name}: {entry.get('test')!r} has no reason: say why penstock may fail it")
    here = {"python": ".".join(map(str, version)), "config": config}
    entries = [entry for entry in entries if _applies(entry, here)]
    expected = {entry["test"]: entry["reason"] for entry in entries if not entry.get("hangs", False)}
    return expected, {entry["test"] for entry in entries} - expected.keys()


def _applies(entry: Mapping[str, str | list[str]], here: Mapping[str, str]) -> bool:
    """Whether each limit that the entry has, one value or a list, names what is here."""
    limits = {key: entry.get(key, value) for key, value in here.items()}
    return all(here[key] in ([limit] if isinstance(limit, str) else limit) for key, limit in limits.items())


def judge(stock: Mapping[str, Outcome], ours: Mapping[str, Outcome], expected: Mapping[str, str]) -> Verdict:
    verdict = Verdict()
    for name in sorted(stock.keys() | ours.keys()):
        _judge_one(verdict, name, stock.get(name), ours.get(name), name in expected)
    return verdict


def _judge_one(verdict: Verdict, name: str, stock: Outcome | None, ours: Outcome | None, listed: bool) -> None:
    stock_outcome = stock.outcome if stock else "absent"
    our_outcome = ours.outcome if ours else "absent"
    if our_outcome == "passed" and not listed:
        verdict.passed.append(name)
    elif our_outcome == "passed":
        verdict.failed[name] = "passes, but expected.toml lists it: take it off the list"
    elif stock_outcome in ("failed", "crashed", "hung"):
        verdict.not_counted.append(name)
    elif stock_outcome == our_outcome == "skipped":
        verdict.skipped.append(name)
    elif listed:
        verdict.expected.append(name)
    else:
        verdict.failed[name] = _explain(stock_outcome, our_outcome, ours)


def _explain(stock_outcome: str, our_outcome: str, ours: Outcome | None) -> str:
    detail = ours.detail.rstrip() if ours else "stock asyncio ran it, penstock's run never came to it"
    return f"{our_outcome} (stock asyncio: {stock_outcome})\n{detail}"


def check_list(verdict: Verdict, expected: Iterable[str], ran: Iterable[str]) -> list[str]:
    """Complaints about the list itself: too long for the run, or naming a test of a module that has no such test."""
    names = set(ran)
    modules = {name.partition(".")[0] for name in names}
    complaints = [
        f"expected.toml lists {name!r}, which this Python does not have"
        for name in expected
        if name.partition(".")[0] in modules and name not in names
    ]
    counted = len(verdict.passed) + len(verdict.expected) + len(verdict.failed)
    if len(verdict.expected) > MAX_EXPECTED_SHARE * counted:
        share = len(verdict.expected) / counted
        complaints.append(
            f"expected.toml covers {share:.1%} of {counted} tests: at most {MAX_EXPECTED_SHARE:.0%} may be"
        )
    return complaints
