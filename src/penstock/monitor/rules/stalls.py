"""Rules about stalls: a call that blocks the loop, C code that holds the GIL, garbage collections, a lack of CPU."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.monitor.figures import place_of
from penstock.monitor.rules.diagnosis import Diagnosis
from penstock.monitor.rules.stacks import Culprit, calls_directly, culprit, starts_thread
from penstock.monitor.texts import duration, often, share_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.monitor.figures import Blocked, LoopRates
    from penstock.monitor.rules.diagnosis import Finding, Observed, Rule

__all__ = ["RULES"]

# Stalls of one place are named from this total time on: a single one of 0.1 s may be an import or a busy machine.
LEAST_TOTAL_S = 0.2
# A callback that runs now is named from this length on; a shorter one becomes a finding at its end.
LEAST_NOW_S = 0.25
# With less of the CPU than this the loop's thread was not the one that ran C code.
OWN_CPU_SHARE = 0.5
# Collections stop all threads: a tenth of the time is more than a program with few cycles ever spends.
GC_SHARE = 0.1
# below this interval a single collection would be a large share of it
GC_LEAST_S = 1.0
GC_LEAST_COUNT = 3
# Answers without the GIL in a window while no callback runs: one may be a burst of work.
LEAST_PARTIAL = 2
# A callback that runs for so long stops all that the loop serves: no lasting condition comes before it.
STOPPED_S = 1.0
# the rank of a stall grows with its share of the time, between these two
RANKS = 55.0, 95.0

STEPS = {
    "time.sleep": "await asyncio.sleep() there",
    "sleep": "await asyncio.sleep() there",
    "socket.getaddrinfo": "await loop.getaddrinfo() there",
    "socket.gethostbyname": "await loop.getaddrinfo() there",
    "subprocess.run": "await asyncio.create_subprocess_exec() there",
    "subprocess.check_output": "await asyncio.create_subprocess_exec() there",
    "subprocess.check_call": "await asyncio.create_subprocess_exec() there",
    "subprocess.call": "await asyncio.create_subprocess_exec() there",
    "subprocess.Popen": "await asyncio.create_subprocess_exec() there",
    "os.system": "await asyncio.create_subprocess_shell() there",
    "os.waitpid": "await asyncio.create_subprocess_exec() there",
}
IN_A_THREAD = "offload it to a thread, penstock.offload.options(lane='io'), or use an asynchronous client"
IN_A_PROCESS = "offload it with penstock.offload, whose lane 'cpu' has processes"
THREAD_STARTS = "the new thread waits for a CPU or for the GIL: start fewer threads, or give the process more CPU"


@dataclass(slots=True)
class _Stalls:
    """The stalls of one loop at one place, of one cause."""

    loop: str
    culprit: Culprit
    count: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0
    # the time of the stalls in which the thread waited
    waited_s: float = 0.0
    # the call in the innermost frame, which may be in a library that the culprit calls
    inner_call: str | None = None
    starts_thread: bool = False
    cpu_share: float | None = None
    now_s: float = 0.0
    callbacks: int = 0
    is_turn: bool = False

    @property
    def waits(self) -> bool:
        """Whether the thread waited for most of the time: one sample on a busy machine may be wrong."""
        return self.waited_s * 2 > self.total_s > 0


def _own_s(evidence: dict[str, Any]) -> float:
    """Return the length of a stall without the share for which the process waited for a CPU."""
    lasted_s, seen_s = evidence.get("lasted_s") or 0.0, evidence.get("observed_s") or 0.0
    starved_s = max(evidence.get("runnable_s") or 0.0, evidence.get("late_s") or 0.0)
    return float(lasted_s * (1 - min(1.0, starved_s / max(seen_s, 1e-9)))) if seen_s else float(lasted_s)


def _own_cpu_share(evidence: dict[str, Any]) -> float | None:
    """Return the loop's thread's CPU time as a share of the stall, without the time that it waited for a CPU."""
    share, seen_s = evidence.get("cpu_share"), evidence.get("observed_s") or 0.0
    if share is None or not seen_s:
        return share
    ran_s = seen_s - min(seen_s, evidence.get("runnable_s") or 0.0)
    return min(1.0, float(share) * seen_s / ran_s) if ran_s > 0 else None


def _grouped(seen: Observed, cause: str) -> list[_Stalls]:
    """Return the stalls of a cause by their place, the longest total first, with the callback that runs now."""
    groups: dict[tuple[str, str, bool], _Stalls] = {}
    for found in seen.of_kind("stall"):
        evidence = found.get("evidence") or {}
        if evidence.get("cause") == cause and _counts(seen, found):
            _add(groups, found, evidence, own_s=_own_s(evidence) if cause != "descheduled" else evidence["lasted_s"])
    if cause in ("python", "gil"):
        for each in seen.figures.loops:
            if each.blocked is not None and cause == _cause_now(seen, each, each.blocked):
                _add_now(groups, each, each.blocked)
    return sorted(groups.values(), key=lambda each: -each.total_s)


def _counts(seen: Observed, found: Finding) -> bool:
    """Return whether a stall is of the window, or stands for newer ones that were counted and not delivered."""
    if seen.figures.at_s - (found.get("since_s") or 0.0) <= seen.window_s:
        return True
    loop = seen.loop(found.get("loop") or "")
    return loop is not None and seen.figures.seconds < seen.window_s and _undelivered(seen, loop, found)


def _undelivered(seen: Observed, loop: LoopRates, found: Finding) -> bool:
    cause = (found.get("evidence") or {}).get("cause") or ""
    return loop.stalls.get(cause, 0) > 0 and not any(
        seen.figures.at_s - (each.get("since_s") or 0.0) <= seen.window_s for each in seen.of_kind("stall")
    )


def _cause_now(seen: Observed, loop: LoopRates, blocked: Blocked) -> str:
    """Return gil for a callback that runs while the process could not answer in full."""
    return "gil" if seen.figures.partial else "python"


def _add(groups: dict[tuple[str, str, bool], _Stalls], found: Finding, evidence: dict[str, Any], own_s: float) -> None:
    stack, call = evidence.get("stack") or (), evidence.get("call")
    named = culprit(stack, place_of(found.get("site")))
    if isinstance(call, str) and (named.call is None or calls_directly(stack)):
        named = Culprit(named.place, call)
    many = bool(evidence.get("turn")) and (evidence.get("callbacks") or 0) > 0
    loop = str(found.get("loop") or "")
    group = groups.setdefault((loop, named.text, many), _Stalls(loop, named, is_turn=many))
    group.count += 1
    group.total_s += own_s
    group.longest_s = max(group.longest_s, evidence.get("lasted_s") or 0.0)
    group.waited_s += own_s if evidence.get("blocked") else 0.0
    group.inner_call = call or group.inner_call
    group.starts_thread = group.starts_thread or starts_thread(stack)
    group.callbacks = max(group.callbacks, evidence.get("callbacks") or 0)
    share = _own_cpu_share(evidence)
    group.cpu_share = share if group.cpu_share is None else max(group.cpu_share, share or 0.0)


def _add_now(groups: dict[tuple[str, str, bool], _Stalls], loop: LoopRates, blocked: Blocked) -> None:
    named = culprit(blocked.stack, blocked.site)
    same = next((each for each in groups.values() if each.loop == loop.name and each.culprit == named), None)
    same = same or next((each for each in groups.values() if each.loop == loop.name and named.place is None), None)
    group = same or groups.setdefault((loop.name, named.text, False), _Stalls(loop.name, named))
    group.now_s = blocked.lasted_s
    if blocked.lasted_s >= LEAST_NOW_S:
        group.longest_s = max(group.longest_s, blocked.lasted_s)
        group.total_s = max(group.total_s, blocked.lasted_s)


def _rank(group: _Stalls, seen: Observed) -> float:
    if group.now_s >= STOPPED_S:
        return RANKS[1]
    share = min(1.0, group.total_s / max(1.0, seen.window_s))
    return RANKS[0] + (RANKS[1] - RANKS[0]) * max(share, 0.5 if group.now_s >= LEAST_NOW_S else 0.0)


def _times(group: _Stalls, seen: Observed) -> str:
    now = group.now_s >= LEAST_NOW_S
    if not group.count:
        return "now"
    return f"{'now, and ' if now else ''}{often(group.count, seen.window_s)}"


def _evidence(group: _Stalls) -> dict[str, Any]:
    return {
        "loop": group.loop,
        "call": group.culprit.call,
        "inner_call": group.inner_call,
        "count": group.count,
        "total_s": round(group.total_s, 4),
        "longest_s": round(group.longest_s, 4),
        "now_s": round(group.now_s, 4),
    }


def _named(groups: Sequence[_Stalls]) -> Iterator[_Stalls]:
    return (each for each in groups if each.total_s >= LEAST_TOTAL_S)


def blocked_by_call(seen: Observed) -> Iterator[Diagnosis]:
    """Name each line that blocks a loop with a call or with Python code of its own."""
    for group in _named(_grouped(seen, "python")):
        if group.is_turn:
            yield _long_turn(group, seen)
            continue
        name = seen.name(group.loop)
        doing = "waits in" if group.waits else "is blocked by"
        yield Diagnosis(
            kind="blocked",
            sentence=f"{name} {doing} {group.culprit.text} for {duration(group.longest_s)} ({_times(group, seen)})",
            next_step=_step(group),
            rank=_rank(group, seen),
            severity="error",
            evidence=_evidence(group),
            place=group.culprit.place,
            explained_by=("lane_full", "dns_full", "descheduled") if group.starts_thread else (),
        )


def _step(group: _Stalls) -> str:
    """Return the next step for a call, by its own name or by that of the call that it makes in a library."""
    if group.starts_thread:
        return THREAD_STARTS
    known = (call for call in (group.culprit.call, group.inner_call) if call in STEPS)
    return next((STEPS[call] for call in known if group.waits or call != "sleep"), _offload(group))


def _offload(group: _Stalls) -> str:
    return IN_A_THREAD if group.waits else IN_A_PROCESS


def _long_turn(group: _Stalls, seen: Observed) -> Diagnosis:
    """Return the diagnosis of turns with many callbacks of which none is long."""
    return Diagnosis(
        kind="long_turn",
        sentence=(
            f"{seen.name(group.loop)} runs {group.callbacks + 1:,} callbacks in a turn, which takes "
            f"{duration(group.longest_s)} ({_times(group, seen)})"
        ),
        next_step="wake fewer tasks at once: bound them by a semaphore or a gate, or send work in batches",
        rank=_rank(group, seen) - 1,
        severity="error",
        evidence={**_evidence(group), "callbacks": group.callbacks},
        place=group.culprit.place,
        explained_by=("throttled", "collections", "gil", "overloaded"),
    )


def gil_held(seen: Observed) -> Iterator[Diagnosis]:
    """Name C code that keeps the GIL: in the loop's thread, or in another."""
    groups = list(_named(_grouped(seen, "gil")))
    for group in groups:
        is_own = group.culprit.place is not None and (group.cpu_share is None or group.cpu_share >= OWN_CPU_SHARE)
        holder = _holder(group, seen, is_own=is_own)
        yield Diagnosis(
            kind="gil",
            sentence=f"{holder} holds the GIL for {duration(group.longest_s)} ({_times(group, seen)}){_unless(group)}",
            next_step=(
                f"{IN_A_PROCESS}: a thread would hold the GIL too"
                if is_own
                else f"find it by `penstock stacks {seen.figures.process.pid}`, and run its work in a lane of processes"
            ),
            rank=_rank(group, seen),
            severity="error",
            evidence={**_evidence(group), "own_thread": is_own},
            place=group.culprit.place if is_own else None,
            # without the GIL a collection is no more than C code
            explained_by=() if is_own or group.cpu_share is not None else ("collections",),
        )


def _holder(group: _Stalls, seen: Observed, *, is_own: bool) -> str:
    """Return the code that holds the GIL; of a running call that no sample has named yet, that it is in C."""
    if is_own:
        return f"C code called by {group.culprit.text}"
    return "C code" if group.cpu_share is None else f"another thread than {seen.name(group.loop)}'s"


def gil_held_elsewhere(seen: Observed) -> Iterator[Diagnosis]:
    """Name a held GIL while no loop runs a callback: the loops then wait for it after their polls, without a stall."""
    since_s = seen.figures.at_s - seen.window_s
    steps = [each for each in seen.series if each.at_s >= since_s]
    held = [each for each in steps if each.partial and not any(loop.blocked for loop in each.loops)]
    is_now = bool(held) and held[-1].at_s >= seen.figures.at_s
    if not is_now and len(held) < LEAST_PARTIAL:
        return
    yield Diagnosis(
        kind="gil",
        sentence=(
            f"C code holds the GIL while no callback runs ({len(held)} of {len(steps)} answers came without it"
            f"{', the last one too' if is_now else ''})"
        ),
        next_step=(
            f"find the thread by `penstock stacks {seen.figures.process.pid}`, and run its work in a lane of processes"
        ),
        rank=RANKS[0],
        severity="error",
        evidence={"partial_answers": len(held), "answers": len(steps)},
        explained_by=("collections",),
    )


def _unless(group: _Stalls) -> str:
    """Return the doubt about a thread without CPU time: it waits for the GIL, or sleeps in C code and keeps it."""
    known = group.culprit.place is not None and group.cpu_share is not None and group.cpu_share < OWN_CPU_SHARE
    return f", unless {group.culprit.text} sleeps with it" if known else ""


def collections(seen: Observed) -> Iterator[Diagnosis]:
    """Name garbage collections that stop the process: as stalls, or as a share of the time."""
    process, groups = seen.figures.process, _grouped(seen, "gc")
    total_s = sum(each.total_s for each in groups)
    is_share = (
        seen.figures.seconds >= GC_LEAST_S and process.gc_count >= GC_LEAST_COUNT and process.gc_share >= GC_SHARE
    )
    if total_s < LEAST_TOTAL_S and not is_share:
        return
    count, longest_s = sum(each.count for each in groups), max((each.longest_s for each in groups), default=0.0)
    stalls = f"stall the loop for {duration(longest_s)} ({often(count, seen.window_s)})" if count else ""
    share = f"take {share_text(process.gc_share)} of the time" if is_share else ""
    yield Diagnosis(
        kind="collections",
        sentence=f"garbage collections {' and '.join(filter(None, (share, stalls)))}",
        next_step="call gc.freeze() after the start, raise gc.set_threshold(), and make fewer objects in cycles",
        rank=RANKS[0] + (RANKS[1] - RANKS[0]) * min(1.0, max(process.gc_share, total_s / max(1.0, seen.window_s))),
        severity="error",
        evidence={"count": count, "total_s": round(total_s, 4), "share": round(process.gc_share, 4)},
    )


def descheduled(seen: Observed) -> Iterator[Diagnosis]:
    """Name a lack of CPU that the program did not cause: a busy or paused machine."""
    groups = defaultdict(list)
    for each in _grouped(seen, "descheduled"):
        groups[each.loop].append(each)
    for name, stalls in groups.items():
        count, longest_s = sum(each.count for each in stalls), max(each.longest_s for each in stalls)
        if sum(each.total_s for each in stalls) < LEAST_TOTAL_S:
            continue
        yield Diagnosis(
            kind="descheduled",
            sentence=(
                f"the process got no CPU for {duration(longest_s)} ({often(count, seen.window_s)}); "
                "the program did not cause it"
            ),
            next_step="look for a pause, a low priority or busy neighbours: give it CPU shares or another machine",
            rank=RANKS[0],
            severity="warning",
            evidence={"loop": name, "count": count, "longest_s": round(longest_s, 4)},
            explained_by=("throttled",),
        )


RULES: tuple[Rule, ...] = (blocked_by_call, gil_held, gil_held_elsewhere, collections, descheduled)
