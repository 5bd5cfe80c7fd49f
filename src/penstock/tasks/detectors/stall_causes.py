"""The cause of a stall, by the watchdog's measurements. Pure arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock._core.tasks.rows import StallSighting

__all__ = ["CAUSES", "cause_of", "figures_of", "is_held_by_loop"]

CAUSES = ("python", "gil", "gc", "descheduled")

# Python code releases the GIL one switch interval after a request. A thread that used its CPU for three intervals
# without a release is in C code. Where other threads may have had the GIL in turns, the bound is ten.
HELD_SWITCHES = 3
SHARED_SWITCHES = 10
# The share of the stall on a run queue without a CPU: more than a busy loop has that shares its CPU with one thread.
STARVED_SHARE = 0.6
# a thread that used less of the CPU than this was blocked, not busy
BLOCKED_SHARE = 0.5


def cause_of(sight: StallSighting, switch_ns: int) -> str:
    """Return python, gil, gc or descheduled. `switch_ns` is the interpreter's switch interval.

    descheduled is tested first: if the process does not run, all other times are long too. There are two signs of it.
    The watchdog needs no GIL and sleeps by the kernel's clock. If it woke late by half of the stall, no thread of the
    process ran (SIGSTOP, a paused machine, a spent CPU quota). The kernel also counts the time for which the loop's
    thread was on a run queue. If that is most of the stall, the thread lacked a CPU. The thread's own CPU clock is no
    sign: it also stands still in a blocking call.
    """
    half_ns = sight.lasted_ns / 2
    if sight.late_ns >= half_ns or sight.runnable_ns >= STARVED_SHARE * sight.lasted_ns:
        return "descheduled"
    if sight.gc_ns >= half_ns:
        return "gc"
    return "gil" if _held_gil(sight, switch_ns) else "python"


def _held_gil(sight: StallSighting, switch_ns: int) -> bool:
    """Return whether C code kept the GIL: in the loop's thread, busy all the time, or in another for much longer."""
    wait_ns = sight.gil_wait_ns
    if _is_busy(sight) and wait_ns >= HELD_SWITCHES * switch_ns:
        return True
    return wait_ns >= max(SHARED_SWITCHES * switch_ns, sight.lasted_ns / 4)


def is_held_by_loop(sight: StallSighting, cause: str) -> bool:
    """Return whether C code in the loop's own thread kept the GIL."""
    return cause == "gil" and _is_busy(sight)


def _is_busy(sight: StallSighting) -> bool:
    """Return whether the loop's thread used the CPU while the watchdog waited for the GIL."""
    return sight.wait_cpu_ns >= 0.7 * sight.gil_wait_ns


def _could_run(sight: StallSighting) -> float:
    """Return the share of a stall for which the loop's thread did not wait for a CPU."""
    return max(0.0, 1 - max(0, sight.runnable_ns) / sight.observed_ns)


def figures_of(sight: StallSighting, cause: str) -> dict[str, Any]:
    """Return the numbers of a finding's evidence, times in seconds."""
    share = max(0.0, sight.cpu_ns / sight.observed_ns) if sight.observed_ns > 0 and sight.cpu_ns >= 0 else None
    return {
        "cause": cause,
        "lasted_s": sight.lasted_ns / 1e9,
        "observed_s": sight.observed_ns / 1e9,
        "gil_wait_s": sight.gil_wait_ns / 1e9,
        "cpu_s": None if sight.cpu_ns < 0 else sight.cpu_ns / 1e9,
        "cpu_share": share,
        # it waited for the operating system, as time.sleep and blocking sockets do
        "blocked": cause == "python" and share is not None and share < BLOCKED_SHARE * _could_run(sight),
        "gc_s": sight.gc_ns / 1e9,
        "runnable_s": sight.runnable_ns / 1e9,
        "late_s": sight.late_ns / 1e9,
        "callbacks": sight.callbacks,
        "turn": sight.is_turn,
        "repeated": sight.again,
        # the stall ended before its stack could be sampled
        "unsampled": sight.is_over,
        # whether lasted_s is the whole length
        "ended": sight.is_over,
    }
