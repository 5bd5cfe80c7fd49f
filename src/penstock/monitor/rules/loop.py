"""Rules about a loop as a whole: overload, and one site that takes most of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.monitor.rules.diagnosis import Diagnosis
from penstock.monitor.texts import duration, share_text, where

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.monitor.figures import LoopRates, SiteRates
    from penstock.monitor.rules.diagnosis import Observed, Rule

__all__ = ["RULES"]

# A loop that is busy and keeps up has a short queue; only together with a long delay it is overloaded.
BUSY_SHARE = 0.95
# Half of all callbacks wait longer: no single stall does that, and users notice it.
LATE_S = 0.1
# a shorter interval says little
LEAST_S = 1.0
# A site with more of the loop's time than all others together is named.
HOG_SHARE = 0.5
CAUSES = ("blocked", "gil", "collections", "throttled", "descheduled")


def overloaded(seen: Observed) -> Iterator[Diagnosis]:
    """Name a loop that is busy all the time while ready callbacks wait long, with the site that takes most of it."""
    for loop in seen.figures.loops:
        if seen.figures.seconds < LEAST_S or loop.utilization < BUSY_SHARE or loop.delay.p50_s < LATE_S:
            continue
        site = _largest(loop)
        most = f", {share_text(site.running_share)} of it by tasks of {where(site.site)}" if site else ""
        yield Diagnosis(
            kind="overloaded",
            sentence=(
                f"{seen.name(loop.name)} is overloaded: busy for {share_text(loop.utilization)} of the time{most}, "
                f"and half of the callbacks wait over {duration(loop.delay.p50_s)}"
            ),
            next_step="shed load at a gate (pressure.limit), add workers, or offload computation to lane 'cpu'",
            rank=50.0,
            severity="error",
            evidence={"loop": loop.name, "utilization": loop.utilization, "delay_p50_s": loop.delay.p50_s},
            place=site.site if site else None,
            explained_by=CAUSES,
        )


def _largest(loop: LoopRates) -> SiteRates | None:
    site = max(loop.sites, key=lambda each: each.running_share, default=None)
    return site if site is not None and site.running_share >= HOG_SHARE else None


RULES: tuple[Rule, ...] = (overloaded,)
