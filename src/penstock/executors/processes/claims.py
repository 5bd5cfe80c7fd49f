"""The table of claims on jobs, and adaptive spinning. The native table is used where it is built.

The table in plain Python has the same words of shared memory, but cannot revoke a job. Therefore a worker is sent one
job at a time (`SLOTS`): the job that it has is the job that it runs.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

from penstock.purity import is_pure_requested

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FILLS", "SLOTS", "SPIN_NS", "AdaptiveSpin", "ClaimTable", "LargeBytes", "receive"]

WORD = Struct("=Q")


class PlainClaimTable:
    """The counterpart of `penstock._core.workers.claims.ClaimTable`, for one job at a time."""

    BYTES = 16

    def __init__(self, memory: Any) -> None:
        self._memory = memory

    def release(self) -> None:
        """Release the memory."""
        self._memory = None

    def offer(self, number: int) -> None:
        """Do nothing: the worker runs the one job that it is sent."""

    def take(self, number: int) -> bool:
        """Return True: the job is always the worker's."""
        return True

    def revoke(self, number: int) -> bool:
        """Return False: a job is never revoked."""
        return False

    @property
    def interrupted(self) -> int:
        """The number of the job to interrupt."""
        return int(WORD.unpack_from(self._memory, 0)[0])

    @interrupted.setter
    def interrupted(self, number: int) -> None:
        WORD.pack_into(self._memory, 0, number)

    @property
    def results_read(self) -> int:
        """The number of results in shared memory that the parent has read."""
        return int(WORD.unpack_from(self._memory, 8)[0])

    @results_read.setter
    def results_read(self, count: int) -> None:
        WORD.pack_into(self._memory, 8, count)


class PlainLargeBytes:
    """The counterpart of `penstock._core.workers.claims.LargeBytes`."""

    def __init__(self, least_bytes: int) -> None:
        self.found: list[bytes | bytearray] = []
        self._least_bytes = least_bytes
        self._indices: dict[int, int] = {}

    def persistent_id(self, item: object) -> int | None:
        """Return the index of a large item in `found`, None for any other item, which stays in the pickle."""
        if type(item) not in (bytes, bytearray) or len(item) < self._least_bytes:  # type: ignore[arg-type]
            return None
        index = self._indices.setdefault(id(item), len(self.found))
        if index == len(self.found):
            self.found.append(item)  # type: ignore[arg-type]
        return index


def receive_plain(fd: int, spin_ns: int) -> bytes | None:
    """Return None: the caller receives by a call that sleeps."""
    return None


ClaimTable: Any
LargeBytes: Any
receive: Callable[[int, int], bytes | None]
SLOTS: int
# whether a worker may be sent a job while its buffers are still copied
FILLS: bool

try:
    if is_pure_requested():
        raise ImportError("the pure loop was asked for")
    import penstock._core.workers.claims as native
except ImportError:
    ClaimTable, LargeBytes, receive, SLOTS, FILLS = PlainClaimTable, PlainLargeBytes, receive_plain, 1, False
else:
    ClaimTable, LargeBytes, receive, SLOTS, FILLS = (
        native.ClaimTable,
        native.LargeBytes,
        native.receive,
        native.SLOTS,
        True,
    )


# How long to spin, in ns. It has to outlast one wake of the other side: else two sides that sleep never find each other
# awake. Of 100, 200, 300 and 400 us the last two make a single call cost a quarter of the first, and are equal.
SPIN_NS = 300_000
MOST_SKIPPED = 1023


class AdaptiveSpin:
    """Spinning before a wait, as long as it succeeds.

    To wake a process takes tens of microseconds, on a virtual machine 100 and more, and a call wakes two processes.
    That is longer than a short job. But spinning occupies a core, which the other side may need: then it never
    succeeds, and it is skipped for longer and longer. Call `should_spin` before each wait and `found` after each spin.
    """

    __slots__ = ("_left", "_skip")

    def __init__(self) -> None:
        self._skip = self._left = 0

    def should_spin(self) -> bool:
        """Return whether to spin before this wait."""
        if self._left:
            self._left -= 1
            return False
        return True

    def found(self, in_time: bool) -> None:
        """Record whether a spin succeeded."""
        self._skip = 0 if in_time else min(2 * self._skip + 1, MOST_SKIPPED)
        self._left = self._skip
