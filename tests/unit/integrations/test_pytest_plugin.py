"""The pytest plugin: tests that leak and stall, in a pytest process of their own."""

import re

import pytest

pytest_plugins = ["pytester"]

# until penstock.tasks.awaits.graph is there, what the dump writes stands for it
CONFTEST = """
import importlib.util, sys, types

if importlib.util.find_spec("penstock.tasks.awaits.graph") is None:
    from penstock.runtime.dump import _stack

    graph = types.ModuleType("penstock.tasks.awaits.graph")
    graph.await_graph = lambda tasks: "".join(f"{task!r}\\n" + "".join(_stack(task)) for task in tasks)
    sys.modules["penstock.tasks.awaits.graph"] = graph
"""

LEAKS = """
import asyncio, gc, threading
import penstock, pytest

pytestmark = pytest.mark.no_leaked_tasks


async def forever():
    await asyncio.get_running_loop().create_future()


async def leave():
    asyncio.create_task(forever(), name="left over")
    await asyncio.sleep(0)


async def lose():
    asyncio.create_task(forever(), name="gone")
    await asyncio.sleep(0)
    gc.collect()


async def tidy():
    task = asyncio.create_task(forever())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def work():
    pass


def test_left_asyncio_run():
    asyncio.run(keep(leave))


def test_left_penstock_run():
    penstock.run(keep(leave))


async def keep(what):
    await what()
    held.extend(asyncio.all_tasks() - {asyncio.current_task()})


held = []


async def in_a_group():
    group = await penstock.pressure.BoundedTaskGroup(2).__aenter__()
    spawn_in = group.spawn
    held.append(await spawn_in(forever, name="in a group"))


def test_left_in_a_group():
    asyncio.run(in_a_group())


def test_left_closed_loop():
    loop = asyncio.new_event_loop()
    held.append(loop.create_task(forever(), name="made before the first run"))
    loop.run_until_complete(work())
    loop.close()


def test_lost_asyncio():
    asyncio.run(lose())


def test_lost_penstock():
    penstock.run(lose())


def test_never_awaited():
    async def main():
        work()

    asyncio.run(main())


def test_own_failure():
    asyncio.run(keep(leave))
    assert 1 == 2


def test_clean_asyncio():
    asyncio.run(tidy())


def test_clean_penstock():
    penstock.run(tidy())


def test_clean_sync():
    pass


def test_clean_after_others():
    # what the tests before have left over is theirs
    asyncio.run(work())
"""


@pytest.fixture
def inner(pytester, monkeypatch):
    """Run pytest on a file, in a process of its own, with no plugin but penstock's."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(CONFTEST)

    def run(source, *arguments):
        pytester.makepyfile(source)
        plugin = "-p", "penstock.integrations.pytest"
        return pytester.runpytest_subprocess(*plugin, "-p", "no:cacheprovider", "--strict-markers", "-rA", *arguments)

    return run


def outcomes(result):
    """Return PASSED, FAILED or ERROR by test."""
    found = re.findall(r"^(PASSED|FAILED|ERROR) \S+?::(\S+)", "\n".join(result.outlines), re.MULTILINE)
    return {name: outcome for outcome, name in found}


def sections(result):
    """Return the part of the output of each test."""
    text, found = "\n".join(result.outlines), {}
    for part in text.split("\n____")[1:]:
        name, _, rest = part.strip("_").partition("_\n")
        found[name.strip(" _").split(" ")[-1]] = rest
    return found


def made_at(source, text, function, said=""):
    """Return a pattern of a task's report with the place of the one line that has the text."""
    lines = source.strip().splitlines()
    [number] = [number for number, line in enumerate(lines, 1) if text in line]
    return re.compile(rf"{said} was made at /\S+\.py:{number} in {function}$", re.MULTILINE)


def test_what_a_test_leaves_loses_or_never_awaits_fails_it(inner):
    result = inner(LEAKS)
    found = outcomes(result)
    failed = {name.removeprefix("test_") for name, outcome in found.items() if outcome == "FAILED"}
    expected = {
        "left_asyncio_run",
        "left_penstock_run",
        "left_in_a_group",
        "left_closed_loop",
        "lost_asyncio",
        "lost_penstock",
    }
    assert failed == {*expected, "never_awaited", "own_failure"}
    assert {name for name, outcome in found.items() if outcome == "ERROR"} == set()
    parts = sections(result)
    for name in ("test_left_asyncio_run", "test_left_penstock_run"):
        assert "1 task was left pending" in parts[name]
        assert "left over" in parts[name]
        assert "forever" in parts[name]
        assert made_at(LEAKS, 'name="left over"', "leave", "^  left over").search(parts[name])
    early = made_at(LEAKS, "made before the first run", "test_left_closed_loop", "^  made before the first run")
    assert early.search(parts["test_left_closed_loop"])
    assert made_at(LEAKS, "await spawn_in(", "in_a_group", "^  in a group").search(parts["test_left_in_a_group"])
    for name in ("test_lost_asyncio", "test_lost_penstock"):
        assert "1 task was lost" in parts[name]
        assert made_at(LEAKS, 'name="gone"', "lose", "name='gone' .*").search(parts[name])
    assert "1 coroutine was never awaited\n  work (" in parts["test_never_awaited"]
    own = parts["test_own_failure"]
    assert "assert 1 == 2" in own
    assert own.index("assert 1 == 2") < own.index("1 task was left pending")


STALLS = """
import asyncio, threading, time
import penstock, pytest


async def stall():
    await asyncio.sleep(0.01)
    time.sleep(0.3)
    await asyncio.sleep(0)


async def many_small():
    # no callback is long, the turn is
    ended = [asyncio.create_task(small()) for _ in range(30)]
    await asyncio.gather(*ended)


async def small():
    time.sleep(0.01)


async def first():
    time.sleep(0.3)


@pytest.mark.no_stalls(over=0.05)
@pytest.mark.parametrize("run", [asyncio.run, penstock.run])
@pytest.mark.parametrize("main", [stall, many_small, first])
def test_stalled(run, main):
    run(main())


def test_stalled_fixture(no_stalls):
    asyncio.run(stall())


@pytest.mark.no_stalls(over=0.05)
def test_stalled_thread():
    thread = threading.Thread(target=asyncio.run, args=(stall(),), name="the other loop")
    thread.start()
    thread.join()


@pytest.mark.no_stalls(over=20)
def test_fine_short_of_the_bound():
    asyncio.run(stall())


@pytest.mark.no_stalls(over=5)
def test_fine_idle():
    async def main():
        await asyncio.sleep(0.2)

    penstock.run(main())


def test_fine_without_asking():
    asyncio.run(stall())


@pytest.fixture
def slow():
    asyncio.run(stall())
    yield
    asyncio.run(stall())


@pytest.mark.no_stalls
def test_fine_beside_slow_fixtures(slow):
    pass


@pytest.mark.no_stalls(over="1")
def test_wrong():
    pass
"""


def test_a_test_that_holds_a_loop_up_fails_and_shows_where(inner):
    result = inner(STALLS)
    found = outcomes(result)
    assert {name for name, outcome in found.items() if outcome == "PASSED"} == {
        "test_fine_short_of_the_bound",
        "test_fine_idle",
        "test_fine_without_asking",
        "test_fine_beside_slow_fixtures",
    }
    assert len([outcome for outcome in found.values() if outcome == "FAILED"]) == 8
    assert [name for name, outcome in found.items() if outcome == "ERROR"] == ["test_wrong"]
    parts = sections(result)
    for name, part in parts.items():
        if name.startswith("test_stalled"):
            assert "a loop was blocked for more than" in part, name
            assert "time.sleep(" in part, name
            assert "in pytest_pyfunc_call" not in part, "frames that lead to the callback"
            assert "in run_forever" not in part
    assert "the other loop" in parts["test_stalled_thread"]
    assert "no_stalls(over='1'): a number of seconds above 0 is needed" in "\n".join(result.outlines)


# as pytest-asyncio does: a runner that a fixture makes, and that outlives the test
RUNNER = """
import asyncio, pytest


async def forever():
    await asyncio.get_running_loop().create_future()


@pytest.fixture
def runner():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def shared():
    with asyncio.Runner() as runner:

        async def start():
            return asyncio.create_task(forever(), name="the fixture's")

        background = runner.run(start())
        yield runner
        background.cancel()


@pytest.fixture
def server(runner):
    tasks = []
    yield tasks
    for task in tasks:
        task.cancel()
    runner.run(asyncio.sleep(0))


async def spawn(into):
    into.append(asyncio.create_task(forever(), name="left over"))


held = []


def test_left(runner, no_leaked_tasks):
    runner.run(spawn(held))


def test_left_shared(shared, no_leaked_tasks):
    shared.run(spawn(held))


def test_fine_ended_by_a_fixture(runner, server, no_leaked_tasks):
    runner.run(spawn(server))


def test_fine_shared(shared, no_leaked_tasks):
    shared.run(asyncio.sleep(0))
"""


def test_a_task_on_a_loop_that_outlives_the_test_counts_once_the_fixtures_are_gone(inner):
    result = inner(RUNNER)
    found = outcomes(result)
    assert {name for name, outcome in found.items() if outcome == "ERROR"} == {"test_left", "test_left_shared"}
    parts = sections(result)
    for name in ("test_left", "test_left_shared"):
        assert made_at(RUNNER, "into.append(", "spawn", "^  left over").search(parts[name])
    assert found["test_fine_ended_by_a_fixture"] == found["test_fine_shared"] == "PASSED"
    parts = sections(result)
    assert "1 task was left pending" in parts["test_left"]
    assert "left over" in parts["test_left"]
    assert "the fixture's" not in parts["test_left_shared"]


ANYIO = """
import asyncio, anyio, pytest

pytestmark = [pytest.mark.anyio, pytest.mark.no_leaked_tasks]
held = []


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def forever():
    await asyncio.get_running_loop().create_future()


@pytest.fixture
async def resource():
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        yield
        group.cancel_scope.cancel()


async def test_fine():
    await anyio.sleep(0)


async def test_fine_with_fixture(resource):
    await anyio.sleep(0)


async def test_left():
    held.append(asyncio.create_task(forever(), name="left over"))


async def test_left_with_fixture(resource):
    held.append(asyncio.create_task(forever(), name="left over"))
"""


def test_anyios_own_tasks_are_not_taken_for_leaks(inner):
    pytest.importorskip("anyio")
    found = outcomes(inner(ANYIO, "-p", "anyio"))
    assert {name for name, outcome in found.items() if outcome == "PASSED"} >= {"test_fine", "test_fine_with_fixture"}
    assert found["test_left"] == "FAILED"
    assert found["test_left_with_fixture"] == "ERROR"


OBSERVED = """
import asyncio, time
import penstock, pytest
from penstock.tasks.observers import registry
from penstock.tasks.finding import Finding


class Findings:
    def __init__(self):
        self.found = [Finding("stall", "of before")]

    def mark(self):
        return len(self.found)

    def since(self, mark):
        return self.found[mark:]


class Observer:
    def __init__(self):
        self.findings = Findings()


@pytest.mark.no_stalls(over=0.5)
@pytest.mark.parametrize("lasted_s", [0.2, 2.0])
def test_observed(lasted_s):
    async def main():
        observer.findings.found.append(Finding("stall", "held up by C code", evidence={"lasted_s": lasted_s}))

    observer = Observer()
    with penstock.Runner() as runner:
        registry.register(runner.get_loop(), observer)
        runner.run(main())
"""


def test_what_a_loops_observer_finds_counts_and_is_shown(inner):
    result = inner(OBSERVED)
    assert outcomes(result) == {"test_observed[0.2]": "PASSED", "test_observed[2.0]": "FAILED"}
    text = "\n".join(result.outlines)
    assert "found by the loop's observer: held up by C code" in text
    assert "of before" not in text


QUIET = """
import asyncio, sys
import pytest


def test_nothing_is_loaded_or_wrapped_for_a_test_that_does_not_ask():
    assert "penstock.integrations.leakwatch" not in sys.modules
    assert "penstock.loop" not in sys.modules
    assert asyncio.BaseEventLoop.run_forever.__module__ == "asyncio.base_events"


def test_asks(no_leaked_tasks, no_stalls):
    assert asyncio.BaseEventLoop.run_forever.__module__ != "asyncio.base_events"


def test_everything_is_as_it_was_after_one_that_did():
    import warnings
    from penstock.loop.runs import RunHooks

    assert asyncio.BaseEventLoop.run_forever.__module__ == "asyncio.base_events"
    assert asyncio.BaseEventLoop.__init__.__module__ == "asyncio.base_events"
    assert asyncio.BaseEventLoop.call_exception_handler.__module__ == "asyncio.base_events"
    assert asyncio.runners._cancel_all_tasks.__module__ == "asyncio.runners"
    assert RunHooks.run_forever.__module__ == "penstock.loop.runs"
    assert "integrations" not in warnings._warn_unawaited_coroutine.__module__


def test_the_markers_are_known(pytestconfig):
    lines = [line.partition(":")[0] for line in pytestconfig.getini("markers")]
    assert {"no_leaked_tasks", "no_stalls(over=0.1)"} <= set(lines)
"""


def test_the_plugin_is_out_of_the_way_of_tests_that_do_not_ask(inner):
    result = inner(QUIET, "--noconftest")
    assert set(outcomes(result).values()) == {"PASSED"}


VIRTUAL = """
import asyncio, pytest
from penstock.testing import Link


def test_an_hour(virtual_loop):
    virtual_loop.run_until_complete(asyncio.sleep(3600))
    assert (virtual_loop.time(), virtual_loop.seed) == (3600, None)
    left = virtual_loop.create_task(asyncio.sleep(1))


@pytest.mark.virtual_loop(seed=7, start_s=5, link=Link(latency_s=1))
def test_options(virtual_loop):
    assert (virtual_loop.time(), virtual_loop.seed, virtual_loop.network.link.latency_s) == (5, 7, 1)
"""


def test_the_virtual_loop_fixture_takes_options_and_cleans_up(inner):
    inner(VIRTUAL, "-W", "error").assert_outcomes(passed=2)
