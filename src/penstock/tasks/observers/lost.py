"""Lost tasks: collected while pending. They are counted at once, and reported as findings in the loop's next turn.

The callback of a weak reference runs inside the garbage collector, in any thread and with any lock held, so it may take
no lock. Knows the factory's records, not the factory.
"""

from __future__ import annotations

from collections import deque
from time import monotonic, monotonic_ns, time
from typing import TYPE_CHECKING

from penstock.tasks.finding import Finding
from penstock.tasks.observers.factoryrecords import TracedRecord

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from penstock.tasks.finding_log import FindingLog
    from penstock.tasks.observers.factoryrecords import TaskRecord

__all__ = ["LostTasks"]

# unreported tasks that are kept; the counts are exact even if this overflows
MOST_WAITING = 256


class LostTasks:
    """The lost tasks of one observer. `live` is its table of records, by `TaskRecord.key`."""

    def __init__(self, findings: FindingLog, live: dict[int, TaskRecord]) -> None:
        self._findings = findings
        self._live = live
        self.name = ""
        self._waiting: deque[tuple[TaskRecord, int]] = deque(maxlen=MOST_WAITING)
        self.loop: Callable[[], asyncio.AbstractEventLoop | None] = lambda: None

    def collected(self, record: TaskRecord) -> None:
        """Count a lost task. The callback of its record; the records of ended tasks are no longer in the table."""
        if self._live.get(record.key) is not record:
            return
        del self._live[record.key]
        record.entry.lost += 1
        self._waiting.append((record, monotonic_ns()))
        loop = self.loop()
        if len(self._waiting) == 1 and loop is not None:
            try:
                loop.call_soon_threadsafe(self.report)
            except RuntimeError:
                # closed: the next reader of the statistics reports it
                pass

    def report(self) -> None:
        """Add a finding for each lost task that was not reported."""
        while self._waiting:
            try:
                record, gone_ns = self._waiting.popleft()
            except IndexError:
                return
            self._findings.add(self._finding(record, gone_ns))

    def _finding(self, record: TaskRecord, gone_ns: int) -> Finding:
        site, ago_s = record.entry.site, (monotonic_ns() - gone_ns) / 1e9
        evidence: dict[str, object] = {"number": record.number}
        if record.born_ns:
            evidence["age_s"] = (gone_ns - record.born_ns) / 1e9
        if isinstance(record, TracedRecord) and (stack := record.creation_stack()):
            evidence["creation_stack"] = [str(frame) for frame in stack]
        return Finding(
            kind="destroyed_pending",
            message=f"a task was collected before it ended, for lack of a reference (created at {site})",
            site=site,
            since_s=monotonic() - ago_s,
            wall_time_s=time() - ago_s,
            loop=self.name,
            evidence=evidence,
        )
