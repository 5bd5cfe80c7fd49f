"""`penstock.tasks` and its neighbours where no loop of penstock's runs: a plain answer, or an error that says why."""

import asyncio
import gc
import subprocess
import sys

import pytest

import penstock
from penstock import executors, pressure, tasks

READERS = [
    (tasks.statistics, lambda found: (found.implementation, found.created) == ("none", 0)),
    (tasks.live, lambda found: list(found) == []),
    (tasks.sites, lambda found: found == []),
    (tasks.findings, lambda found: found == []),
    (tasks.await_graph, lambda found: "main" in str(found)),
    (pressure.statistics, lambda found: found == {}),
    (pressure.gates, lambda found: found == []),
    (pressure.loop_statistics, lambda found: found.state == "off"),
    (pressure.memory_statistics, lambda found: found.buffered_bytes == 0),
    (executors.statistics, lambda found: found == {}),
]


@pytest.mark.parametrize(("read", "is_plain"), READERS, ids=lambda value: getattr(value, "__name__", ""))
def test_readers_answer_on_asyncios_own_loop(read, is_plain):
    async def main():
        return read()

    # the survivors of earlier tests are frozen, gates in circles of references among them
    gc.unfreeze()
    gc.collect()
    assert is_plain(asyncio.run(main()))


@pytest.mark.parametrize("read", [tasks.await_graph, pressure.loop_statistics, executors.statistics])
def test_functions_of_the_running_loop_say_that_none_runs(read):
    with pytest.raises(RuntimeError, match="no running event loop"):
        read()


def test_the_level_of_a_loop_that_is_not_watched_cannot_be_set():
    async def main():
        tasks.set_level("trace")

    with pytest.raises(RuntimeError, match=r"not observed: .* has no penstock\.tasks\.TaskFactory\(\)"):
        asyncio.run(main())

    async def watched():
        asyncio.get_running_loop().set_task_factory(tasks.TaskFactory())
        tasks.set_level("count")
        return tasks.statistics().level

    assert asyncio.run(watched()) == "count"


def test_a_listener_of_a_loop_that_is_not_watched_is_refused():
    async def main():
        tasks.on_finding(print)

    with pytest.raises(RuntimeError, match="not observed"):
        asyncio.run(main())


BEFORE_ANY_RUN = """
import asyncio
import penstock

async def fail():
    raise ValueError("no")

async def main():
    await asyncio.wait([penstock.tasks.spawn(fail())])

try:
    penstock.tasks.set_level("trace")
except RuntimeError as problem:
    print(problem)
print(penstock.tasks.statistics().implementation, penstock.tasks.dump_trace("trace.json"))
seen = lambda finding: print(finding.kind)
penstock.tasks.on_finding(seen)
penstock.run(main())
penstock.run(main())
penstock.tasks.off_finding(seen)
penstock.run(main())
"""


def test_a_listener_set_before_any_run_hears_of_every_loop_made_later(tmp_path):
    command = [sys.executable, "-W", "error", "-c", BEFORE_ANY_RUN]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "no loop of this process is observed yet: call it in a running loop",
        "none 0",
        "failed",
        "failed",
    ]
    assert penstock.run(asyncio.sleep(0)) is None
