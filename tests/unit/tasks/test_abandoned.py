"""Abandoned tasks and coroutines: a report of asyncio or CPython becomes a finding with its place."""

import asyncio
import gc
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.tasks.detectors.abandoned import finding_in_context, unwatch_unawaited, watch_unawaited
from penstock.tasks.finding import Finding
from penstock.tasks.place import Place

NAME = "_warn_unawaited_coroutine"


def contexts_of(main: Any, debug: bool = False) -> list[Finding]:
    """Return the contexts of an asyncio loop's exception handler during `main()`, as findings."""
    found: list[Finding] = []

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        finding = finding_in_context(context, loop="main")
        if finding is not None:
            found.append(finding)

    async def whole() -> None:
        asyncio.get_running_loop().set_exception_handler(handler)
        await main()
        gc.collect()

    asyncio.run(whole(), debug=debug)
    return found


async def waits_for_ever() -> None:
    await inner()


async def inner() -> None:
    await asyncio.Future()


async def fails() -> None:
    raise LookupError("lost")


async def lose_a_pending_task() -> None:
    task = asyncio.create_task(waits_for_ever(), name="lost one")
    await asyncio.sleep(0)
    del task


async def lose_an_exception() -> None:
    task = asyncio.create_task(fails(), name="failing one")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task


async def lose_a_futures_exception() -> None:
    asyncio.get_running_loop().create_future().set_exception(LookupError("lost"))


async def lose_nothing() -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    with pytest.raises(LookupError):
        await asyncio.create_task(fails())


def test_a_task_that_is_collected_while_pending_is_found_with_its_awaited_future() -> None:
    [finding] = contexts_of(lose_a_pending_task)
    assert (finding.kind, finding.task, finding.loop) == ("destroyed_pending", "lost one", "main")
    assert finding.site == Place(__file__, waits_for_ever.__code__.co_firstlineno, "waits_for_ever")
    assert finding.evidence["waited_for"].startswith("<Future pending")


def test_a_collected_task_with_its_coroutine_shows_its_place() -> None:
    async def main() -> Finding | None:
        task = asyncio.create_task(waits_for_ever())
        await asyncio.sleep(0)
        try:
            return finding_in_context({"message": "Task was destroyed but it is pending!", "task": task})
        finally:
            task.cancel()

    finding = asyncio.run(main())
    assert finding is not None
    outer, innermost = finding.evidence["waited_at"]
    assert "await inner()" in outer
    assert "await asyncio.Future()" in innermost


def test_in_debug_mode_the_place_is_where_the_task_was_made() -> None:
    [finding] = contexts_of(lose_a_pending_task, debug=True)
    assert finding.site is not None
    assert finding.site.function == "lose_a_pending_task"
    assert finding.site.line == lose_a_pending_task.__code__.co_firstlineno + 1
    assert any("lose_a_pending_task" in line for line in finding.evidence["created"])


def test_an_exception_that_was_not_retrieved_is_found_with_its_stack() -> None:
    [finding] = contexts_of(lose_an_exception)
    assert (finding.kind, finding.task) == ("exception_unretrieved", "failing one")
    assert finding.evidence["exception"] == "LookupError('lost')"
    assert 'raise LookupError("lost")' in finding.evidence["stack"][0]


def test_a_bare_futures_exception_is_found_too() -> None:
    [finding] = contexts_of(lose_a_futures_exception)
    assert (finding.kind, finding.task, finding.site) == ("exception_unretrieved", None, None)


def test_tasks_that_are_awaited_give_no_finding() -> None:
    assert contexts_of(lose_nothing) == []


def test_other_contexts_are_none_of_ours() -> None:
    assert finding_in_context({"message": "Exception in callback f()", "exception": ValueError()}) is None
    assert finding_in_context({}) is None


def test_the_callers_knowledge_of_the_site_comes_first() -> None:
    place = Place("app.py", 7, "spawn")
    context = {"message": "Task exception was never retrieved", "future": object(), "exception": ValueError("x")}
    finding = finding_in_context(context, site_of=lambda task: place)
    assert finding is not None
    assert finding.site == place
    assert "app.py:7 in spawn" in finding.message


# coroutines that are never awaited


@pytest.fixture
def unawaited() -> Iterator[list[Finding]]:
    found: list[Finding] = []
    original = getattr(warnings, NAME)
    watch_unawaited(found.append)
    yield found
    unwatch_unawaited(found.append)
    assert getattr(warnings, NAME) is original


def drop_one() -> int:
    fails()  # type: ignore[unused-coroutine]
    return sys._getframe().f_lineno - 1


def test_a_coroutine_that_is_never_awaited_is_found(unawaited: list[Finding]) -> None:
    with pytest.warns(RuntimeWarning):
        line = drop_one()
    [finding] = unawaited
    assert finding.kind == "never_awaited"
    assert finding.message.startswith("coroutine fails was never awaited")
    assert finding.site == Place(__file__, fails.__code__.co_firstlineno, "fails")
    assert finding.evidence["dropped"] == f"{__file__}:{line} in drop_one"


def test_its_place_is_where_it_was_made_if_that_is_tracked(unawaited: list[Finding]) -> None:
    sys.set_coroutine_origin_tracking_depth(3)
    try:
        with pytest.warns(RuntimeWarning):
            line = drop_one()
    finally:
        sys.set_coroutine_origin_tracking_depth(0)
    [finding] = unawaited
    assert finding.site == Place(__file__, line, "drop_one")
    assert len(finding.evidence["created"]) == 3


def test_the_warning_stays_the_very_same(unawaited: list[Finding]) -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        line = drop_one()
        drop_one()
    # once by the filter for this line, as without us: a wrapper's frame would make it the wrapper's line
    assert [(each.category, str(each.message).splitlines()[0], each.filename, each.lineno) for each in shown] == [
        (RuntimeWarning, "coroutine 'fails' was never awaited", __file__, line)
    ]
    assert len(unawaited) == 2


def test_an_awaited_coroutine_gives_no_finding(unawaited: list[Finding]) -> None:
    asyncio.run(lose_nothing())
    fails().close()
    assert unawaited == []


def test_a_listener_that_is_added_twice_is_called_once(unawaited: list[Finding]) -> None:
    watch_unawaited(unawaited.append)
    with pytest.warns(RuntimeWarning):
        drop_one()
    assert len(unawaited) == 1


def test_a_listener_that_raises_is_removed_and_the_warning_comes(
    unawaited: list[Finding], caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Finding] = []

    def bad(finding: Finding) -> None:
        calls.append(finding)
        raise ValueError("no")

    watch_unawaited(bad)
    for _ in range(2):
        with pytest.warns(RuntimeWarning):
            drop_one()
    assert len(calls) == 1
    assert len(unawaited) == 2
    assert "raised and is not called again" in caplog.text


def test_a_later_wrapper_stays_in_place() -> None:
    found: list[Finding] = []
    original = getattr(warnings, NAME)
    watch_unawaited(found.append)
    ours = getattr(warnings, NAME)

    def theirs(coro: Any) -> None:
        ours(coro)

    setattr(warnings, NAME, theirs)
    unwatch_unawaited(found.append)
    assert getattr(warnings, NAME) is theirs
    with pytest.warns(RuntimeWarning):
        drop_one()
    assert found == []
    # theirs goes, ours is found where it was, and leaves with its next listener
    setattr(warnings, NAME, ours)
    watch_unawaited(found.append)
    unwatch_unawaited(found.append)
    assert getattr(warnings, NAME) is original


def test_watching_again_and_again_leaves_no_cycle_behind() -> None:
    def watched_by() -> object:
        watch_unawaited(listener)
        stand_in: object = getattr(warnings, NAME)
        unwatch_unawaited(listener)
        return stand_in

    def listener(finding: Finding) -> None:
        pass

    assert watched_by() is watched_by()
