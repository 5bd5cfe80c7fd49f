"""What is told of a task while the program runs: where it was created, and what is wrong with it.

Apart from the other records, which nobody needs before he asks for them: a loop that starts has no time to lose.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 (get_type_hints works on a record)
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LEVELS", "Finding", "Site"]

# how much is seen of each task, least first
LEVELS = ("off", "count", "time", "trace")


@dataclass(frozen=True, slots=True)
class Site:
    """Where tasks are created: the first line below asyncio's own code. "other" stands for sites beyond the table."""

    file: str
    line: int
    function: str

    @property
    def label(self) -> str:
        """Module and function: the same from one deployment to the next, for metrics."""
        from penstock.tasks.modulenames import module_of

        return f"{module_of(self.file)}:{self.function}" if self.file else self.function

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}" if self.file else self.function


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that should not be, with its evidence.

    `kind` is one of stall, failed (a spawned task), destroyed_pending, exception_unretrieved, never_awaited, stuck
    (nobody can complete what it waits for), await_cycle, hung (far older than its site's others), growing (a site whose
    live count only grows), loop_closed. `evidence` is text and numbers for people and logs: stacks, chains, counts, the
    cause of a stall.
    """

    kind: str
    # one line for people
    message: str
    site: Site | None = None
    # the task's name, None where there is none
    task: str | None = None
    # when it began, on time.monotonic()'s clock, and on time.time()'s
    since_s: float = 0.0
    wall_time_s: float = 0.0
    loop: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
