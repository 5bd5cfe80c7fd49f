"""Claims: what one arm may cost by another of the same run, or at all, and whether a run bears that out.

Goals hold one subject against its rivals; a claim names both sides, such as a level of telemetry against it off.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.results import Results, Spread

__all__ = ["Claim", "Judged", "judge", "to_json"]


@dataclass(frozen=True, slots=True)
class Claim:
    """On each row that fits, a bound on `arm`.

    `kind` says what is bounded by `most`: "times" the cost of `base`, "beyond" the cost of `base` (the difference), or
    the "cost" itself. "least" bounds a gain from below. "beats" has no bound: where `base` is cheaper than `rival`,
    `arm` has to be as well.
    """

    row: str
    arm: str
    kind: str
    most: float = 1.0
    base: str = ""
    rival: str = ""

    def __str__(self) -> str:
        if self.kind == "beats":
            return f"{self.arm} is cheaper than {self.rival}, as {self.base} is"
        if self.kind in ("cost", "least"):
            return self.arm
        return f"{self.arm}, times {self.base}" if self.kind == "times" else f"{self.arm}, beyond {self.base}"


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim on one row: what was found, and whether the median is within the bound."""

    claim: Claim
    row: str
    found: Spread
    met: bool


def judge(results: Results) -> list[Judged]:
    """Every claim on every row that was measured on both sides."""
    found = [
        _judge(claim, row, results)
        for claim in results.goals.claims
        for row in results.rows
        if fnmatchcase(row, claim.row)
    ]
    return [judged for judged in found if judged is not None]


def to_json(judged: list[Judged]) -> list[dict[str, object]]:
    """The same as data."""
    return [{"text": str(one.claim), **asdict(one)} for one in judged]


def _judge(claim: Claim, row: str, results: Results) -> Judged | None:
    if claim.kind == "beats":
        base = results.paired(row, claim.base, claim.rival)
        if base is None or base.median >= 1:
            return None
        found = results.paired(row, claim.arm, claim.rival)
    elif claim.kind in ("cost", "least"):
        found = results.cost_ns(row, claim.arm)
    else:
        found = results.paired(row, claim.arm, claim.base, is_difference=claim.kind == "beyond")
    if found is None:
        return None
    return Judged(claim, row, found, _is_met(claim, found.median))


def _is_met(claim: Claim, found: float) -> bool:
    if claim.kind == "least":
        return found >= claim.most
    return found < claim.most if claim.kind == "beats" else found <= claim.most
