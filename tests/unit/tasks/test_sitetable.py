"""Creation sites: the frame that is meant, its name, and the bound on how many there are."""

import asyncio
import sys

import pytest

from penstock.tasks.observers import sites as sitetable
from penstock.tasks.observers.factory import TaskFactory
from penstock.tasks.observers.sites import OTHER, SiteTable, place_at, resolve, walk


def line_of(text):
    with open(__file__) as source:
        return next(number for number, line in enumerate(source, 1) if text in line and "line_of" not in line)


def made_here():
    frame = sys._getframe()  # the line that is meant
    return frame.f_code, frame.f_lasti


def test_a_site_is_file_line_and_function():
    code, lasti = made_here()
    site = resolve(code, lasti)
    # the frame has moved on to its return by now
    assert (site.file, site.function) == (__file__, "made_here")
    assert site.line in (line_of("the line that is meant"), line_of("the line that is meant") + 1)
    assert place_at(code, lasti) == site


def test_an_instruction_without_a_line_is_named_by_its_functions_first():
    code = made_here.__code__
    assert resolve(code, 1_000_000).line == code.co_firstlineno
    assert resolve(code, -1).function == "made_here"


def test_the_cache_of_places_is_bounded(monkeypatch):
    monkeypatch.setattr(sitetable, "MOST_SITES", 10)
    for number in range(50):
        scope = {}
        exec(compile(f"def made(): return {number}", f"<{number}>", "exec"), scope)
        assert place_at(scope["made"].__code__, 0).file == f"<{number}>"
    assert len(sitetable._named) <= 10


def test_two_instructions_of_a_function_are_two_sites_and_one_is_one():
    table, frames = SiteTable(), []

    def ask():
        return table.entry(sys._getframe(1))

    for _ in range(2):
        frames.append(ask())
        frames.append(ask())
    assert frames[0] is frames[2] and frames[1] is frames[3] and frames[0] is not frames[1]


def test_sites_beyond_the_table_are_other(monkeypatch):
    monkeypatch.setattr(sitetable, "MOST_SITES", 3)
    table = SiteTable()
    found = []
    for number in range(6):
        scope = {"ask": lambda: table.entry(sys._getframe(1)), "found": found}
        exec(compile("found.append(ask())", f"<{number}>", "exec"), scope)
    for entry in found:
        entry.created += 1
    assert [entry.site.file for entry in found[:3]] == ["<0>", "<1>", "<2>"]
    assert found[3] is found[4] is found[5] and found[3].site == OTHER
    assert [entry.created for entry in table.entries()] == [1, 1, 1, 3]


# --- the line that creates the task

WAYS = {
    "create_task": "await asyncio.create_task(nothing())",
    "the loop's": "await asyncio.get_running_loop().create_task(nothing())",
    "ensure_future": "await asyncio.ensure_future(nothing())",
    "gather": "await asyncio.gather(nothing(), nothing())",
    "a group": "async with asyncio.TaskGroup() as group: group.create_task(nothing())",
    "wait_for": "await asyncio.wait_for(nothing(), 5)",
    "shield": "await asyncio.shield(nothing())",
    "as_completed": "[await one for one in asyncio.as_completed([nothing()])]",
}


async def nothing():
    pass


@pytest.mark.parametrize("way", WAYS)
def test_the_creator_is_the_first_line_that_is_not_asyncios(loop, way):
    scope = {"asyncio": asyncio, "nothing": nothing}
    exec(compile(f"async def main():\n    {WAYS[way]}\n", "<program>", "exec"), scope)
    factory = TaskFactory()
    loop.set_task_factory(factory)
    loop.run_until_complete(scope["main"]())
    found = [site.site for site in factory.sites() if site.site.function != "run_until_complete"]
    files = {(site.file, site.line) for site in found} - {(__file__, site.line) for site in found}
    expected = set() if way == "wait_for" and sys.version_info >= (3, 12) else {("<program>", 2)}
    assert files == expected


def test_a_server_is_not_made_by_the_runner(loop):
    factory = TaskFactory()
    loop.set_task_factory(factory)
    served = asyncio.Event()

    async def handle(reader, writer):
        writer.close()
        served.set()

    async def main():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await served.wait()
        writer.close()
        server.close()

    loop.run_until_complete(main())
    mine = [site for site in factory.sites() if site.site.file == __file__]
    assert sum(site.created for site in mine) == 1
    assert any(site.site.file.endswith("streams.py") for site in factory.sites())


def test_the_main_task_is_made_by_its_runner():
    with asyncio.Runner() as runner:
        factory = TaskFactory()
        runner.get_loop().set_task_factory(factory)
        runner.run(nothing())
        assert [site.site.function for site in factory.sites()] == ["test_the_main_task_is_made_by_its_runner"]


def test_without_a_frame_of_the_programs_it_is_asyncios_own():
    namespace = {"__name__": "asyncio.tasks"}
    exec("def connected():\n    yield\n", namespace)
    # a frame that does not run has no caller
    alone = namespace["connected"]().gi_frame
    assert walk(alone) is alone
