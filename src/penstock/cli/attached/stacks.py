"""`penstock stacks`: the stack of each thread of a process, and of its tasks in groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.cli.attached import cells
from penstock.cli.attached.groups import group_lines
from penstock.cli.attached.partial import is_partial, partial_lines
from penstock.cli.attached.tables import cut_lines, terminal_width
from penstock.cli.attached.target import ask, parsed, parser_of, write_answer, write_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["main", "render"]

# the threads that watch the loops and answer this command
OWN_THREADS = frozenset({"penstock-attach", "penstock-attach-io", "penstock-watchdog"})


def main(arguments: Sequence[str]) -> int:
    """Print the stacks of a process."""
    parser = parser_of("stacks", "[options] [PID]", "Show the stacks of the threads and tasks of a running process.")
    parser.add_argument("--all", action="store_true", help="also of penstock's own threads")
    options = parsed(parser, arguments)
    answer = ask(options.pid, "stacks")
    if options.json:
        write_answer(answer)
    else:
        write_lines(render(answer, options.all, terminal_width()))
    return 0


def render(answer: Mapping[str, Any], has_all: bool, width: int | None) -> list[str]:
    """Return the threads, each with its frames, the innermost first, and the groups of tasks.

    Unless `has_all`, penstock's own threads are only named.
    """
    if is_partial(answer):
        return partial_lines(answer, width)
    threads = cells.items(answer, "threads")
    own = [] if has_all else [thread["name"] for thread in threads if thread.get("name") in OWN_THREADS]
    lines = [line for thread in threads if thread.get("name") not in own for line in _thread(thread)]
    if own:
        lines.append(f"threads of penstock: {', '.join(own)} (--all shows their stacks)")
    groups = list(group_lines(cells.items(answer, "groups")))
    return cut_lines([*lines, *([""] if groups else []), *groups], width)


def _thread(thread: Mapping[str, Any]) -> Iterator[str]:
    loop = f", loop {cells.text(thread['loop'])}" if thread.get("loop") is not None else ""
    yield f"thread {cells.text(thread.get('name'))} ({cells.text(thread.get('native_id'))}){loop}"
    frames = cells.items(thread, "frames")
    yield from (f"    {cells.place(frame)}" for frame in frames)
    if not frames:
        yield "    no Python frame"
