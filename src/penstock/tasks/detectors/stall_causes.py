"""Why a loop stood still: what the watchdog measured, and which of four causes that speaks for. Pure arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from penstock._core.tasks.watchdog import WatchedLoop

__all__ = ["CAUSES", "Ended", "Sighting", "cause_of", "figures_of"]

CAUSES = ("python", "gil", "gc", "descheduled")

# Python code gives the GIL up a switch interval after somebody asks; one that used its CPU for three and did not is
# in C code. Where other threads may have had it in turns, ten.
HELD_SWITCHES = 3
SHARED_SWITCHES = 10
# Of the stall, on a run queue without a CPU: beyond what a busy loop meets that shares each CPU with one other thread.
STARVED_SHARE = 0.6
# a thread with less of the CPU than this was blocked rather than busy
BLOCKED_SHARE = 0.5


class Sighting(NamedTuple):
    """What the watchdog saw, in the order in which it says so. Times are nanoseconds; -1 is a time not known."""

    watched: WatchedLoop | None
    # when it began, on time.monotonic_ns()'s clock, and how long it has lasted
    since_ns: int
    lasted_ns: int
    # how long the GIL could not be had
    gil_wait_ns: int
    # Over what the figures below were taken: from the first look at it, which is in its first half, to now.
    observed_ns: int
    # the loop's thread: its CPU time, and that while the GIL could not be had
    cpu_ns: int
    wait_cpu_ns: int
    # collecting garbage, in any thread
    gc_ns: int
    # the loop's thread was ready to run, and had no CPU
    runnable_ns: int
    # the watchdog itself woke so much too late
    late_ns: int
    turn: int
    # of the turn, that had ended
    callbacks: int
    # a turn of many callbacks, not one long callback
    is_turn: bool
    # told of before
    again: bool
    # there is nothing to be seen of it any more
    is_over: bool


class Ended(NamedTuple):
    """The end of a stall that the watchdog has told of while it lasted. Times are as in `Sighting`."""

    watched: WatchedLoop
    is_turn: bool
    since_ns: int
    until_ns: int


def cause_of(sight: Sighting, switch_ns: int) -> str:
    """python, gil, gc or descheduled; `switch_ns` is the interpreter's switch interval.

    descheduled comes first, since a process that does not run makes everything else look long as well. It shows in
    two ways. The watchdog needs no GIL and sleeps by the kernel's clock: if it woke as late as half the stall is long,
    nothing of the process ran (SIGSTOP, a paused machine, a spent CPU quota). And the kernel counts how long the
    loop's thread stood on a run queue: most of the stall, and it lacked a CPU. That the thread's CPU clock stood still
    says nothing: it does so in every blocking call.
    """
    half_ns = sight.lasted_ns / 2
    if sight.late_ns >= half_ns or sight.runnable_ns >= STARVED_SHARE * sight.lasted_ns:
        return "descheduled"
    if sight.gc_ns >= half_ns:
        return "gc"
    return "gil" if _held_gil(sight, switch_ns) else "python"


def _held_gil(sight: Sighting, switch_ns: int) -> bool:
    """Whether C code kept the GIL: the loop's own thread, on its CPU all along, or whoever had it for much longer."""
    wait_ns = sight.gil_wait_ns
    if sight.wait_cpu_ns >= 0.7 * wait_ns and wait_ns >= HELD_SWITCHES * switch_ns:
        return True
    return wait_ns >= max(SHARED_SWITCHES * switch_ns, sight.lasted_ns / 4)


def figures_of(sight: Sighting, cause: str) -> dict[str, Any]:
    """The numbers of a finding's evidence, times in seconds."""
    share = max(0.0, sight.cpu_ns / sight.observed_ns) if sight.observed_ns > 0 and sight.cpu_ns >= 0 else None
    return {
        "cause": cause,
        "lasted_s": sight.lasted_ns / 1e9,
        "observed_s": sight.observed_ns / 1e9,
        "gil_wait_s": sight.gil_wait_ns / 1e9,
        "cpu_s": None if sight.cpu_ns < 0 else sight.cpu_ns / 1e9,
        "cpu_share": share,
        # it waited for something outside, such as time.sleep or a blocking socket
        "blocked": cause == "python" and share is not None and share < BLOCKED_SHARE,
        "gc_s": sight.gc_ns / 1e9,
        "runnable_s": sight.runnable_ns / 1e9,
        "late_s": sight.late_ns / 1e9,
        "callbacks": sight.callbacks,
        "turn": sight.is_turn,
        "again": sight.again,
        "over": sight.is_over,
        # lasted_s is the whole length
        "ended": sight.is_over,
    }
