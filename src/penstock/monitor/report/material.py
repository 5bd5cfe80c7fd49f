"""The data of a report: the samples of a process, or a trace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.monitor.history import History
from penstock.monitor.report.trace import Trace
from penstock.monitor.rules import diagnose, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.monitor.rules import Diagnosis

__all__ = ["Material"]

Answer = dict[str, Any]


@dataclass(slots=True)
class Material:
    """The data of one report. `source` names its origin."""

    source: str
    made_wall_time_s: float
    # without snapshots if only a trace was read
    history: History = field(default_factory=History)
    trace: Trace = field(default_factory=Trace)
    # the answer to `tasks`, and to `tasks` by stack
    tasks: Mapping[str, Any] = field(default_factory=dict)
    stacks: Mapping[str, Any] = field(default_factory=dict)
    # when each finding was first seen, by its identity, on the process's clock
    seen_s: dict[tuple[Any, ...], float] = field(default_factory=dict)
    # data that could not be read, each in words
    missing: list[str] = field(default_factory=list)

    @classmethod
    def of_trace(cls, trace: Trace, source: str, made_wall_time_s: float) -> Material:
        """Return the material of a trace alone."""
        made = cls(source, made_wall_time_s, trace=trace)
        made.missing.append("A trace has no counters: there are no figures of gates, lanes and the process.")
        made.history.add_findings({"findings": trace.findings})
        return made

    @property
    def findings(self) -> list[Mapping[str, Any]]:
        """All findings, newest first."""
        return sorted(self.history.findings, key=self._order, reverse=True)

    def _order(self, finding: Mapping[str, Any]) -> float:
        return float(self.moment_s(finding) or finding.get("since_s") or 0.0)

    def moment_s(self, finding: Mapping[str, Any]) -> float | None:
        """Return when a finding happened, on the process's clock; None if that is unknown."""
        found = self.trace.moment_s(finding)
        return self.seen_s.get(identity(finding)) if found is None else found

    def wall_time_s(self, at_s: float) -> float | None:
        """Return the time since 1970 of a moment on the process's clock."""
        latest = self.history.latest or {}
        known_s, wall_s = latest.get("at_s"), latest.get("wall_time_s")
        if known_s is None or wall_s is None:
            known_s, wall_s = self.trace.at_s, self.trace.wall_time_s
        return None if known_s is None or wall_s is None else wall_s + at_s - known_s

    def diagnoses(self) -> list[Diagnosis]:
        """Return the diagnoses; of a trace alone, by its findings."""
        if self.history.latest is not None:
            return diagnose(self.history)
        # a process about which nothing but its findings is known
        at_s = max([self.trace.at_s or 0.0, self.trace.end_s])
        bare = History()
        bare.add({"at_s": at_s, "wall_time_s": self.trace.wall_time_s, "loops": []})
        bare.add_findings({"findings": self.trace.findings})
        return diagnose(bare)

    def verdict(self) -> str:
        """Return the first diagnosis in one line. A trace alone does not show that nothing is wrong."""
        found = self.diagnoses()
        return first_line(found) if found or self.history.latest is not None else "the trace shows no fault"


def identity(finding: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the identity of a finding."""
    return tuple(finding.get(key) for key in ("kind", "loop", "since_s", "task", "message"))
