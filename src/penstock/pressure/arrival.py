"""The documented import path of `penstock.pressure.overload.arrival`."""

from penstock.pressure.overload.arrival import arrived_at

__all__ = ["arrived_at"]
