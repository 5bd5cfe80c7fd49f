# cython: annotation_typing=False, nonecheck=True
"""A pickle and the large buffers outside it, and the pickles of small items.

Native where it is built (`pickled.pxd` has the types), this very source elsewhere.
"""

from __future__ import annotations

from pickle import dumps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LARGE_BYTES", "Pickled", "small_pickle"]

# A buffer of this size is sent outside the pickle. For a smaller one two copies cost less than the accounting.
LARGE_BYTES = 65_536
# Objects of these types are small, and contain no others.
SMALL_TYPES = frozenset((int, float, bool, complex, type(None)))


class Pickled:
    """A pickle, `text`, and the large buffers outside it, `bytes_like` and `lent`, in the order in which `load` takes
    them.

    The function of a call may be pickled apart, in `function`.
    """

    def __init__(
        self, text: bytes, bytes_like: Sequence[bytes | bytearray] = (), lent: Sequence[memoryview] = ()
    ) -> None:
        self.text = text
        self.bytes_like = bytes_like
        self.lent = lent
        self.function = b""

    @property
    def is_small(self) -> bool:
        """Whether all of it fits into a frame."""
        return not self.bytes_like and not self.lent and len(self.text) < LARGE_BYTES

    @property
    def size_bytes(self) -> int:
        """The size of all that is sent."""
        size = len(self.text)
        if self.bytes_like or self.lent:
            size += sum(map(len, self.bytes_like)) + sum(view.nbytes for view in self.lent)
        return size


def small_pickle(item: Any) -> Pickled | None:
    """Pickle a number, None, or a tuple of such items and short texts. Return None for any other item."""
    if type(item) in SMALL_TYPES or (type(item) is tuple and _is_small(item)):
        return Pickled(dumps(item, 5))
    return None


def _is_small(items: tuple[Any, ...]) -> bool:
    for item in items:
        kind = type(item)
        if kind not in SMALL_TYPES and (kind not in (str, bytes) or len(item) >= LARGE_BYTES):
            return False
    return True
