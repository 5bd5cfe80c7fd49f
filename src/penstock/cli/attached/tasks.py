"""`penstock tasks`: the live tasks of a process as a table, as groups of one site or stack, or as trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.cli.attached import cells
from penstock.cli.attached.groups import cycle_lines, group_lines, matching_groups
from penstock.cli.attached.partial import is_partial, partial_lines
from penstock.cli.attached.tables import Column, cut_lines, table, terminal_width
from penstock.cli.attached.target import ask, parsed, parser_of, whole, write_answer, write_lines
from penstock.cli.options import Failure

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["main", "render"]

SORTS = ("age", "running", "ready", "waiting", "steps", "number", "name")
LIMIT = 100
COLUMNS = (
    Column("NUMBER"),
    Column("NAME", True),
    Column("STATE", True),
    Column("AGE"),
    Column("RUNNING"),
    Column("READY"),
    Column("WAITING"),
    Column("STEPS"),
    Column("SITE", True),
    Column("LOOP", True),
)
TIMES = ("age_s", "running_s", "ready_s", "waiting_s")
SITE_COLUMNS = (
    Column("COUNT"),
    Column("READY"),
    Column("RUNNING"),
    Column("WAITING"),
    Column("OLDEST"),
    Column("TIME"),
    Column("P99 STEP"),
    Column("P99 READY"),
    Column("SITE", True),
)


def main(arguments: Sequence[str]) -> int:
    """Print the tasks of a process."""
    parser = parser_of("tasks", "[options] [PID]", "Show the live tasks of a running process.")
    parser.add_argument("--group", choices=("site", "stack"), help="one row for the tasks of a site or a stack")
    parser.add_argument("--tree", action="store_true", help="below each task the tasks that it awaits")
    parser.add_argument("--filter", metavar="TEXT", default="", help="only with this text in name, site or state")
    parser.add_argument("--sort", choices=SORTS, default="age", help="largest first; default age")
    parser.add_argument("--ascending", action="store_true", help="smallest first")
    parser.add_argument("--limit", metavar="N", type=whole, default=LIMIT, help=f"at most so many; default {LIMIT}")
    parser.add_argument("--loop", metavar="NAME", help="only of this loop")
    options = parsed(parser, arguments)
    if options.tree and options.group:
        raise Failure("--tree cannot be combined with --group (see 'penstock tasks --help')", code=2)
    answer = ask(options.pid, "tasks", **_question(options))
    if options.json:
        write_answer(answer)
    else:
        write_lines(render(answer, options, terminal_width()))
    return 0


def _question(options: argparse.Namespace) -> dict[str, Any]:
    asked: dict[str, Any] = {"filter": options.filter, "loop": options.loop}
    if options.tree:
        return {**asked, "tree": True}
    if options.group:
        return {**asked, "group": options.group}
    return {**asked, "sort": options.sort, "descending": not options.ascending, "limit": options.limit}


def render(answer: Mapping[str, Any], options: argparse.Namespace, width: int | None) -> list[str]:
    """Return the answer as lines, in the form that the options choose."""
    if is_partial(answer):
        return partial_lines(answer, width)
    if options.tree:
        return _trees(answer, options, width)
    if options.group == "stack":
        return _stacks(answer, options, width)
    if options.group == "site":
        rows = [_site_row(group) for group in cells.items(answer, "groups")]
        return [*table(SITE_COLUMNS, rows[: options.limit], width), *_left_out(len(rows), options.limit, "site")]
    return _list(answer, width)


def _left_out(count: int, limit: int, noun: str) -> list[str]:
    return ["", f"{limit:,} of {count:,} {noun}s are shown (--limit)"] if count > limit else []


# --- tables


def _list(answer: Mapping[str, Any], width: int | None) -> list[str]:
    tasks = cells.items(answer, "tasks")
    has_loops = len({task.get("loop") for task in tasks}) > 1
    rows = [_row(task, has_loops) for task in tasks]
    matched, total = answer.get("matched"), answer.get("total")
    foot = f"{len(tasks):,} of {cells.count(total)} tasks"
    if matched != total:
        foot += f", {cells.count(matched)} match"
    return [*([*table(COLUMNS, rows, width), ""] if rows else []), foot]


def _row(task: Mapping[str, Any], has_loops: bool) -> tuple[str, ...]:
    names = cells.text(task.get("number")), cells.text(task.get("name")), cells.text(task.get("state"))
    loop = cells.text(task.get("loop")) if has_loops else "-"
    times = [cells.seconds(task.get(key)) for key in TIMES]
    return (*names, *times, cells.count(task.get("steps")), cells.place(task.get("site")), loop)


def _site_row(group: Mapping[str, Any]) -> tuple[str, ...]:
    counts = [cells.count(group.get(key)) for key in ("count", "ready", "running", "waiting")]
    times = [cells.seconds(group.get(key)) for key in ("oldest_s", "running_s")]
    return (*counts, *times, _p99(group.get("step")), _p99(group.get("schedule")), cells.place(group.get("site")))


def _p99(times: object) -> str:
    """Return a 99th percentile, which is known for sites that ran at level trace."""
    return cells.seconds(times.get("p99_s")) if isinstance(times, dict) and times.get("count") else "-"


# --- stacks and trees


def _stacks(answer: Mapping[str, Any], options: argparse.Namespace, width: int | None) -> list[str]:
    groups = matching_groups(cells.items(answer, "groups"), options.filter)
    lines = [*cycle_lines(answer), *group_lines(groups[: options.limit]), *_skipped(answer)]
    return cut_lines(lines, width) + _left_out(len(groups), options.limit, "group")


def _trees(answer: Mapping[str, Any], options: argparse.Namespace, width: int | None) -> list[str]:
    roots = [root for root in cells.items(answer, "roots") if _matches(root, options.filter.lower())]
    roots.sort(key=lambda root: root.get("number") or 0)
    lines = list(cycle_lines(answer))
    for root in roots[: options.limit]:
        lines += _branch(root, "", "")
    return cut_lines([*lines, *_skipped(answer)], width) + _left_out(len(roots), options.limit, "tree")


def _skipped(answer: Mapping[str, Any]) -> list[str]:
    skipped = answer.get("skipped")
    return [f"{skipped:,} tasks were not read, for lack of time"] if isinstance(skipped, int) and skipped else []


def _matches(branch: Mapping[str, Any], text: str) -> bool:
    """Return whether a task or one below it has the text."""
    found = [branch]
    for each in found:
        if text in _label(each).lower():
            return True
        found.extend(cells.items(each, "children"))
    return False


def _label(branch: Mapping[str, Any]) -> str:
    number = branch.get("number")
    name = cells.text(branch.get("name")) + (f" ({number})" if number else "")
    return f"{name} at {cells.place(branch.get('site'))} awaits {cells.text(branch.get('awaits'))}"


def _branch(branch: Mapping[str, Any], first: str, rest: str) -> Iterator[str]:
    yield first + _label(branch)
    children = cells.items(branch, "children")
    for at, child in enumerate(children):
        is_last = at == len(children) - 1
        yield from _branch(child, rest + ("└─ " if is_last else "├─ "), rest + ("   " if is_last else "│  "))
