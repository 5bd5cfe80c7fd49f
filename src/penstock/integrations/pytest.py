"""The pytest plugin: fixtures and markers that fail a test for leaked tasks and for stalls, and a virtual loop.

pytest loads it at every start, so it imports nothing but pytest. The first test that asks imports the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from penstock.integrations.leakwatch import LeakWatch
    from penstock.testing import VirtualLoop

__all__ = [
    "no_leaked_tasks",
    "no_stalls",
    "pytest_configure",
    "pytest_runtest_call",
    "pytest_runtest_setup",
    "pytest_runtest_teardown",
    "virtual_loop",
]

LEAKS, STALLS, VIRTUAL = "no_leaked_tasks", "no_stalls", "virtual_loop"
STALL_S = 0.1
WATCH: pytest.StashKey[LeakWatch] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line(
        "markers", f"{LEAKS}: fail if the test leaves a task pending, loses one, or never awaits a coroutine (penstock)"
    )
    config.addinivalue_line(
        "markers", f"{STALLS}(over={STALL_S}): fail if the test blocks a loop for longer, in seconds (penstock)"
    )
    config.addinivalue_line("markers", f"{VIRTUAL}(seed=..., ...): the options of the fixture's VirtualLoop (penstock)")


@pytest.fixture
def virtual_loop(request: pytest.FixtureRequest) -> Generator[VirtualLoop, None, None]:
    """Yield a `penstock.testing.VirtualLoop` and close it after the test; the marker of this name has its options."""
    import asyncio

    from penstock.testing import VirtualLoop

    marker = request.node.get_closest_marker(VIRTUAL)
    loop = VirtualLoop(**({} if marker is None else marker.kwargs))
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop()
        yield loop


@pytest.fixture
def no_leaked_tasks() -> None:
    """Fail the test if it leaves a task pending, loses one, or never awaits a coroutine."""


@pytest.fixture
def no_stalls() -> None:
    """Fail the test if it blocks a loop for more than 0.1 s; the marker `no_stalls(over=...)` sets another bound."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Start the watch, if the test asks for one, before the test's fixtures are made."""
    leaks, threshold_s = _is_requested(item, LEAKS), _threshold_s(item)
    if leaks or threshold_s is not None:
        from penstock.integrations.leakwatch import LeakWatch

        item.stash[WATCH] = watch = LeakWatch(leaks=leaks, threshold_s=threshold_s)
        watch.start()
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Watch the test itself, and fail it for the faults that are certain at its end."""
    watch = item.stash.get(WATCH, None)
    if watch is None:
        yield
        return
    watch.begin_test()
    try:
        yield
    except BaseException:
        # the test's own failure stands: the faults are added as a section
        faults = watch.end_test()
        if faults:
            item.add_report_section("call", "penstock", faults)
        raise
    faults = watch.end_test()
    if faults:
        pytest.fail(faults, pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Fail the test for tasks that are still pending after its fixtures' teardown."""
    watch = item.stash.get(WATCH, None)
    if watch is None:
        yield
        return
    try:
        yield
    finally:
        del item.stash[WATCH]
        faults = watch.finish()
    if faults:
        pytest.fail(faults, pytrace=False)


def _is_requested(item: pytest.Item, name: str) -> bool:
    return item.get_closest_marker(name) is not None or name in getattr(item, "fixturenames", ())


def _threshold_s(item: pytest.Item) -> float | None:
    """Return the bound for stalls, in seconds; None if the test does not ask for one."""
    if not _is_requested(item, STALLS):
        return None
    marker = item.get_closest_marker(STALLS)
    given = STALL_S if marker is None else marker.kwargs.get("over", *marker.args or (STALL_S,))
    if not isinstance(given, int | float) or isinstance(given, bool) or given <= 0:
        pytest.fail(f"{STALLS}(over={given!r}): a number of seconds above 0 is needed", pytrace=False)
    return float(given)
