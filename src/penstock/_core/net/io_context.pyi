from typing_extensions import disjoint_base

from penstock._core.events.poller import Poller
from penstock._core.events.ready import Ready
from penstock._core.limits.wheel import Wheel
from penstock._core.net.deferred_accepts import DeferredAccepts
from penstock._core.overload.deferred_reads import DeferredReads
from penstock._core.overload.lingering import LingeringConnections

def warm_allocator() -> None: ...

@disjoint_base
class IOContext:
    @property
    def ready(self) -> Ready: ...
    @property
    def poller(self) -> Poller: ...
    @property
    def deferred_reads(self) -> DeferredReads: ...
    @property
    def lingering(self) -> LingeringConnections: ...
    @property
    def deferred_accepts(self) -> DeferredAccepts: ...
    @property
    def wheel(self) -> Wheel: ...
