"""Wiring: the parts of one reactor that its watches, transports and listeners are connected to."""

from penstock._core.poller import Poller
from penstock._core.ready import Ready

class Wiring:
    @property
    def ready(self) -> Ready: ...
    @property
    def gathered(self) -> Ready: ...
    @property
    def poller(self) -> Poller: ...
