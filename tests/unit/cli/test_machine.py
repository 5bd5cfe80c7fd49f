"""The doctor's facts: quotas as the kernel writes them, advice only where something is weak."""

import errno
import resource

import pytest

from penstock.cli import machine
from penstock.executors.cores import Cores


def test_the_cores_are_those_that_executors_are_sized_to(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = Cores(chosen=2, affinity=4, quota_cores=1.5, override=None)
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    fact = machine._cores()
    assert "4 allowed, quota 1.5" in fact.text
    assert "--workers 1" in fact.advice


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
