"""Rules about tasks: sites that grow, tasks that wait in vain, tasks and exceptions that are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.monitor.figures import place_of
from penstock.monitor.rules.diagnosis import Diagnosis
from penstock.monitor.rules.stacks import culprit
from penstock.monitor.texts import count_text, duration, where

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.monitor.rules.diagnosis import Finding, Observed, Rule
    from penstock.tasks.place import Place

__all__ = ["RULES"]

# A site that has shrunk below this share of the count that was found no longer grows.
STILL_SHARE = 0.8
# the length of a task's name or of a cycle in a sentence
MOST_CHARACTERS = 120
# findings of one kind and place that a process delivers in a minute; more are only counted
DELIVERED_A_MINUTE = 12
# tasks pile up behind these
CONGESTED = ("await_cycle", "dns_full", "lane_full", "blocked", "gil", "overloaded")


def growing(seen: Observed) -> Iterator[Diagnosis]:
    """Name a site whose live count only grows, unless it has shrunk since it was found."""
    latest = {(each.get("loop"), _key(each)): each for each in seen.of_kind("growing")}
    for found in latest.values():
        counts = (found.get("evidence") or {}).get("live") or [0]
        place, live = place_of(found.get("site")), _live_now(seen, found)
        if live is not None and live < STILL_SHARE * counts[-1]:
            continue
        now = counts[-1] if live is None else live
        yield Diagnosis(
            kind="growing",
            sentence=f"tasks made in {where(place)} pile up: {now:,} live, {counts[0]:,} when it began",
            next_step=f"bound their number or their time; `penstock tasks {_pid(seen)} --group stack` shows where",
            rank=60.0,
            severity="error",
            evidence={"live": now, "counts": list(counts), "loop": found.get("loop")},
            place=place,
            explained_by=CONGESTED,
        )


def _key(found: Finding) -> tuple[Any, ...]:
    site = found.get("site") or {}
    return site.get("file"), site.get("line"), site.get("function")


def _live_now(seen: Observed, found: Finding) -> int | None:
    """Return the live tasks of the finding's site; None if the answer has no such site."""
    place, loop = place_of(found.get("site")), seen.loop(found.get("loop") or "")
    sites = loop.sites if loop is not None else ()
    return next((each.live for each in sites if each.site == place), None)


def await_cycle(seen: Observed) -> Iterator[Diagnosis]:
    """Name tasks that wait for each other."""
    found = seen.of_kind("await_cycle")
    if not found:
        return
    cycle = str((found[-1].get("evidence") or {}).get("cycle") or found[-1].get("task") or "")
    place = place_of(found[-1].get("site"))
    yield Diagnosis(
        kind="await_cycle",
        sentence=f"tasks wait for each other and never end: {_short(cycle)}{_more(found)}",
        next_step=f"break the cycle where these tasks are made, {where(place)}: one must not await the other",
        rank=90.0,
        severity="error",
        evidence={"count": len(found), "cycle": cycle},
        place=place,
    )


def stuck(seen: Observed) -> Iterator[Diagnosis]:
    """Name tasks whose wait nothing can complete."""
    found = seen.of_kind("stuck")
    if not found:
        return
    place, waits_at = place_of(found[-1].get("site")), _waits_at(found[-1])
    tasks = _tasks(found) if len(found) < DELIVERED_A_MINUTE else f"at least {_tasks(found)}"
    yield Diagnosis(
        kind="stuck",
        sentence=f"{tasks} made in {where(place)} can never go on{waits_at}: nothing can end the wait",
        next_step="release the lock, or set the future or event, on every way out; bound the wait by asyncio.timeout()",
        rank=85.0,
        severity="error",
        evidence={"count": len(found), "message": found[-1].get("message")},
        place=place,
        explained_by=("await_cycle",),
    )


def _waits_at(found: Finding) -> str:
    chain = [str(each) for each in (found.get("evidence") or {}).get("await_chain") or ()]
    return f", waiting in {_short(culprit(chain[::-1], None).text)}" if chain else ""


def hung(seen: Observed) -> Iterator[Diagnosis]:
    """Name tasks far older than others of their site."""
    found = seen.of_kind("hung")
    if not found:
        return
    place, evidence = place_of(found[-1].get("site")), found[-1].get("evidence") or {}
    usual_s = evidence.get("site_p99_s") or evidence.get("p99_s")
    usual = f", where 99 % end within {duration(usual_s)}" if usual_s else ""
    yield Diagnosis(
        kind="hung",
        sentence=f"{_tasks(found)} made in {where(place)} hang{'s' if len(found) == 1 else ''}{usual}",
        next_step=f"look where by `penstock tasks {_pid(seen)} --sort age`, and bound the wait by asyncio.timeout()",
        rank=55.0,
        evidence={"count": len(found), "usual_s": usual_s},
        place=place,
        explained_by=(*CONGESTED, "stuck"),
    )


def lost(seen: Observed) -> Iterator[Diagnosis]:
    """Name tasks that were collected before they ended."""
    yield from _event(
        seen,
        "destroyed_pending",
        "{count} made in {where} {was} collected before {it} ended, for lack of a reference",
        "keep the task, or make it by penstock.tasks.spawn(), which does",
        "task",
        48.0,
    )


def never_awaited(seen: Observed) -> Iterator[Diagnosis]:
    """Name coroutines that were made and not awaited."""
    yield from _event(
        seen,
        "never_awaited",
        "{count} of {where} {was} never awaited: its code did not run",
        "await the call, or make a task of it",
        "coroutine",
        46.0,
    )


def unretrieved(seen: Observed) -> Iterator[Diagnosis]:
    """Name tasks whose exception was lost."""
    yield from _event(
        seen,
        "exception_unretrieved",
        "{count} at {where} failed and the exception was not retrieved",
        "await the task, or make it by penstock.tasks.spawn(), which logs its failure",
        "task",
        47.0,
    )


def _event(seen: Observed, kind: str, sentence: str, step: str, noun: str, rank: float) -> Iterator[Diagnosis]:
    """Yield the diagnosis of events that happened lately, at the place where most did."""
    found = seen.events(kind)
    if not found:
        return
    places = [place_of(each.get("site")) for each in found]
    place: Place | None = max(places, key=places.count)
    total = max(len(found), sum(loop.findings.get(kind, 0) for loop in seen.figures.loops))
    was, it = ("was", "it") if total == 1 else ("were", "they")
    yield Diagnosis(
        kind=kind,
        sentence=sentence.format(count=count_text(total, noun), where=where(place), was=was, it=it),
        next_step=step,
        rank=rank,
        evidence={"count": total, "task": found[-1].get("task")},
        place=place,
    )


def _tasks(found: Sequence[Finding]) -> str:
    return f"task {_short(str(found[0].get('task')))!r}" if len(found) == 1 else count_text(len(found), "task")


def _more(found: Sequence[Finding]) -> str:
    return "" if len(found) == 1 else f" (and {len(found) - 1} more such)"


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."


def _pid(seen: Observed) -> int:
    return seen.figures.process.pid


RULES: tuple[Rule, ...] = (growing, await_cycle, stuck, hung, lost, never_awaited, unretrieved)
