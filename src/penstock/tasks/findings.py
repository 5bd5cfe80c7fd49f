"""What was found wrong, kept within bounds: the newest of each kind, counts of all, callbacks, one logger a subject."""

from __future__ import annotations

__all__ = ["FindingLog"]


class FindingLog:
    """The findings of one loop."""
