"""The board without native code: the same words of shared memory, but nothing sent ahead can be taken back.

So a worker is sent one job at a time (`SLOTS`): the one it has is the one it runs.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

from penstock.purity import is_native_disabled

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FILLS", "SLOTS", "SPIN_NS", "AdaptiveSpin", "ClaimTable", "LargeBytes", "receive"]

WORD = Struct("=Q")


class PlainClaimTable:
    """As `penstock._core.workers.claims.Board`, for one job at a time."""

    BYTES = 16

    def __init__(self, memory: Any) -> None:
        self._memory = memory

    def release(self) -> None:
        """Let the memory go."""
        self._memory = None

    def offer(self, number: int) -> None:
        """Nothing to settle: the one job that a worker is sent is its to run."""

    def take(self, number: int) -> bool:
        """Always the worker's."""
        return True

    def revoke(self, number: int) -> bool:
        """Never taken back."""
        return False

    @property
    def interrupted(self) -> int:
        """The number of the job that is to be interrupted."""
        return int(WORD.unpack_from(self._memory, 0)[0])

    @interrupted.setter
    def interrupted(self, number: int) -> None:
        WORD.pack_into(self._memory, 0, number)

    @property
    def results_read(self) -> int:
        """How many results in shared memory the parent has read."""
        return int(WORD.unpack_from(self._memory, 8)[0])

    @results_read.setter
    def results_read(self, count: int) -> None:
        WORD.pack_into(self._memory, 8, count)


class PlainLargeBytes:
    """As `penstock._core.workers.claims.LargeBytes`."""

    def __init__(self, least_bytes: int) -> None:
        self.found: list[bytes | bytearray] = []
        self._least_bytes = least_bytes
        self._indices: dict[int, int] = {}

    def persistent_id(self, item: object) -> int | None:
        """The index of a large item in `found`; None for all else, which is pickled where it is."""
        if type(item) not in (bytes, bytearray) or len(item) < self._least_bytes:  # type: ignore[arg-type]
            return None
        index = self._indices.setdefault(id(item), len(self.found))
        if index == len(self.found):
            self.found.append(item)  # type: ignore[arg-type]
        return index


def receive_plain(fd: int, spin_ns: int) -> bytes | None:
    """Leaves everything to the receive that sleeps."""
    return None


ClaimTable: Any
LargeBytes: Any
receive: Callable[[int, int], bytes | None]
SLOTS: int
# whether a worker may be told of a job while its buffers are still being copied
FILLS: bool

try:
    if is_native_disabled():
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


# How long to look; and what is not expected within this time is not worth it. It has to outlast one wake of the other
# side, or two sides that sleep never find each other awake: of 100, 200, 300 and 400 us the last two make a lone call
# cost a quarter of the first, and no less than each other.
SPIN_NS = 300_000
MOST_SKIPPED = 1023


class AdaptiveSpin:
    """`wants_to_look` before each wait; `found` tells whether a look was worth it."""

    __slots__ = ("_left", "_skip")

    def __init__(self) -> None:
        self._skip = self._left = 0

    def should_spin(self) -> bool:
        """Whether to look this time."""
        if self._left:
            self._left -= 1
            return False
        return True

    def found(self, in_time: bool) -> None:
        """What came of the look."""
        self._skip = 0 if in_time else min(2 * self._skip + 1, MOST_SKIPPED)
        self._left = self._skip
