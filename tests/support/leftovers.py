"""A pytest plugin that collects the leftovers of a test within its own teardown: a failed test harms no other test."""

import gc
import sys
import threading
import traceback
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from weakref import WeakSet

import pytest

# of the test that runs now
failures: list[BaseException] = []
# one entry if the test that runs now has failed
has_failed: list[bool] = []
# left by failed tests
orphans: WeakSet[threading.Thread] = WeakSet()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        failures.append(call.excinfo.value)
    return (yield)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect a test's garbage in its own teardown: a warning of the garbage is this test's error."""
    yield
    if not failures:
        gc.collect()
        # what has survived is the session's: the next collection walks over the next test's objects alone
        gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Release the values of a failed test's fixtures with its garbage: pytest itself does so after the last report."""
    try:
        return (yield)
    finally:
        if failures:
            with silence():
                getattr(item, "funcargs", {}).clear()
                collect_failures()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Collect the garbage of a failed teardown as well, and remember the threads that a failed test leaves."""
    before = set(threading.enumerate())
    has_failed.clear()
    result = yield
    if failures:
        with silence():
            collect_failures()
    if has_failed:
        orphans.update(set(threading.enumerate()) - before)
    return result


def collect_failures() -> None:
    """Clear the locals of every frame that a failure keeps, those of its causes and of a group's members too."""
    has_failed.append(True)
    while failures:
        error = failures.pop()
        traceback.clear_frames(error.__traceback__)
        related = [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
        failures.extend(each for each in related if each is not None)
    sys.last_exc = sys.last_value = sys.last_traceback = None  # type: ignore[attr-defined]
    gc.collect()


@contextmanager
def silence() -> Iterator[None]:
    """Ignore warnings and unraisable exceptions: they would only hide the failure."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook = hook


@pytest.hookimpl(trylast=True)
def pytest_configure() -> None:
    """Print the exception of a thread that a failed test has left: pytest's own hook blames the test that runs."""
    pytests_hook = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        (threading.__excepthook__ if args.thread in orphans else pytests_hook)(args)

    threading.excepthook = hook
