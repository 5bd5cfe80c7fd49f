"""An event loop for tests: virtual time, a schedule that follows from a seed, and a network in memory."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.testing.link_profile import Link
    from penstock.testing.network import Connection, Network
    from penstock.testing.runs import Exploration, explore, run
    from penstock.testing.virtualloop import VirtualLoop, VirtualStatistics

__all__ = ["Connection", "Exploration", "Link", "Network", "VirtualLoop", "VirtualStatistics", "explore", "run"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "penstock.testing.link_profile": ("Link",),
            "penstock.testing.network": ("Connection", "Network"),
            "penstock.testing.runs": ("Exploration", "explore", "run"),
            "penstock.testing.virtualloop": ("VirtualLoop", "VirtualStatistics"),
        },
    )
