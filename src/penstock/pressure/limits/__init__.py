"""How many at once: the algorithms that move a limit. Pure arithmetic over windows; no asyncio, no clock."""

from penstock.pressure.limits.choosing import make_limit
from penstock.pressure.limits.fixed import Fixed
from penstock.pressure.limits.gradient import Gradient
from penstock.pressure.limits.window import LEAST_SAMPLES, MOST_SAMPLES, Limit, Window

__all__ = ["LEAST_SAMPLES", "MOST_SAMPLES", "Fixed", "Gradient", "Limit", "Window", "make_limit"]
