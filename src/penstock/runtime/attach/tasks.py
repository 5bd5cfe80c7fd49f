"""The tasks of this process for its monitors: lists, groups, trees, one task in detail, stacks of threads."""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections import Counter
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from penstock.runtime.attach.messages import BadMessage, whole, word
from penstock.runtime.attach.plain import plain_place, plain_task, short_name
from penstock.runtime.attach.snapshot import stack_of_thread
from penstock.tasks.awaits.chain import await_chain, awaited_object
from penstock.tasks.awaits.graph import await_graph, awaited_tasks
from penstock.tasks.observers.registry import observed_loops

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from penstock.runtime.attach.pace import Pace
    from penstock.tasks.awaits.graph import AwaitGraph
    from penstock.tasks.observers.registry import Observer
    from penstock.tasks.records import LiveTask

__all__ = ["await_graphs", "grouped_by_site", "listed", "one_task", "stacks", "task_numbered", "tree"]

# the budget of the walk over all await chains
GRAPH_S = 0.25
MOST_ROWS = 10_000
MOST_IN_TREE = 20_000
MOST_DEPTH = 50
SORT_KEYS = {
    "age": "age_s",
    "running": "running_s",
    "ready": "ready_s",
    "waiting": "waiting_s",
    "steps": "steps",
    "number": "number",
    "name": "name",
}


def listed(pace: Pace, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tasks that match, sorted, at most `limit`."""
    key = SORT_KEYS[word(message, "sort", "age", tuple(SORT_KEYS))]
    limit = whole(message, "limit", 100, 0, MOST_ROWS)
    total, matched = 0, []
    text = str(message.get("filter") or "").lower()
    for row in _rows(pace, message.get("loop")):
        total += 1
        if not text or text in _searched(row):
            matched.append(row)
    choose = heapq.nlargest if message.get("descending", True) else heapq.nsmallest
    return {"tasks": choose(limit, matched, key=itemgetter(key)), "total": total, "matched": len(matched)}


def _rows(pace: Pace, only: object = None) -> Iterator[dict[str, Any]]:
    for _, observer in observed_loops():
        name = observer.name or ""
        if only is None or only == name:
            for task in pace.over(observer.live()):
                yield plain_task(task, name)


def _searched(row: Mapping[str, Any]) -> str:
    return f"{row['name']} {row['site']['text']} {row['state']}".lower()


def grouped_by_site(pace: Pace, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the number of tasks of each site by their state, largest first."""
    groups: dict[str, dict[str, Any]] = {}
    text = str(message.get("filter") or "").lower()
    for row in _rows(pace, message.get("loop")):
        if text and text not in _searched(row):
            continue
        place = row["site"]
        group = groups.setdefault(
            place["text"],
            {"site": place, "count": 0, "ready": 0, "running": 0, "waiting": 0, "oldest_s": 0.0, "running_s": 0.0},
        )
        group["count"] += 1
        group[row["state"]] += 1
        group["oldest_s"] = max(group["oldest_s"], row["age_s"])
        group["running_s"] += row["running_s"]
    return {"groups": sorted(groups.values(), key=lambda group: -group["count"])}


# --- await chains


def await_graphs(only: object = None) -> dict[str, Any]:
    """Return the groups of tasks with the same stack, the waits between tasks, and the cycles."""
    graphs = [
        await_graph(asyncio.all_tasks(loop), GRAPH_S)
        for loop, observer in observed_loops()
        if only is None or only == observer.name
    ]
    return {
        "task_count": sum(graph.task_count for graph in graphs),
        "groups": [group for graph in graphs for group in _groups(graph)],
        "edges": [
            [short_name(edge.waiter), short_name(edge.awaited)] for graph in graphs for edge in graph.edges[:5000]
        ],
        "cycles": [[short_name(name) for name in cycle] for graph in graphs for cycle in graph.cycles],
        "skipped": sum(graph.skipped_count for graph in graphs),
    }


def _groups(graph: AwaitGraph) -> Iterator[dict[str, Any]]:
    for group in graph.groups[:500]:
        yield {
            "count": group.count,
            "names": [short_name(name) for name in group.names],
            "frames": [plain_place(place) for place in group.frames],
            "awaits": group.awaited.text,
            "awaits_kind": group.awaited.kind,
        }


def tree(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tasks as trees: below each task the tasks that it awaits."""
    graphs = await_graphs(message.get("loop"))
    below: dict[str, list[str]] = {}
    for waiter, awaited in graphs["edges"]:
        below.setdefault(waiter, []).append(awaited)
    awaited_by = Counter(awaited for _, awaited in graphs["edges"])
    facts = _facts(message.get("loop"))
    roots = [_branch(name, below, facts, ()) for name in facts if not awaited_by[name]]
    return {"roots": roots, "cycles": graphs["cycles"], "skipped": graphs["skipped"]}


def _facts(only: object) -> dict[str, dict[str, Any]]:
    """Return number, site and awaited object of each task by its name in the await graph."""
    found: dict[str, dict[str, Any]] = {}
    for loop, observer in observed_loops():
        tasks = [] if only is not None and only != observer.name else list(asyncio.all_tasks(loop))[:MOST_IN_TREE]
        counts = Counter(task.get_name() for task in tasks)
        for task in tasks:
            name = task.get_name()
            label = name if counts[name] == 1 else f"{name} {id(task):#x}"
            found[short_name(label)] = {
                "number": observer.number_of(task),
                "site": plain_place(observer.site_of_task(task)),
                "awaits": awaited_object(task).text,
            }
    return found


def _branch(
    name: str, below: Mapping[str, list[str]], facts: Mapping[str, dict[str, Any]], path: tuple[str, ...]
) -> dict[str, Any]:
    # a task that is above itself closes a cycle, and a chain of more than 50 is cut
    inner = [] if name in path or len(path) >= MOST_DEPTH else below.get(name, [])
    children = [_branch(each, below, facts, (*path, name)) for each in inner]
    return {"name": name, **facts.get(name, {}), "children": children}


def task_numbered(number: object) -> tuple[asyncio.AbstractEventLoop, Observer, LiveTask, Any]:
    """Return (loop, observer, record, task) of the live task with this number. Raises BadMessage without one."""
    if isinstance(number, int) and 0 < number < 2**63:
        for loop, observer in observed_loops():
            found = observer.numbered(number)
            if found is not None:
                return loop, observer, *found
    raise BadMessage(f"no live task has the number {str(number)[:40]}")


def one_task(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a live task with its await chain, its creation stack, and the tasks before and after it."""
    loop, observer, record, task = task_numbered(message.get("number"))
    chain = await_chain(task)
    waiters, awaited = _neighbours(loop, task)
    return {
        "task": plain_task(record, observer.name or ""),
        "chain": [plain_place(place) for place in chain.frames],
        "awaits": {"kind": chain.awaited.kind, "text": chain.awaited.text},
        "creation_stack": [plain_place(place) for place in observer.creation_stack(task)],
        "waiters": [{"number": observer.number_of(each), "name": short_name(each.get_name())} for each in waiters],
        "awaited_tasks": [
            {"number": observer.number_of(each), "name": short_name(each.get_name())} for each in awaited
        ],
    }


def _neighbours(loop: asyncio.AbstractEventLoop, task: Any) -> tuple[list[Any], list[Any]]:
    """Return the tasks that wait for a task, and those that it waits for."""
    awaits = awaited_tasks([task, *(each for each in asyncio.all_tasks(loop) if each is not task)][:MOST_IN_TREE])
    return [waiter for waiter, others in awaits.items() if task in others], awaits.get(task, [])


# --- threads


def stacks(pace: Pace) -> dict[str, Any]:
    """Return the stack of each thread, and the groups of tasks with the same stack."""
    loops = {getattr(loop, "_thread_id", None): observer.name for loop, observer in observed_loops()}
    threads = [_thread(thread, loops.get(thread.ident)) for thread in pace.over(threading.enumerate())]
    return {"threads": threads, "groups": await_graphs()["groups"]}


def _thread(thread: threading.Thread, loop: str | None) -> dict[str, Any]:
    return {
        "name": short_name(thread.name),
        "thread_id": thread.ident,
        "native_id": thread.native_id,
        "loop": loop,
        "frames": [plain_place(place) for place in stack_of_thread(thread.ident or 0)],
    }
