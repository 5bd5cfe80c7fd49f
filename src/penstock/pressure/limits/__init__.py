"""Concurrency limits and the algorithms that move them: pure arithmetic over windows, without asyncio or a clock."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.pressure.limits.aimd import Aimd
    from penstock.pressure.limits.choosing import make_limit
    from penstock.pressure.limits.fixed import Fixed
    from penstock.pressure.limits.gradient import Gradient
    from penstock.pressure.limits.gradient2 import Gradient2
    from penstock.pressure.limits.vegas import Vegas
    from penstock.pressure.limits.window import LEAST_SAMPLES, MOST_SAMPLES, GrowingLimit, Limit, Window

__all__ = [
    "LEAST_SAMPLES",
    "MOST_SAMPLES",
    "Aimd",
    "Fixed",
    "Gradient",
    "Gradient2",
    "GrowingLimit",
    "Limit",
    "Vegas",
    "Window",
    "make_limit",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "penstock.pressure.limits.aimd": ("Aimd",),
            "penstock.pressure.limits.choosing": ("make_limit",),
            "penstock.pressure.limits.fixed": ("Fixed",),
            "penstock.pressure.limits.gradient": ("Gradient",),
            "penstock.pressure.limits.gradient2": ("Gradient2",),
            "penstock.pressure.limits.vegas": ("Vegas",),
            "penstock.pressure.limits.window": ("LEAST_SAMPLES", "MOST_SAMPLES", "GrowingLimit", "Limit", "Window"),
        },
    )
