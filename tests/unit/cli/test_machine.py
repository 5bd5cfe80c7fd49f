"""The doctor's facts: quotas as the kernel writes them, advice only where something is weak."""

import errno
import resource
from pathlib import Path

import pytest

from penstock.cli import machine


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": ""}, None),
        ({}, None),
    ],
)
def test_a_v2_quota_is_read(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert machine._quota_v2(tmp_path) == quota


@pytest.mark.parametrize(("text", "quota"), [("-1", None), ("50000", 0.5)])
def test_a_v1_quota_is_read(tmp_path: Path, text: str, quota: float | None) -> None:
    (tmp_path / "cpu.cfs_quota_us").write_text(text + "\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    assert machine._quota_v1(tmp_path) == quota


def test_a_low_file_limit_is_a_weak_spot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    fact = machine._files()
    assert fact.text == "1024 (hard limit unlimited)"
    assert "1024 open files bound the connections" in fact.advice


@pytest.mark.parametrize(
    ("code", "word"), [(errno.ENOSYS, "unavailable"), (errno.EPERM, "forbidden"), (errno.EFAULT, "available")]
)
def test_how_the_io_uring_call_fails_tells(monkeypatch: pytest.MonkeyPatch, code: int, word: str) -> None:
    monkeypatch.setattr(machine.ctypes, "get_errno", lambda: code)
    assert machine._io_uring().value == word


def test_every_fact_has_a_name_of_its_own() -> None:
    names = [fact.name for fact in machine.examine()]
    assert len(names) == len(set(names)) >= 9
