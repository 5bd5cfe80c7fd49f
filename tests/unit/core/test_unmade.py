"""No assert is a guard: what was never made whole, and what gets None, raises. This folder is run under -O too."""

import importlib
import os

import pytest

TYPES = [
    ("gate", "GateCore"),
    ("gate", "Entry"),
    ("waiting", "Waiter"),
    ("waitqueue", "GateWaiter"),
    ("waitqueue", "WaitQueue"),
    ("waitqueue", "PriorityClass"),
    ("waitqueue", "KeyQueue"),
    ("turnstile", "SemaphoreWaiter"),
    ("turnstile", "Turnstile"),
    ("estimator", "ServiceEstimator"),
]
# called with as many arguments as they take
ARGUMENTS = [(), (None,), (None, None), (None, None, None), (0, None, 0.0, 0.0)]


def test_the_asserts_of_tests_are_run_whatever_python_is_told():
    with pytest.raises(AssertionError):
        assert not __name__


@pytest.mark.parametrize(("module", "name"), TYPES)
def test_what_was_never_made_whole_raises_and_crashes_nothing(module, name):
    kind = getattr(importlib.import_module(f"penstock._core.sync.{module}"), name)
    outcomes = set()
    for method in dir(kind):
        if method in ("__new__", "__class__", "__subclasshook__", "__init_subclass__", "__del__"):
            continue
        for arguments in ARGUMENTS:
            unmade = kind.__new__(kind)
            try:
                getattr(unmade, method)(*arguments)
                outcomes.add("returned")
            except (Exception, StopIteration) as problem:
                outcomes.add(type(problem).__name__)
    assert outcomes


def test_native_types_refuse_none_where_they_need_an_object():
    from penstock._core.overload.lingering import LingeringConnections
    from penstock._core.overload.urgent import UrgentRequests
    from penstock._core.sheds import ShedCounts
    from penstock._core.tasks.ledger import Ledger, LedgerSnapshot
    from penstock._core.tasks.watchdog import Watchdog, WatchedLoop

    with pytest.raises(TypeError):
        LedgerSnapshot(None, 0)
    with pytest.raises(TypeError):
        WatchedLoop(None, 1)
    with pytest.raises(TypeError):
        Watchdog().remove(None)
    with pytest.raises(TypeError):
        Ledger().overdue(0, None, 1)
    for kind in (ShedCounts, LingeringConnections, UrgentRequests):
        with pytest.raises(TypeError):
            kind(None)
        with pytest.raises(TypeError):
            kind.__new__(kind)
    # what is refused closes no descriptor but its own: 0 is the program's
    os.fstat(0)
