"""A partial answer as text: the loops and threads, the missing parts, and the reason."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from penstock.cli.attached import cells
from penstock.cli.attached.tables import Column, table
from penstock.monitor.texts import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["is_partial", "partial_lines", "partial_reason", "shown_loops"]

THREADS = (Column("NATIVE ID"), Column("STATE", True), Column("CPU"), Column("NAME", True))
# more digits of a fraction than a reader needs
LONG_FRACTION = re.compile(r"\b\d+\.\d{4,}\b")
STATES = {"R": "running", "S": "waiting", "D": "in the kernel", "T": "stopped", "t": "traced", "Z": "ended"}


def is_partial(answer: Mapping[str, Any]) -> bool:
    """Return whether an answer was made without the GIL."""
    return answer.get("partial") is True


def partial_reason(answer: Mapping[str, Any]) -> str:
    """Return why an answer is partial."""
    reason = cells.text(answer.get("reason") or "the GIL was not available")
    return LONG_FRACTION.sub(lambda found: f"{float(found[0]):.3f}", reason)


def partial_lines(answer: Mapping[str, Any], width: int | None) -> list[str]:
    """Return the reason, the missing parts, each loop, each thread, and the stacks if the answer has them."""
    unread = answer.get("unread")
    lines = [f"partial answer: {partial_reason(answer)}"]
    if isinstance(unread, list) and unread:
        lines.append(f"not read: {', '.join(map(cells.text, unread))}")
    lines += ["", *(_loop_line(loop) for loop in shown_loops(answer))]
    threads = cells.items(answer, "threads")
    if threads:
        lines += ["", *table(THREADS, [_thread_row(thread) for thread in threads], width)]
    return lines + list(_native_stacks(answer))


def shown_loops(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the loops; of a partial answer the running ones, if there are any: the others may be closed."""
    loops = cells.items(answer, "loops")
    running = [loop for loop in loops if loop.get("running")]
    return running if running and is_partial(answer) else loops


def _loop_line(loop: Mapping[str, Any]) -> str:
    blocked = loop.get("blocked")
    state = "running" if loop.get("running") else "not running"
    if isinstance(blocked, dict):
        state = f"blocked for {cells.seconds(blocked.get('lasted_s'))} by one {cells.text(blocked.get('kind'))}"
    turns = f"{cells.count(loop.get('turns'))} turns" if "turns" in loop else ""
    cpu = f"{cells.seconds(loop['cpu_s'])} of CPU time" if "cpu_s" in loop else ""
    return ", ".join(part for part in (f"loop {cells.text(loop.get('name') or None)}: {state}", turns, cpu) if part)


def _thread_row(thread: Mapping[str, Any]) -> tuple[str, ...]:
    state = str(thread.get("state"))
    number = cells.text(thread.get("native_id"))
    return number, STATES.get(state, state), cells.seconds(thread.get("cpu_s")), cells.text(thread.get("name"))


def _native_stacks(answer: Mapping[str, Any]) -> Iterator[str]:
    if "native_stacks" not in answer:
        return
    yield ""
    stacks = answer["native_stacks"]
    if not stacks:
        yield "stacks: not read, no thread that is on a CPU could be asked"
        return
    yield from (printable(line) for line in str(stacks).splitlines())
