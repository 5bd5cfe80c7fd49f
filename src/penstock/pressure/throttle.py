"""The documented import path of `penstock.pressure.client.throttle`."""

from penstock.pressure.client.throttle import Throttle, ThrottleStatistics

__all__ = ["Throttle", "ThrottleStatistics"]
