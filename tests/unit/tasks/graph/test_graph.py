"""The await graph: tasks by stack, the waits between tasks, and cycles."""

import asyncio

from penstock.tasks.awaits.graph import await_cycles, await_graph
from tests.unit.tasks.graph.conftest import settle


async def sleeper():
    await asyncio.sleep(600)


async def await_first(box):
    await box[0]


def ring(start, count):
    boxes = [[] for _ in range(count)]
    tasks = [start(await_first(box), f"ring-{at}") for at, box in enumerate(boxes)]
    for at, box in enumerate(boxes):
        box.append(tasks[(at + 1) % count])
    return tasks


def pairs(graph):
    return {(edge.waiter, edge.awaited) for edge in graph.edges}


def test_tasks_of_one_stack_are_one_group_the_largest_first(loop, start):
    tasks = [start(sleeper(), f"s-{at}") for at in range(7)] + [start(asyncio.Event().wait())]
    settle(loop)
    graph = await_graph(tasks)
    assert [group.count for group in graph.groups] == [7, 1]
    assert graph.groups[0].names == ("s-0", "s-1", "s-2", "s-3", "s-4")
    assert [frame.function for frame in graph.groups[0].frames] == ["sleeper", "sleep"]
    assert [group.awaited.kind for group in graph.groups] == ["sleep", "event"]
    assert "7 x sleep: s-0, s-1, s-2, s-3, s-4, ..." in str(graph)


def test_an_await_a_gather_a_wait_a_shield_and_a_group_are_edges(loop, start):
    leaf = start(sleeper(), "leaf")
    inner = start(sleeper(), "inner")

    async def gather():
        await asyncio.gather(leaf, asyncio.gather(inner, asyncio.sleep(0)))

    async def group():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sleeper(), name="member")

    async def shield():
        await asyncio.shield(leaf)

    tasks = [leaf, inner, start(await_first([leaf]), "awaits"), start(gather(), "gathers")]
    tasks += [start(asyncio.wait([leaf, inner]), "waits"), start(shield(), "shields"), start(group(), "groups")]
    settle(loop)
    tasks += [task for task in asyncio.all_tasks(loop) if task.get_name() == "member"]
    assert pairs(await_graph(tasks)) == {
        ("awaits", "leaf"),
        ("gathers", "leaf"),
        ("gathers", "inner"),
        ("waits", "leaf"),
        ("waits", "inner"),
        ("shields", "leaf"),
        ("groups", "member"),
    }


def test_two_tasks_that_await_each_other_are_a_cycle_and_no_others(loop, start):
    first, second = ring(start, 2)
    outside = start(await_first([first]), "outside")
    settle(loop)
    graph = await_graph([outside, first, second])
    assert [sorted(cycle) for cycle in graph.cycles] == [["ring-0", "ring-1"]]
    assert [set(cycle) for cycle in await_cycles([outside, second, first])] == [{first, second}]
    assert "cycle: ring-0 -> ring-1 -> ring-0" in str(graph)
    assert await_cycles([outside]) == []


def test_a_cycle_is_in_order_whatever_its_length(loop, start):
    tasks = ring(start, 50)
    settle(loop)
    [cycle] = await_cycles(tasks[20:] + tasks[:20])
    at = cycle.index(tasks[0])
    assert [*cycle[at:], *cycle[:at]] == tasks


def test_tasks_of_one_name_have_their_address_too(loop, start):
    first, second = start(sleeper(), "same"), start(await_first([]), "x")
    second = start(await_first([first]), "same")
    settle(loop)
    assert pairs(await_graph([first, second])) == {(f"same {id(second):#x}", f"same {id(first):#x}")}


def test_the_report_is_bounded(loop, start):
    def nested(depth):
        scope = {}
        for at in range(depth):
            exec(f"async def f{at}():\n    await {f'f{at - 1}()' if at else 'event.wait()'}", scope)
        scope["event"] = asyncio.Event()
        return scope[f"f{depth - 1}"]()

    tasks = [start(nested(depth), "n" * 300) for depth in range(1, 60)] + ring(start, 40)
    settle(loop)
    report = str(await_graph(tasks))
    assert len(report) < 60_000
    assert "... 40 more stacks" in report
    assert "... 20 more pairs" in report
    assert "more frames" in report


def test_tasks_beyond_the_budget_are_counted_as_skipped(loop, start):
    tasks = [start(sleeper()) for _ in range(5)]
    settle(loop)
    graph = await_graph(tasks, budget_s=-1)
    assert (graph.task_count, graph.skipped_count, graph.groups) == (5, 5, ())
    assert "5 of them not inspected" in str(graph)
