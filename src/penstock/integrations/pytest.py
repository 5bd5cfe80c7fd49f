"""The pytest plugin: tests that leave no task behind and never hold a loop up, by fixture or by marker; a virtual loop.

pytest loads it at every start, so it imports nothing but pytest; what watches is imported by the first test that asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from penstock.integrations.leakwatch import Watch
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
OVER_S = 0.1
WATCH: pytest.StashKey[Watch] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    config.addinivalue_line(
        "markers", f"{LEAKS}: fail if the test leaves a task pending, loses one, or never awaits a coroutine (penstock)"
    )
    config.addinivalue_line(
        "markers", f"{STALLS}(over={OVER_S}): fail if the test holds a loop up for longer, in seconds (penstock)"
    )
    config.addinivalue_line("markers", f"{VIRTUAL}(seed=..., ...): the options of the fixture's VirtualLoop (penstock)")


@pytest.fixture
def virtual_loop(request: pytest.FixtureRequest) -> Generator[VirtualLoop, None, None]:
    """A `penstock.testing.VirtualLoop`, closed after the test; the marker of the same name gives its options."""
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
    """Fail the test if it holds a loop up for more than 0.1 s; the marker `no_stalls(over=...)` says another bound."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Begin to watch, if the test asks for it, before its fixtures are made."""
    leaks, over_s = _is_wanted(item, LEAKS), _over_s(item)
    if leaks or over_s is not None:
        from penstock.integrations.leakwatch import Watch

        item.stash[WATCH] = watch = Watch(leaks=leaks, over_s=over_s)
        watch.start()
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Watch the test itself, and fail it for what is certain at its end."""
    watch = item.stash.get(WATCH, None)
    if watch is None:
        yield
        return
    watch.begin()
    try:
        yield
    except BaseException:
        # it has its own failure: what was seen goes beside it
        seen = watch.end()
        if seen:
            item.add_report_section("call", "penstock", seen)
        raise
    seen = watch.end()
    if seen:
        pytest.fail(seen, pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Once the fixtures are gone, fail the test for tasks that nobody has ended."""
    watch = item.stash.get(WATCH, None)
    if watch is None:
        yield
        return
    try:
        yield
    finally:
        del item.stash[WATCH]
        seen = watch.finish()
    if seen:
        pytest.fail(seen, pytrace=False)


def _is_wanted(item: pytest.Item, name: str) -> bool:
    return item.get_closest_marker(name) is not None or name in getattr(item, "fixturenames", ())


def _over_s(item: pytest.Item) -> float | None:
    """The bound for stalls, in seconds; None where the test does not ask."""
    if not _is_wanted(item, STALLS):
        return None
    marker = item.get_closest_marker(STALLS)
    given = OVER_S if marker is None else marker.kwargs.get("over", *marker.args or (OVER_S,))
    if not isinstance(given, int | float) or isinstance(given, bool) or given <= 0:
        pytest.fail(f"{STALLS}(over={given!r}): a number of seconds above 0 is needed", pytrace=False)
    return float(given)
