"""The documented import path of `penstock.pressure.overload.loop`."""

from penstock.pressure.overload.loop import arrived_at

__all__ = ["arrived_at"]
