"""The tasks of this process for its monitors: lists, groups, trees, one task in detail, stacks of threads."""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections import Counter
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from penstock.runtime.attach.messages import BadMessage, whole, word
from penstock.runtime.attach.plain import plain_place, plain_task, plain_times, short_name
from penstock.runtime.attach.snapshot import stack_of_thread
from penstock.tasks.awaits.chain import await_chain, awaited_object
from penstock.tasks.awaits.graph import await_graph, awaited_tasks
from penstock.tasks.observers.native import NativeObserver
from penstock.tasks.observers.registry import observed_loops

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from penstock._core.tasks.scan import TaskScan
    from penstock.runtime.attach.pace import Pace
    from penstock.tasks.awaits.graph import AwaitGraph
    from penstock.tasks.observers.registry import Observer
    from penstock.tasks.place import Place
    from penstock.tasks.records import LiveTask

__all__ = ["await_graphs", "grouped_by_site", "listed", "one_task", "stacks", "task_numbered", "tree"]

# the budget of the walk over all await chains
GRAPH_S = 0.25
MOST_ROWS = 10_000
# tasks whose await chains are followed: the oldest
MOST_IN_GRAPH = 5_000
MOST_DEPTH = 50
# in the order of the native ranks
SORT_KEYS = ("age", "running", "ready", "waiting", "steps", "number")
# the keys in an answer that are no times
NAMES = {"steps": "steps", "number": "number"}
MATCHED_AT_ONCE = 256


def _chosen_loops(only: object) -> list[tuple[asyncio.AbstractEventLoop, Observer]]:
    """Return the loop of this name, or all of them for None. Raises BadMessage without such a loop."""
    known = list(observed_loops())
    found = [(loop, observer) for loop, observer in known if only in (None, observer.name)]
    if not found and only is not None:
        names = ", ".join(short_name(observer.name) for _, observer in known) or "none"
        raise BadMessage(f"no loop {str(only)[:40]!r}; there are: {names}")
    return found


def listed(pace: Pace, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tasks that match, sorted, at most `limit`."""
    sort = word(message, "sort", "age", SORT_KEYS)
    limit = whole(message, "limit", 100, 0, MOST_ROWS)
    text, descends = str(message.get("filter") or "").lower(), bool(message.get("descending", True))
    found = [_ranked(pace, observer, sort, limit, descends, text) for _, observer in _chosen_loops(message.get("loop"))]
    rows = [row for some, _, _ in found for row in some]
    rows.sort(key=lambda row: row[NAMES.get(sort, f"{sort}_s")], reverse=descends)
    total, matched = sum(each for _, each, _ in found), sum(each for _, _, each in found)
    return {"tasks": rows[:limit], "total": total, "matched": matched}


Ranked = tuple[list[dict[str, Any]], int, int]


def _ranked(pace: Pace, observer: Observer, sort: str, limit: int, descends: bool, text: str) -> Ranked:
    """Return the first tasks of one loop, the number of all tasks, and of those that match."""
    scan = _scan(observer, pace)
    if scan is None:
        return _ranked_plainly(pace, observer, sort, limit, descends, text)
    wanted = _matching(pace, observer, scan, text) if text else None
    rows = scan.top(SORT_KEYS.index(sort), limit, descends, wanted)
    name, native = observer.name or "", cast("NativeObserver", observer)
    tasks = [plain_task(native.scanned_task(scan, row), name) for row in pace.over(rows)]
    return tasks, len(scan), len(scan) if wanted is None else sum(wanted)


def _scan(observer: Observer, pace: Pace) -> TaskScan | None:
    return observer.scan(pace.pause) if isinstance(observer, NativeObserver) else None


def _matching(pace: Pace, observer: Observer, scan: TaskScan, text: str) -> bytearray:
    """Return a byte for each record of the scan: 1 if the text is in the task's name or its site."""
    native, known, wanted = cast("NativeObserver", observer), {}, bytearray(len(scan))
    for start in range(0, len(scan), MATCHED_AT_ONCE):
        for at, (number, index, site) in enumerate(scan.places(start, MATCHED_AT_ONCE), start):
            if site not in known:
                known[site] = text in str(native.site(site)).lower()
            wanted[at] = known[site] or _is_named(native.task_at((number, index, site)), text)
        pace.rest()
    return wanted


def _is_named(task: Any, text: str) -> bool:
    return task is not None and text in task.get_name().lower()


def _ranked_plainly(pace: Pace, observer: Observer, sort: str, limit: int, descends: bool, text: str) -> Ranked:
    """Return the same as `_ranked`, from records alone."""
    rows = [plain_task(task, observer.name or "") for task in pace.over(observer.live())]
    matched = [row for row in rows if text in f"{row['name']} {row['site']['text']} {row['state']}".lower()]
    choose = heapq.nlargest if descends else heapq.nsmallest
    return choose(limit, matched, key=itemgetter(NAMES.get(sort, f"{sort}_s"))), len(rows), len(matched)


def grouped_by_site(pace: Pace, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the number of tasks of each site by their state, largest first."""
    text = str(message.get("filter") or "").lower()
    groups = [
        group
        for _, observer in _chosen_loops(message.get("loop"))
        for group in _site_groups(pace, observer)
        if text in group["site"]["text"].lower()
    ]
    return {"groups": sorted(groups, key=lambda group: -group["count"])}


def _site_groups(pace: Pace, observer: Observer) -> Iterator[dict[str, Any]]:
    scan = _scan(observer, pace)
    if scan is None:
        yield from _site_groups_plainly(pace, observer)
        return
    native = cast("NativeObserver", observer)
    for site in pace.over(scan.sites()):
        yield {
            "site": plain_place(native.site(site.site)),
            "loop": observer.name,
            "count": site.ready + site.running + site.waiting,
            "ready": site.ready,
            "running": site.running,
            "waiting": site.waiting,
            "oldest_s": site.oldest_ns / 1e9,
            "running_s": site.running_ns / 1e9,
            **_steps(native, site.site),
        }


def _steps(observer: NativeObserver, site: int) -> dict[str, Any]:
    """Return the times of a site's steps; none unless it has run at level trace."""
    steps = observer.site_steps(site)
    return {} if steps is None else {"step": plain_times(steps[0]), "schedule": plain_times(steps[1])}


def _site_groups_plainly(pace: Pace, observer: Observer) -> Iterator[dict[str, Any]]:
    groups: dict[Place, dict[str, Any]] = {}
    for task in pace.over(observer.live()):
        counts = {"count": 0, "ready": 0, "running": 0, "waiting": 0, "oldest_s": 0.0, "running_s": 0.0}
        group = groups.setdefault(task.site, {"site": plain_place(task.site), "loop": observer.name, **counts})
        group["count"] += 1
        group[task.state] += 1
        group["oldest_s"] = max(group["oldest_s"], task.age_s)
        group["running_s"] += task.running_s
    yield from groups.values()


# --- await chains


def await_graphs(pace: Pace, only: object = None) -> dict[str, Any]:
    """Return the groups of tasks with the same stack, the waits between tasks, and the cycles."""
    chosen = [_oldest(pace, loop, observer) for loop, observer in _chosen_loops(only)]
    graphs = [await_graph(tasks, GRAPH_S, pace.rest) for tasks, _ in chosen]
    return {
        "task_count": sum(total for _, total in chosen),
        "groups": [group for graph in graphs for group in _groups(graph)],
        "edges": [
            [short_name(edge.waiter), short_name(edge.awaited)] for graph in graphs for edge in graph.edges[:5000]
        ],
        "cycles": [[short_name(name) for name in cycle] for graph in graphs for cycle in graph.cycles],
        "skipped": sum(total - len(tasks) for tasks, total in chosen) + sum(graph.skipped_count for graph in graphs),
    }


def _oldest(pace: Pace, loop: asyncio.AbstractEventLoop, observer: Observer) -> tuple[list[Any], int]:
    """Return the oldest tasks of a loop, as many as are walked over, and the number of all."""
    scan = _scan(observer, pace)
    if scan is None:
        tasks = list(asyncio.all_tasks(loop))
        return tasks[:MOST_IN_GRAPH], len(tasks)
    native = cast("NativeObserver", observer)
    found = [native.task_at(row) for row in scan.top(SORT_KEYS.index("age"), MOST_IN_GRAPH, True)]
    return [task for task in found if task is not None], len(scan)


def _groups(graph: AwaitGraph) -> Iterator[dict[str, Any]]:
    for group in graph.groups[:500]:
        yield {
            "count": group.count,
            "names": [short_name(name) for name in group.names],
            "frames": [plain_place(place) for place in group.frames],
            "awaits": group.awaited.text,
            "awaits_kind": group.awaited.kind,
        }


def tree(pace: Pace, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tasks as trees: below each task the tasks that it awaits."""
    graphs = await_graphs(pace, message.get("loop"))
    below: dict[str, list[str]] = {}
    for waiter, awaited in graphs["edges"]:
        below.setdefault(waiter, []).append(awaited)
    awaited = {awaited for _, awaited in graphs["edges"]}
    facts = _facts(pace, message.get("loop"))
    shown: set[str] = set()
    # tasks that wait for each other have no root: the first of them becomes one
    first = [name for name in facts if name not in awaited]
    roots = [_branch(name, below, facts, (), shown) for name in (*first, *facts) if name not in shown]
    return {"roots": roots, "cycles": graphs["cycles"], "skipped": graphs["skipped"]}


def _facts(pace: Pace, only: object) -> dict[str, dict[str, Any]]:
    """Return number, site and awaited object of each task by its name in the await graph."""
    found: dict[str, dict[str, Any]] = {}
    for loop, observer in _chosen_loops(only):
        tasks = _oldest(pace, loop, observer)[0]
        counts = Counter(task.get_name() for task in tasks)
        for task in pace.over(tasks):
            name = task.get_name()
            label = name if counts[name] == 1 else f"{name} {id(task):#x}"
            found[short_name(label)] = {
                "number": observer.number_of(task),
                "site": plain_place(observer.site_of_task(task)),
                "awaits": awaited_object(task).text,
            }
    return found


def _branch(
    name: str,
    below: Mapping[str, list[str]],
    facts: Mapping[str, dict[str, Any]],
    path: tuple[str, ...],
    shown: set[str],
) -> dict[str, Any]:
    # a task that is above itself closes a cycle, and a chain of more than 50 is cut
    inner = [] if name in path or len(path) >= MOST_DEPTH else below.get(name, [])
    shown.add(name)
    children = [_branch(each, below, facts, (*path, name), shown) for each in inner]
    return {"name": name, **facts.get(name, {}), "children": children}


def task_numbered(number: object) -> tuple[asyncio.AbstractEventLoop, Observer, LiveTask, Any]:
    """Return (loop, observer, record, task) of the live task with this number. Raises BadMessage without one."""
    if isinstance(number, int) and number is not True and 0 < number < 2**63:
        for loop, observer in observed_loops():
            found = observer.numbered(number)
            if found is not None:
                return loop, observer, *found
    raise BadMessage(f"no live task has the number {str(number)[:40]}")


def one_task(pace: Pace, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a live task with its await chain, its creation stack, and the tasks before and after it."""
    loop, observer, record, task = task_numbered(message.get("number"))
    chain = await_chain(task)
    waiters, awaited = _neighbours(pace, loop, observer, task)
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


def _neighbours(
    pace: Pace, loop: asyncio.AbstractEventLoop, observer: Observer, task: Any
) -> tuple[list[Any], list[Any]]:
    """Return the tasks that wait for a task, and the tasks that it waits for, among the oldest of its loop."""
    others = [each for each in _oldest(pace, loop, observer)[0] if each is not task]
    awaits = awaited_tasks([task, *others], pace.rest)
    return [waiter for waiter, others in awaits.items() if task in others], awaits.get(task, [])


# --- threads


def stacks(pace: Pace) -> dict[str, Any]:
    """Return the stack of each thread, and the groups of tasks with the same stack."""
    loops = {getattr(loop, "_thread_id", None): observer.name for loop, observer in observed_loops()}
    threads = [_thread(thread, loops.get(thread.ident)) for thread in pace.over(threading.enumerate())]
    return {"threads": threads, "groups": await_graphs(pace)["groups"]}


def _thread(thread: threading.Thread, loop: str | None) -> dict[str, Any]:
    return {
        "name": short_name(thread.name),
        "thread_id": thread.ident,
        "native_id": thread.native_id,
        "loop": loop,
        "frames": [plain_place(place) for place in stack_of_thread(thread.ident or 0)],
    }
