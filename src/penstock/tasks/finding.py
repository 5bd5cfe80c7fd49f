"""A finding: a fault of the running program, with its kind, time, place and evidence.

Apart from the other records, so that a starting loop imports no more than it needs.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 (get_type_hints works on a record)
from dataclasses import dataclass, field
from typing import Any

from penstock.tasks.place import Place  # noqa: TC001 (as above)

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault of the running program, with its evidence.

    `kind` is one of

    - stall: a callback or a turn that has lasted longer than `tasks.stall_s`;
    - failed: a task of `spawn()` that failed;
    - destroyed_pending: a task that was collected before it ended;
    - exception_unretrieved: a failed task whose exception was not retrieved;
    - never_awaited: a coroutine that was never awaited;
    - stuck: a task whose wait cannot be completed;
    - await_cycle: tasks that wait for each other;
    - hung: a task far older than others of its site;
    - growing: a site whose live count only grows;
    - loop_closed: tasks that were pending when their loop was closed.

    `evidence` is text and numbers for people and logs: stacks, chains, counts, the cause of a stall.
    """

    kind: str
    # one line for people
    message: str
    # where the task was created; of a stall, the line that runs
    site: Place | None = None
    # the task's name, None if the finding is about no task
    task: str | None = None
    # when it began, on the clocks of time.monotonic() and time.time()
    since_s: float = 0.0
    wall_time_s: float = 0.0
    # the loop's name
    loop: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
