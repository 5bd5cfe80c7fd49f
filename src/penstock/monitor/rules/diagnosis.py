"""A diagnosis, and the observation of a process that the rules read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from penstock.monitor.figures import Figures, LoopRates
    from penstock.monitor.history import History, Silence
    from penstock.tasks.place import Place

__all__ = ["Diagnosis", "Finding", "Observed", "Rule", "observed"]

Severity: TypeAlias = Literal["error", "warning"]
# a finding as the protocol has it
Finding: TypeAlias = Mapping[str, Any]

# Findings of stalls are delivered at most twelve times a minute for each place: older ones name the place of newer
# stalls, which are only counted.
REMEMBERED_S = 120.0
# An event such as a lost task is reported for five minutes: a view that is open for days does not repeat an old one.
EVENT_S = 300.0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A fault of a running process: one sentence, and the next step."""

    # the rule's name for it
    kind: str
    # the sentence, without a full stop, and the next step, in the imperative
    sentence: str
    next_step: str
    # 0 to 100: the share of the trouble that it explains; the highest is first
    rank: float = 50.0
    # an error needs attention now, a warning soon
    severity: Severity = "warning"
    # plain data: counts, seconds, names
    evidence: Mapping[str, Any] = field(default_factory=dict)
    # the line of code to look at
    place: Place | None = None
    # kinds of the diagnoses that explain this one
    explained_by: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The sentence and the next step in one line."""
        return f"{self.sentence}: {self.next_step}"

    def as_json(self) -> dict[str, Any]:
        """Return the diagnosis as plain data."""
        return {**asdict(self), "evidence": dict(self.evidence), "explained_by": list(self.explained_by)}


@dataclass(frozen=True, slots=True)
class Observed:
    """A process over an interval: its figures, the findings of that time, and the figures of each step."""

    figures: Figures
    # the interval of events, not longer than the process lives
    window_s: float = 30.0
    # the findings that began in the last two minutes, and all of lasting conditions, oldest first
    findings: tuple[Finding, ...] = ()
    series: tuple[Figures, ...] = ()
    # the process does not answer
    silence: Silence | None = None

    def of_kind(self, *kinds: str) -> list[Finding]:
        """Return the findings of these kinds, oldest first."""
        return [each for each in self.findings if each.get("kind") in kinds]

    def events(self, kind: str) -> list[Finding]:
        """Return the findings of a kind of event that happened lately, oldest first."""
        return [each for each in self.of_kind(kind) if self.figures.at_s - _happened_s(each) <= EVENT_S]

    def name(self, loop: str) -> str:
        """Return a loop as the subject of a sentence: without its name if it is the only one."""
        return f"loop {loop!r}" if loop and len(self.figures.loops) > 1 else "the loop"

    def loop(self, name: str) -> LoopRates | None:
        """Return the figures of the loop with this name."""
        return next((each for each in self.figures.loops if each.name == name), None)

    @property
    def utilization(self) -> float:
        """The highest utilization of the loops that run."""
        return max((each.utilization for each in self.figures.loops if each.running), default=0.0)


Rule: TypeAlias = Callable[[Observed], Iterable[Diagnosis]]


def _happened_s(found: Finding) -> float:
    """Return when an event happened. A lost task's finding begins with its birth."""
    age_s = (found.get("evidence") or {}).get("age_s") or 0.0
    return float(found.get("since_s") or 0.0) + float(age_s)


def observed(history: History, seconds: float) -> Observed:
    """Return the observation of the last `seconds` of a history."""
    found = history.over(seconds)
    lived_s = found.process.uptime_s or seconds
    recent_s = found.at_s - REMEMBERED_S
    findings = [
        each for each in history.findings if each.get("kind") != "stall" or (each.get("since_s") or 0.0) >= recent_s
    ]
    return Observed(found, min(max(seconds, 30.0), lived_s), tuple(findings), tuple(history.series()), history.silence)
